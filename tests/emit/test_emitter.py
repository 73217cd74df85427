import shutil
import subprocess

import numpy as np
import pytest

from tests.flags import STRICT
from tests.lower import graphs
from toolchain.emit import Vectors, emit
from toolchain.lower import lower
from toolchain.plan import plan

MAIN = """
#include "net.h"
static NET_ALIGN(NET_ARENA_ALIGN) unsigned char arena[NET_ARENA_BYTES + 16];
int main(void)
{
    if (net_init(arena, NET_ARENA_BYTES - 1u) != NET_ERROR_ARENA_SIZE) { return 101; }
    if (net_init(arena + 1, NET_ARENA_BYTES) != NET_ERROR_ARENA_ALIGN) { return 102; }
    if (net_init(arena, NET_ARENA_BYTES) != NET_OK) { return 103; }
    return net_selftest(arena);
}
"""
GRAPHS = {"float": graphs.chain, "int8": graphs.int8_chain, "aliases": graphs.outputs_that_alias}


def program(kind):
    return plan(lower(GRAPHS[kind](), graphs.OPTIONS))


def samples(kind):
    made = program(kind)
    x = np.random.default_rng(0).integers(-100, 100, (2, *made.inputs[0].type.shape))
    x = x.astype(made.inputs[0].type.dtype.numpy)
    if kind == "aliases":
        return Vectors((x,), (x, x, x, np.tile(np.arange(4, dtype=np.float32), (2, 1))))
    return Vectors((x,), (x.reshape(2, 2, 2, 2, 2, 3).max(axis=(2, 4)).reshape(2, 1, 12),))


def build(folder, files, *flags):
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "main.c").write_text(MAIN)
    subprocess.run(["gcc", *STRICT, *flags, "main.c", "net.c", "-o", "main"], cwd=folder, check=True)
    return subprocess.run([folder / "main"], check=False).returncode


@pytest.mark.parametrize("kind", GRAPHS)
def test_selftest_passes(kind, tmp_path):
    assert build(tmp_path, emit(program(kind), samples(kind)), "-fsanitize=address,undefined") == 0


@pytest.mark.parametrize("kind", GRAPHS)
def test_selftest_sees_a_wrong_output(kind, tmp_path):
    good = samples(kind)
    wrong = Vectors(good.inputs, (good.outputs[0] + np.ones((), good.outputs[0].dtype), *good.outputs[1:]))
    assert build(tmp_path, emit(program(kind), wrong)) == 4


def test_selftest_sees_a_changed_weight(tmp_path):
    files = emit(program("aliases"), samples("aliases"))
    files["net_weights.h"] = files["net_weights.h"].replace("3.0f", "3.5f")
    assert build(tmp_path, files) == 3


@pytest.mark.parametrize("kind", GRAPHS)
def test_same_program_same_bytes(kind):
    assert emit(program(kind), samples(kind)) == emit(program(kind), samples(kind))


@pytest.mark.skipif(shutil.which("clang-format") is None, reason="needs clang-format")
@pytest.mark.parametrize("kind", GRAPHS)
def test_clang_format_changes_nothing(kind, pytestconfig):
    style = f"--style=file:{pytestconfig.rootpath / '.clang-format'}"
    for name, text in emit(program(kind), samples(kind), source="net.onnx").items():
        command = ["clang-format", style, f"--assume-filename={name}"]
        formatted = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
        assert formatted == text


@pytest.mark.parametrize("kind", GRAPHS)
def test_header_is_cpp(kind, tmp_path):
    (tmp_path / "net.h").write_text(emit(program(kind))["net.h"])
    (tmp_path / "use.cpp").write_text('#include "net.h"\nint use(void *arena) { net_run(arena); return NET_OK; }\n')
    subprocess.run(["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-c", "use.cpp"], cwd=tmp_path, check=True)


def test_quantize_rounds_and_saturates_as_the_fixed_point_module(tmp_path):
    from toolchain.fixedpoint import quantize

    reals = np.array([0, 0.025, -0.025, 0.074999, 1e30, -1e30, np.inf, -np.inf, 3.3, -6.12, 6.3749], np.float32)
    text = ", ".join("1.0f / 0.0f" if r == np.inf else "-1.0f / 0.0f" if r == -np.inf else f"{r!s}f" for r in reals)
    text = text.replace("0f,", "0.0f,", 1) if text.startswith("0f") else text
    main = f"""#include "net.h"
#include <stdio.h>
int main(void)
{{
    const float reals[] = {{{text}, 0.0f / 0.0f}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {{ printf("%d ", net_quantize_input0(reals[i])); }}
    return 0;
}}
"""
    for name, content in emit(program("int8"), samples("int8")).items():
        (tmp_path / name).write_text(content)
    (tmp_path / "main.c").write_text(main)
    subprocess.run(["gcc", "main.c", "net.c", "-o", "main"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    expected = quantize(np.append(reals, np.float32("nan")), 0.05, -3, -128, 127)
    assert [int(word) for word in printed.split()] == expected.tolist()


def test_trace_reports_every_written_tensor():
    text = emit(program("aliases"), trace=True)["net.c"]
    assert text.count("inlay_trace(") == 1 + 4
    assert "inlay_trace" not in emit(program("aliases"))["net.c"]

"""What the generated C promises whoever embeds it: flags, names, re-entrancy, reproducible bytes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import toolchain
from tests.conftest import REPOSITORY
from tests.flags import STRICT

DIGITS = REPOSITORY / "firmware_demo/digits"
CALIBRATION = DIGITS / "calibration.npz"
KINDS = {"plain": {}, "small": {"quantize": "int8", "calibration": CALIBRATION}}


def tool(name: str, package: str | None = None) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} not found: sudo apt-get install {package or name}")
    return path


def call(*command: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, input=stdin, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network as float (`plain`) and as int8 (`small`), side by side."""
    folder = tmp_path_factory.mktemp("exports")
    for name, options in KINDS.items():
        toolchain.export(DIGITS / "digits.onnx", out=folder / name, name=name, **options)
    return folder


@pytest.mark.parametrize("optimise", ["-O0", "-O2", "-O3"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", KINDS)
def test_builds_without_a_warning(name: str, compiler: str, optimise: str, exports: Path, tmp_path: Path) -> None:
    call(tool(compiler), *STRICT, optimise, "-c", exports / name / f"{name}.c", "-o", tmp_path / "model.o")


@pytest.mark.parametrize("name", KINDS)
def test_external_symbols_carry_the_prefix_and_nothing_is_writable(name: str, exports: Path, tmp_path: Path) -> None:
    # Position-independent code would put pointers to constants among writable data.
    call("gcc", *STRICT, "-O2", "-fno-pie", "-c", exports / name / f"{name}.c", "-o", tmp_path / "model.o")
    symbols = [line.split() for line in call("nm", tmp_path / "model.o").splitlines()]
    defined = [(kind, symbol) for _, kind, symbol in (s for s in symbols if len(s) == 3)]
    assert {symbol.startswith(f"{name}_") for kind, symbol in defined if kind.isupper()} == {True}
    assert not [symbol for kind, symbol in defined if kind in "dDbBcC"]
    undefined = {s[1] for s in symbols if len(s) == 2 and s[0] == "U"}
    assert undefined <= {"memcpy", "memset", "memcmp", "memmove", "__stack_chk_fail"}


PRIVATE = {"KERNEL_DSP", "KERNEL_MVE", "KERNEL_WIDE", "MULTIPLY_QUAD", "EIGHT_QUADS"}
"""Macros of NAME.c, which no other file sees."""


@pytest.mark.parametrize("name", KINDS)
def test_macros_carry_the_prefix(name: str, exports: Path) -> None:
    for file in (exports / name).glob("*.[ch]"):
        for macro in re.findall(r"^\s*#\s*define\s+(\w+)", file.read_text(), re.MULTILINE):
            private = file.name == f"{name}.c" and macro in PRIVATE
            assert private or macro.startswith(f"{name.upper()}_"), f"{file.name}: {macro}"


TWO_MODELS = """
#include "plain.h"
#include "small.h"
#include <stdio.h>
static _Alignas(16) unsigned char first[PLAIN_ARENA_BYTES], second[SMALL_ARENA_BYTES];
int main(void)
{
    if (plain_init(first, sizeof first) || small_init(second, sizeof second)) {
        return 1;
    }
    if (plain_init(first, sizeof first - 1) != PLAIN_ERROR_ARENA_SIZE) {
        return 2;
    }
    if (plain_init(first + 1, sizeof first) != PLAIN_ERROR_ARENA_ALIGN) {
        return 3;
    }
    printf("%d %d\\n", plain_selftest(first), small_selftest(second));
    return 0;
}
"""


def test_two_models_link_into_one_program_and_pass_their_self_tests(exports: Path, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(TWO_MODELS)
    sources = [exports / name / f"{name}.c" for name in KINDS]
    includes = [f"-I{exports / name}" for name in KINDS]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    call("gcc", "-O1", *sanitize, *includes, tmp_path / "main.c", *sources, "-lm", "-o", tmp_path / "both")
    assert call(tmp_path / "both") == "0 0\n"


def test_a_changed_weight_is_noticed_by_the_self_test(exports: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(exports / "small", folder)
    header = folder / "small_weights.h"
    text = header.read_text()
    number = re.search(r"(?<=[ ,])(1\d)(?=,)", text)
    assert number is not None
    header.write_text(text[: number.start()] + str(int(number[0]) + 1) + text[number.end() :])
    (tmp_path / "main.c").write_text(
        '#include "small.h"\nstatic _Alignas(16) unsigned char a[SMALL_ARENA_BYTES];\n'
        "int main(void) { return small_selftest(a) == SMALL_OK ? 0 : 7; }\n"
    )
    call("gcc", "-O1", f"-I{folder}", tmp_path / "main.c", folder / "small.c", "-lm", "-o", tmp_path / "program")
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 7


@pytest.mark.parametrize("name", KINDS)
def test_header_compiles_as_cpp(name: str, exports: Path, tmp_path: Path) -> None:
    (tmp_path / "main.cpp").write_text(f'#include "{name}.h"\nint main() {{ return {name}_init(nullptr, 0) == 0; }}\n')
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
    call(tool("g++"), *flags, f"-I{exports / name}", tmp_path / "main.cpp")


@pytest.mark.parametrize("name", KINDS)
def test_the_same_bytes_again(name: str, exports: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / name
    toolchain.export(DIGITS / "digits.onnx", out=again, name=name, **KINDS[name])
    first = {p.relative_to(exports / name): p.read_bytes() for p in (exports / name).rglob("*") if p.is_file()}
    second = {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    assert first == second
    assert not [p for p, data in second.items() if str(tmp_path).encode() in data]


@pytest.mark.parametrize("name", KINDS)
def test_every_line_of_a_comment_begins_with_a_star(name: str, exports: Path) -> None:
    for path in sorted((exports / name).glob("*.[ch]")):
        comments = re.findall(r"/\*.*?\*/", path.read_text(), re.DOTALL)
        assert comments
        lines = [line for comment in comments for line in comment.splitlines()[1:]]
        assert [line for line in lines if not line.lstrip().startswith("*")] == []


@pytest.mark.parametrize("name", KINDS)
def test_clang_format_changes_nothing(name: str, exports: Path) -> None:
    formatter = tool("clang-format")
    for file in sorted((exports / name).glob("*.[ch]")):
        text = file.read_text()
        formatted = call(formatter, f"--style=file:{REPOSITORY / '.clang-format'}", stdin=text)
        assert formatted == text, file.name


HOSTS = {
    "i686": (("i686-linux-gnu-gcc", "-msse2", "-mfpmath=sse"), "gcc-i686-linux-gnu", ()),
    "powerpc": (("powerpc-linux-gnu-gcc",), "gcc-powerpc-linux-gnu", ("qemu-ppc",)),
}
"""Hosts of 32 bits, the second one big-endian: compiler, its package, what runs its programs."""


@pytest.mark.parametrize("host", HOSTS)
def test_other_hosts_give_the_same_integers(host: str, exports: Path, tmp_path: Path) -> None:
    (compiler, *flags), package, runner = HOSTS[host]
    for program in runner:
        tool(program, "qemu-user")
    (tmp_path / "main.c").write_text(TWO_MODELS)
    sources = [exports / name / f"{name}.c" for name in KINDS]
    includes = [f"-I{exports / name}" for name in KINDS]
    command = [tool(compiler, package), *flags, "-static", "-O2", *includes]
    call(*command, tmp_path / "main.c", *sources, "-lm", "-o", tmp_path / "both")
    assert call(*runner, tmp_path / "both") == "0 0\n"


def test_result_runs_the_compiled_c(exports: Path) -> None:
    data = np.load(DIGITS / "evaluation.npz")
    result = toolchain.export(DIGITS / "digits.onnx", out=exports / "again", name="again")
    scores = result.run(data["image"])
    assert (scores.argmax(1) == data["y"]).mean() > 0.99

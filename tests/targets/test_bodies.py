"""Kernels with several bodies: each against numpy on random layers, on the core that runs it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.targets import layers
from toolchain import emit
from toolchain.config import Options, Rounding
from toolchain.emit import Vectors
from toolchain.ir.types import QuantParams
from toolchain.lower import lower
from toolchain.ops.base import Body
from toolchain.ops.dense import Dense
from toolchain.plan import plan
from toolchain.targets.cores import TARGETS
from toolchain.targets.emulator import run_image
from toolchain.targets.image import Build, build_image
from toolchain.verify import check
from toolchain.verify.harness import pack

CLANG = ("clang", "--target=arm-none-eabi", "-munaligned-access", "-isystem")
CORES = {
    "dsp": ("cortex-m4", Build("2")),
    "dsp, small": ("cortex-m4", Build("s")),
    "not optimised": ("cortex-m4", Build("0")),
    "portable by choice": ("cortex-m4", Build("1", defines=("M_PORTABLE",))),
    "portable": ("cortex-m3", Build("2")),
    "mve": ("cortex-m55", Build("3")),
    "dsp by clang": ("cortex-m4", Build("2", compiler=CLANG)),
    "mve by clang": ("cortex-m55", Build("2", compiler=CLANG)),
}
SAMPLES = 3


@pytest.fixture(params=CORES)
def core(request, needs):
    """(core, how to build for it), where the tools are there; clang takes the headers of gcc's library."""
    target, build = CORES[request.param]
    needs(target)
    if not build.compiler:
        return target, build
    if shutil.which(build.compiler[0]) is None:
        pytest.skip("clang not found: sudo apt-get install clang")
    gcc = subprocess.run(
        ["arm-none-eabi-gcc", "-xc", "-E", "-v", "/dev/null"], capture_output=True, text=True, check=True
    )
    folders = [line.strip() for line in gcc.stderr.splitlines() if line.startswith(" /")]
    (library,) = (folder for folder in folders if (Path(folder) / "string.h").exists())
    return target, replace(build, compiler=(*build.compiler, library))


COUNT = {"conv": 40, "dense": 20, "depthwise": 30, "taps": 24, "groups": 24}


@pytest.fixture(scope="module", params=list(Rounding), ids=lambda rounding: rounding.value)
def many(request):
    """Random layers as one program, inputs, and what numpy makes of them."""
    rng = np.random.default_rng(11)
    some = [layers.random_conv(rng) for _ in range(COUNT["conv"])]
    some += [layers.random_dense(rng) for _ in range(COUNT["dense"])]
    some += [layers.random_depthwise(rng) for _ in range(COUNT["depthwise"])]
    some += [layers.random_taps(rng) for _ in range(COUNT["taps"])]
    some += [layers.random_groups(rng) for _ in range(COUNT["groups"])]
    graph, program = layers.program_of(some, request.param)
    feeds = layers.feeds_for(graph, SAMPLES, rng)
    return graph, program, feeds, layers.run_numpy(graph, feeds, request.param)


def test_random_layers(many, core, tmp_path):
    graph, program, feeds, expected = many
    found = layers.run_core(graph, program, feeds, *core, tmp_path)
    wrong = [
        graph.nodes[i].op for i in range(len(graph.nodes)) if not np.array_equal(found[f"y{i}"], expected[f"y{i}"])
    ]
    assert wrong == []


def test_the_largest_sums_are_right(core, tmp_path):
    """2,003 inputs at the ends of int8: sums beyond 24 bits, of either sign."""
    rng = np.random.default_rng(3)
    signs = rng.choice([-1, 1], (1, 2003)).astype(np.int8)
    weight = np.repeat(127 * signs, 5, axis=0)
    weight[1] = -weight[1]
    weight[2:4, ::2] = 0
    bias = np.array([5, -5, 1 << 29, -(1 << 29), 77], np.int32)
    quants = QuantParams((1.0,), 0), QuantParams((1e-5,), 0), QuantParams((3.5,), 3)
    graph, program = layers.program_of([(Dense(), signs.shape, weight, bias, quants)], Rounding.TFLM)
    feeds = {"x0": np.stack([np.where(signs > 0, 127, -128), np.where(signs > 0, -128, 127)]).astype(np.int8)}
    expected = layers.run_numpy(graph, feeds, Rounding.TFLM)["y0"]
    assert np.ptp(expected.astype(int)) > 100
    np.testing.assert_array_equal(layers.run_core(graph, program, feeds, *core, tmp_path)["y0"], expected)


def test_products(core, tmp_path):
    rng = np.random.default_rng(3)
    shapes = [[(1, 7)] * 2, [(1, 40)] * 2, [(5, 6), (6,)], [(3, 16), (16,)], [(9, 2), (2,)]]
    graph = layers.graph_of([layers.pairwise(i, "mul", each, rng) for i, each in enumerate(shapes)])
    program = plan(lower(graph, Options(name="m")))
    feeds = layers.feeds_for(graph, SAMPLES, rng)
    found = layers.run_core(graph, program, feeds, *core, tmp_path)
    for name, expected in layers.run_numpy(graph, feeds, Rounding.TFLM).items():
        np.testing.assert_array_equal(found[name], expected)


def test_matrices(core, tmp_path):
    rng = np.random.default_rng(4)
    shapes = [((4, 5), (5, 6)), ((2, 1, 3, 8), (3, 8, 4)), ((3, 7), (7, 3))]
    graph = layers.graph_of([layers.matrices(i, each, rng) for i, each in enumerate(shapes)])
    program = plan(lower(graph, Options(name="m")))
    feeds = layers.feeds_for(graph, SAMPLES, rng)
    found = layers.run_core(graph, program, feeds, *core, tmp_path)
    for name, expected in layers.run_numpy(graph, feeds, Rounding.TFLM).items():
        np.testing.assert_array_equal(found[name], expected)


def test_most_of_them_have_a_body_for_dsp(many):
    """Fully connected layers that round once as LiteRT does run plain C."""
    _, program, _, _ = many
    own = [step for step in program.steps if step.fields(Body.DSP) != step.fields(Body.PORTABLE)]
    able = COUNT["conv"] if program.rounding is Rounding.LITERT else len(program.steps)
    assert 0.6 * able < len(own) < len(program.steps)


def test_the_self_test_knows_each_bodys_weights(core, tmp_path):
    rng = np.random.default_rng(5)
    graph, program = layers.program_of([layers.random_dense(rng), layers.random_conv(rng)], Rounding.TFLM)
    feeds = layers.feeds_for(graph, 1, rng)
    expected = layers.run_numpy(graph, feeds, Rounding.TFLM)
    vectors = Vectors(tuple(feeds[n] for n in graph.inputs), tuple(expected[n] for n in graph.outputs))
    files = emit.emit(program, vectors)
    assert status(files, graph, feeds, *core, tmp_path / "good") == 0
    files["m_weights.h"] = files["m_weights.h"].replace("_WEIGHTS_CRC32 0x", "_WEIGHTS_CRC32 1 + 0x")
    assert status(files, graph, feeds, *core, tmp_path / "bad") == 3


def status(files, graph, feeds, target, build, folder):
    """What m_selftest says on a core: the program's run is replaced by it."""
    folder.mkdir()
    call = "void m_run(void *arena)\n{\n    *(int8_t *)m_input0(arena) = (int8_t)m_selftest(arena);\n"
    call += "    memset((void *)m_output0(arena), *m_input0(arena), 1);\n}\n"
    files = files | {
        "m.c": files["m.c"].replace("m_run(", "m_network(").replace("void m_network", "static void m_network", 1) + call
    }
    for path, text in files.items():
        (folder / path).write_text(text)
    ends = check.interface(graph, "m")
    image = build_image(folder / "m.c", folder, ends, TARGETS[target], folder, build)
    return run_image(image, pack(ends.inputs, feeds)).output[0]

"""The bodies for cores with MVE on the emulated Cortex-M55: awkward shapes, multipliers, zero points, overlaps."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from tests.flags import STRICT
from tests.ops.probe import inputs_of, main_of, probes, program_of, verdicts
from tests.ops.test_overlap import every_row
from tests.targets.layers import graph_of, pairwise
from toolchain import emit, interpret
from toolchain.config import Options, Rounding
from toolchain.emit.environment import environment
from toolchain.ir.graph import Node, Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.lower import lower
from toolchain.ops import helium, linear
from toolchain.ops.binary import Binary
from toolchain.ops.conv import Conv
from toolchain.ops.dense import Dense
from toolchain.ops.pool import AvgPool, MaxPool
from toolchain.plan import plan
from toolchain.targets import parity
from toolchain.targets.cores import TARGETS
from toolchain.targets.emulator import emulator_command
from toolchain.targets.image import COMMON_FLAGS, Image
from toolchain.verify.compiler import compile_c
from toolchain.verify.harness import Interface, copy_sources

CORE = "cortex-m55"
WITH_BODIES = (AvgPool, Binary, Conv, Dense, MaxPool)


def layer(number, op, x, weight, rng, *, scale=None, channels=True, clamp=False):
    """One int8 layer of random weights and bias; `scale` is that of its output, None where it fits the sums."""
    outputs, name = weight[0], f"l{number}"
    w = rng.integers(-127, 128, weight).astype(np.int8)
    scales = rng.uniform(0.002, 0.02, outputs if channels else 1)
    spread = 127 * 74 * np.sqrt(w[0].size) * 0.05 * scales.max()
    y_scale = scale or float(spread / rng.uniform(60, 200))
    zeros = [int(rng.choice([-128, 127, -5, int(rng.integers(-128, 128))])) for _ in range(2)]
    bias = rng.integers(-2000, 2000, outputs).astype(np.int32)
    if clamp:
        real = sorted(y_scale * (int(q) - zeros[1]) for q in rng.integers(-128, 128, 2))
        op = op(tuple(real))
    else:
        op = op(None)
    kind = TensorType(x, DType.INT8, QuantParams((0.05,), zeros[0]))
    constants = [
        Tensor(f"{name}_w", TensorType(weight, DType.INT8, QuantParams(tuple(scales.tolist()), 0, 0)), w),
        Tensor(f"{name}_b", TensorType((outputs,), DType.INT32), bias),
    ]
    (shape,) = op.infer(kind, *(c.type for c in constants))
    y = Tensor(f"{name}_y", TensorType(shape.shape, DType.INT8, QuantParams((y_scale,), zeros[1])))
    tensors = [Tensor(f"{name}_x", kind), *constants, y]
    return Node(op, tuple(t.name for t in tensors[:3]), (y.name,), name), tensors


CONVOLUTIONS = [
    # x, kernel, stride, dilation, padding, outputs, groups
    ((1, 1, 1, 1), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1, 1),
    ((1, 1, 2, 16), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 4, 1),
    ((1, 3, 1, 17), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 5, 1),
    ((2, 3, 5, 33), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 7, 1),
    ((1, 5, 4, 8), (1, 1), (2, 2), (1, 1), ((0, 0), (0, 0)), 9, 1),
    ((1, 2, 2, 3), (1, 1), (1, 1), (1, 1), ((1, 2), (3, 0)), 3, 1),
    ((1, 6, 5, 3), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 8, 1),
    ((1, 7, 8, 16), (3, 3), (2, 2), (1, 1), ((0, 1), (0, 1)), 6, 1),
    ((2, 2, 3, 5), (3, 3), (1, 1), (1, 1), ((4, 3), (5, 4)), 2, 1),
    ((1, 9, 6, 1), (5, 4), (2, 3), (2, 1), ((3, 2), (1, 2)), 4, 1),
    ((1, 11, 4), (3,), (2,), (2,), ((2, 0),), 6, 1),
    ((3, 12, 2), (4,), (1,), (1,), ((1, 2),), 1, 1),
    ((1, 8, 8, 12), (3, 3), (1, 1), (1, 1), ((-1, 0), (0, -2)), 4, 1),
]


DEPTHWISE = [
    # x, kernel, stride, dilation, padding
    ((1, 7, 6, 2), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    ((2, 13, 3, 17), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    ((1, 3, 9, 5), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    ((1, 2, 2, 3), (3, 3), (1, 1), (1, 1), ((4, 3), (5, 4))),
    ((1, 48, 46, 3), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    ((1, 47, 48, 2), (3, 3), (2, 2), (1, 1), ((0, 1), (0, 1))),
    ((2, 9, 8, 4), (3, 3), (2, 2), (1, 1), ((1, 1), (0, 1))),
    ((1, 8, 9, 4), (3, 3), (2, 1), (1, 1), ((1, 0), (1, 1))),
    ((1, 9, 9, 3), (5, 3), (1, 1), (2, 2), ((4, 4), (2, 2))),
    ((1, 9, 7, 3), (4, 4), (1, 1), (1, 1), ((1, 2), (1, 2))),
    ((1, 9, 9, 3), (5, 5), (1, 1), (1, 1), ((2, 2), (2, 2))),
    ((1, 6, 130, 2), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    ((1, 3, 3, 4), (3, 3), (1, 1), (1, 1), ((0, 0), (0, 0))),
    ((1, 8, 8, 3), (2, 2), (3, 3), (1, 1), ((0, 0), (0, 0))),
    ((1, 8, 9, 3), (3, 3), (1, 1), (1, 1), ((-1, 0), (0, -2))),
    ((2, 19, 3), (3,), (1,), (1,), ((1, 1),)),
    ((1, 19, 4), (4,), (3,), (2,), ((5, 2),)),
]


def convolution(number, case, rng, **how):
    x, kernel, stride, dilation, padding, outputs, groups = case
    weight = (outputs, *kernel, x[-1] // groups)
    return layer(number, lambda clamp: Conv(stride, dilation, padding, groups, clamp), x, weight, rng, **how)


def layers_with_weights(rng):
    found = []
    for case in CONVOLUTIONS:
        found.append(convolution(len(found), case, rng, channels=bool(rng.integers(2)), clamp=bool(rng.integers(2))))
    for case in DEPTHWISE:
        channels = case[0][-1]
        how = {"channels": bool(rng.integers(2)), "clamp": bool(rng.integers(2))}
        found.append(convolution(len(found), (*case, channels, channels), rng, **how))
    found.append(convolution(len(found), (*DEPTHWISE[1], 17, 17), rng, scale=0.0002))
    for elements in [1, 2, 3, 4, 5, 63, 64, 200, 1001]:
        found.append(pairwise(len(found), "add", [(1, elements)] * 2, rng))
        found.append(pairwise(len(found), "mul", [(1, elements)] * 2, rng))
    found.append(pairwise(len(found), "mul", [(7, 6), (6,)], rng))
    found.append(convolution(len(found), CONVOLUTIONS[3], rng, scale=0.0005))
    found.append(convolution(len(found), CONVOLUTIONS[7], rng, scale=0.0003, clamp=True))
    found.append(convolution(len(found), CONVOLUTIONS[4], rng, scale=3e5))
    for inputs, outputs in [(1, 1), (16, 3), (31, 4), (64, 12), (129, 5)]:
        how = {"channels": bool(rng.integers(2)), "clamp": bool(rng.integers(2))}
        found.append(layer(len(found), Dense, (1, inputs), (outputs, inputs), rng, **how))
        found.append(layer(len(found), Dense, (3, inputs), (outputs, inputs), rng, **how))
    found.append(layer(len(found), Dense, (1, 20), (6, 20), rng, scale=0.0004))
    return found


def differing(layers, rounding, folder, rng, name="m"):
    """The layers whose outputs on the core are not numpy's, over samples of noise."""
    graph = graph_of(layers)
    program = plan(lower(graph, Options(name=name, rounding=rounding)))
    copy_sources(emit.emit(program), folder)
    batch = {name: rng.integers(-128, 128, (3, *graph.tensors[name].type.shape)) for name in graph.inputs}
    batch = {name: values.astype(np.int8) for name, values in batch.items()}
    found, _ = parity.outputs(folder, graph, program.name, TARGETS[CORE], batch)
    wrong = []
    for sample in range(3):
        expected = interpret.run(graph, {name: values[sample] for name, values in batch.items()}, rounding=rounding)
        wrong += [name for name in graph.outputs if not np.array_equal(found[name][sample], expected[name])]
    return wrong, program


def bodies(program):
    """(macro, how it takes multipliers and shifts) of the kernels with weights that have a body for MVE."""
    variants = [(kernel.macro, dict(kernel.variant)) for kernel in program.kernels]
    return {(macro, variant["scaling"]) for macro, variant in variants if variant.get("mve")}


@pytest.mark.parametrize("rounding", Rounding)
def test_layers_equal_numpy(needs, tmp_path, rng, rounding):
    needs(CORE)
    wrong, program = differing(layers_with_weights(rng), rounding, tmp_path, rng)
    assert wrong == []
    text = emit.emit(program)["m.c"]
    assert {kernel.macro for kernel in program.kernels} >= {"conv", "dense", "depthwise", "binary"}
    assert bodies(program) >= {(macro, how) for macro in ("conv", "depthwise") for how in ("tensor", "words")}
    assert "KERNEL_MVE" in text


def test_outputs_with_shifts_of_their_own(needs, tmp_path, rng, monkeypatch):
    """Layers whose multipliers don't tell the shifts."""
    needs(CORE)
    monkeypatch.setattr(linear, "with_one_shift", lambda spec: spec)
    layers = [convolution(i, case, rng) for i, case in enumerate(CONVOLUTIONS)]
    layers += [convolution(len(layers) + i, (*case, case[0][-1], case[0][-1]), rng) for i, case in enumerate(DEPTHWISE)]
    layers.append(layer(len(layers), Dense, (1, 41), (6, 41), rng))
    wrong, program = differing(layers, Rounding.TFLM, tmp_path, rng)
    assert wrong == []
    assert bodies(program) >= {("conv", "arrays"), ("depthwise", "arrays")}


def pooling(number, x, window, padding, rng):
    """An average over windows a step apart."""
    kind = TensorType(x, DType.INT8, QuantParams((0.05,), int(rng.integers(-128, 128))))
    op = AvgPool(window, (1,) * len(window), padding)
    (shape,) = op.infer(kind)
    tensors = [Tensor(f"l{number}_x", kind), Tensor(f"l{number}_y", TensorType(shape.shape, DType.INT8, kind.quant))]
    return Node(op, (tensors[0].name,), (tensors[1].name,), f"l{number}"), tensors


POOLS = [
    # x, window, padding
    ((1, 5, 4, 4), (5, 4), ((0, 0), (0, 0))),
    ((2, 3, 5, 16), (2, 3), ((1, 0), (1, 2))),
    ((1, 15, 17, 17), (15, 17), ((0, 0), (0, 0))),
    ((1, 4, 3, 37), (3, 3), ((1, 1), (1, 1))),
    ((1, 9, 12), (4,), ((2, 1),)),
]


def test_averages_equal_numpy(needs, tmp_path, rng):
    needs(CORE)
    layers = [pooling(number, *case, rng) for number, case in enumerate(POOLS)]
    assert differing(layers, Rounding.TFLM, tmp_path, rng)[0] == []


def test_weights_come_in_steps_of_16_inputs_and_maybe_8():
    rows = np.arange(6 * 20, dtype=np.int8).reshape(6, 20)
    first, second = helium.packed(rows)
    assert first.tolist() == [*rows[:4, :16].ravel(), *np.pad(rows[:4, 16:], ((0, 0), (0, 4))).ravel()]
    assert second[:32].tolist() == rows[4:, :16].ravel().tolist()
    assert not second[32:64].any()
    assert helium.packed(rows[:, :9]).shape == (2, 4 * 16)
    assert helium.packed(rows[:, :8]).shape == (2, 4 * 8)


def test_sizes_beyond_the_records_numbers_have_no_such_body(rng):
    """Pictures higher than 16 bits count."""
    high = ((1, 1 << 15, 1, 4), (3, 1), (1, 1), (1, 1), ((0, 0), (0, 0)))
    graph = graph_of([convolution(0, (*high, 4, 1), rng), convolution(1, (*high, 4, 4), rng)])
    program = lower(graph, Options(name="m"))
    assert [dict(step.kernel.variant)["mve"] for step in program.steps] == [False, False]


@pytest.mark.parametrize("level", ["0", "s"])
def test_no_warnings(needs, tmp_path, rng, level):
    target = TARGETS[needs(CORE)]
    copy_sources(emit.emit(plan(lower(graph_of(layers_with_weights(rng)), Options(name="m")))), tmp_path)
    compile_c((target.compiler,), [*target.flags, *STRICT, f"-O{level}", "-c", "m.c", "-o", "m.o"], tmp_path)


STDIO = """
static void put(int c) { const char text = (char)c; write_output(&text, 1); }
#define stdin 0
#define fread(data, bytes, one, file) read_input(data, bytes)
#define putchar(c) put(c)
#define puts(text) (put('x'), put(10))
"""
"""What the probes use of <stdio.h>, by semihosting."""


def test_outputs_over_inputs(needs, tmp_path):
    target = TARGETS[needs(CORE)]
    rng = np.random.default_rng(5)
    program = program_of([row for row in every_row(rng) if isinstance(row.op, WITH_BODIES)], rng, integers=True)
    copy_sources(emit.emit(program), tmp_path)
    todo = probes(program, allowed=True)
    templates = environment().get_template
    board = templates("targets/arm.c.j2").render(target=target, platform="arm")
    (tmp_path / "probe.c").write_text("\n".join(['#include "m.c"', board, STDIO, main_of(program, todo, 1)]))
    (tmp_path / "link.ld").write_text(templates("targets/link.ld.j2").render(target=target))
    (tmp_path / "in.bin").write_bytes(inputs_of(program, todo, rng, 1))
    flags = [*target.flags, "-O2", *COMMON_FLAGS, "-nostartfiles", *target.libraries, "-Wl,--gc-sections", "-T"]
    compile_c((target.compiler,), ["-std=gnu11", "probe.c", *flags, "link.ld", "-lm", "-o", "image.elf"], tmp_path)
    image = Image(target, Interface("m", (), ()), tmp_path, (target.compiler,), ())
    subprocess.run(emulator_command(image, clocked=False, counter=None), cwd=tmp_path, check=True, timeout=600)
    raw = (tmp_path / "out.bin").read_bytes()
    for (step, _, allowed), found in zip(todo, verdicts(todo, raw, 1), strict=True):
        assert found == allowed, step

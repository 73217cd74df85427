"""Depthwise convolutions: the bodies against numpy on awkward geometries, the band by band work in place."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import Row
from tests.ops import batch
from tests.ops.probe import probes, program_of, survivors
from toolchain.config import Rounding
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.ops.base import Body
from toolchain.ops.conv import Conv
from toolchain.ops.overlap import IN_PLACE, in_bands

RELU = (0.0, float("inf"))
EDGE_SCALES = (2.0**-21, 2.0**-9, 2.0**-7, 0.8, 3.0)
"""Ratios of scales: nearly and entirely silent channels, ties, shifts to the left."""


def geometry(rng):
    """(input shape, stride, padding) of a 3x3 kernel that fits."""
    channels = int(rng.integers(4, 14))
    strides = (int(rng.choice([1, 1, 1, 2, 2, 3, 4])), int(rng.choice([1, 1, 1, 2, 2, 3])))
    sizes = [int(size) for size in rng.integers(1, 15, 2)]
    pads = [[int(pad) for pad in rng.choice([0, 1, 1, 1, 2, 3], 2)] for _ in range(2)]
    for size, pad in zip(sizes, pads, strict=True):
        pad[1] += max(0, 3 - size - sum(pad))
    return (int(rng.integers(1, 3)), *sizes, channels), strides, tuple((a, b) for a, b in pads)


def case(rng, rounding, shape, stride, padding, *, relu=True):
    channels = shape[-1]
    scales = 10 ** rng.uniform(-3.5, -2, channels)
    scales[:2] = rng.choice(EDGE_SCALES, 2)
    if rng.random() < 0.2:
        scales = scales[-1:]
    x, weight = (rng.integers(-128, 128, s).astype(np.int8) for s in (shape, (channels, 3, 3, 1)))
    quant = (
        QuantParams((1.0,), int(rng.choice([-128, 0, 5, 127]))),
        QuantParams(tuple(scales.tolist()), 0, 0 if scales.size > 1 else None),
        None,
        QuantParams((1.0,), -128 if relu else int(rng.integers(-128, 128))),
    )
    bias = rng.integers(-30000, 30000, channels).astype(np.int32)
    if rng.random() < 0.2:
        bias[0] = rng.choice([1 << 26, 1 << 22])
    clamp = rng.choice([(0.0, np.inf), (0.0, 60.0), (-90.0, 50.0)]) if not relu else RELU
    op = Conv(stride, (1, 1), padding, channels, tuple(clamp) if relu or rng.random() < 0.8 else None)
    return batch.Case(op, (x, np.maximum(weight, -127), bias), quant, DType.INT8, rounding, constant=(1, 2))


@pytest.fixture(scope="module", params=list(Rounding), ids=lambda rounding: rounding.value)
def cases(request):
    rng = np.random.default_rng(7)
    some = [case(rng, request.param, *geometry(rng), relu=number % 3 > 0) for number in range(40)]
    real = [((1, 25, 5, 8), (1, 1), ((1, 1), (1, 1))), ((1, 48, 48, 8), (2, 2), ((0, 1), (0, 1)))]
    return [*some, *(case(rng, request.param, *each) for each in real)]


@pytest.mark.parametrize(("body", "wide"), [(Body.PORTABLE, True), (Body.PORTABLE, False), (Body.DSP, False)])
def test_bodies_are_numpys_to_the_bit(cases, body, wide, tmp_path):
    batch.check(cases, tmp_path, body=body, wide=wide)


def test_most_have_a_body_for_dsp(cases):
    (calls,) = zip(*(each.op.lower(each.operands) for each in cases), strict=True)
    symbols = [call.kernel.symbol for call in calls]
    kinds = {symbol.removesuffix("_s8").removesuffix("0") for symbol in symbols}
    assert {"depthwise3x3_relu_channels", "depthwise3x3_channels"} <= kinds
    assert sum(symbol.startswith("depthwise3x3") for symbol in symbols) > len(symbols) // 2


@pytest.mark.parametrize("body", [Body.PORTABLE, Body.DSP])
def test_in_place(body, tmp_path, rng):
    """Wherever a body may write over its input it computes the same, under sanitizers."""
    usual = [
        ((1, 1), ((1, 1), (1, 1))),
        ((2, 2), ((0, 1), (0, 1))),
        ((2, 2), ((1, 1), (1, 1))),
        ((3, 1), ((0, 0),) * 2),
    ]
    geometries = [(geometry(rng)[0], *usual[i % 4]) for i in range(24)] + [geometry(rng) for _ in range(12)]
    rows = [
        Row(Conv(stride, (1, 1), pads, shape[-1], RELU), (shape, (shape[-1], 3, 3, 1), (shape[-1],)), (1, 2))
        for shape, stride, pads in geometries
        if all(size + sum(pad) >= 3 for size, pad in zip(shape[1:3], pads, strict=True))
    ]
    program = program_of(rows, rng, integers=True)
    todo = probes(program, allowed=True)
    assert sum("depthwise3x3" in step.kernel.symbol for step, _, _ in todo) > 10
    found = survivors(program, tmp_path, rng, allowed=True, body=body)
    for (step, _, allowed), distances in zip(todo, found, strict=True):
        assert distances == allowed, step


def test_bands():
    def found(batch, rows, band, along_y, columns=(3, 3)):
        x, y = (TensorType((batch, n, c, 4), DType.INT8) for n, c in zip(rows, columns, strict=True))
        return in_bands(x, y, band, *rows, *along_y)

    assert found(1, (9, 9), 2, (3, 1, 1, 1)) == IN_PLACE
    assert found(1, (9, 4), 1, (3, 2, 1, 0)) == IN_PLACE
    assert found(1, (9, 11), 2, (3, 1, 1, 2)) is None  # rows are written before they are read
    assert found(1, (9, 11), 11, (3, 1, 1, 2)) == IN_PLACE
    assert found(2, (9, 11), 11, (3, 1, 1, 2)) is None  # the second picture's inputs are overwritten
    assert found(1, (9, 9), 2, (3, 1, 1, 1), (3, 5)) is None

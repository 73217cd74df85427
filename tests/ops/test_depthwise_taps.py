"""Depthwise kernels of any size and outputs per channel: the body for DSP against numpy, and work in place."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import Row
from tests.ops import batch
from tests.ops.probe import probes, program_of, survivors
from toolchain.config import Rounding
from toolchain.ir.types import DType, QuantParams
from toolchain.ops.base import Body
from toolchain.ops.conv import Conv
from toolchain.ops.depthwise_taps import LANES, planes_of

KERNELS = ([5, 5], [5, 5], [7, 7], [3, 3], [2, 2], [1, 9], [10, 1], [4, 10], [1, 1])
MULTIPLIERS = (1, 1, 1, 2, 3, 8)
EDGE_SCALES = (2.0**-26, 2.0**-21, 2.0**-9, 0.4, 0.8, 3.0)
"""Ratios of scales: nearly and entirely silent outputs, ties, shifts to the left."""


def layer(rng):
    """(operator, input shape, weight shape) of a convolution of each channel for itself that fits."""
    channels, multiplier = int(rng.integers(LANES, 10)), int(rng.choice(MULTIPLIERS))
    kernel = KERNELS[rng.integers(len(KERNELS))]
    stride, dilation = (tuple(int(n) for n in rng.choice(some, 2)) for some in ([1, 1, 2, 2, 3, 4], [1, 1, 1, 2, 3]))
    sizes = [int(size) for size in rng.integers(1, 15, 2)]
    pads = []
    for size, taps, apart in zip(sizes, kernel, dilation, strict=True):
        begin, end = (int(n) for n in rng.choice([0, 1, 2, 3, 5], 2))
        pads.append((begin, end + max(0, (taps - 1) * apart + 1 - size - begin - end)))
    clamp = ((0.0, np.inf), (-90.0, 50.0), None)[rng.integers(3)]
    op = Conv(stride, dilation, tuple(pads), channels, clamp)
    return op, (int(rng.integers(1, 3)), *sizes, channels), (channels * multiplier, *kernel, 1)


def case(rng, rounding, number):
    op, x, weight = layer(rng)
    outputs = weight[0]
    scales = 10 ** rng.uniform(-3.5, -2, outputs)
    if number % 2:
        scales[:2] = rng.choice(EDGE_SCALES, 2)
    if rng.random() < 0.2:
        scales = scales[-1:]
    quant = (
        QuantParams((1.0,), int(rng.choice([-128, 0, 5, 127]))),
        QuantParams(tuple(scales.tolist()), 0, 0 if scales.size > 1 else None),
        None,
        QuantParams((1.0,), int(rng.choice([-128, int(rng.integers(-128, 128))]))),
    )
    bias = rng.integers(-30000, 30000, outputs).astype(np.int32)
    if rng.random() < 0.2:
        bias[0] = rng.choice([1 << 29, 1 << 22])
    values = (rng.integers(-128, 128, x).astype(np.int8), rng.integers(-128, 128, weight).astype(np.int8), bias)
    return batch.Case(op, values, quant, DType.INT8, rounding, constant=(1, 2))


@pytest.fixture(scope="module", params=list(Rounding), ids=lambda rounding: rounding.value)
def cases(request):
    rng = np.random.default_rng(19)
    return [case(rng, request.param, number) for number in range(60)]


def test_the_body_is_numpys_to_the_bit(cases, tmp_path):
    batch.check(cases, tmp_path, body=Body.DSP)


def test_most_have_the_body(cases):
    """Not those whose sums are scaled up or overflow when doubled."""
    own = [each for each in cases if each.op.lower(each.operands)[0].kernel.symbol.startswith(("taps_", "tapwise"))]
    assert 0.6 * len(cases) < len(own) < len(cases)
    assert {each.op.groups < len(each.inputs[1]) for each in own} == {False, True}


def test_in_place_on_dsp(tmp_path, rng):
    """Wherever the body may write over its input it computes the same, under sanitizers."""
    layers = [layer(rng) for _ in range(60)]
    rows = [Row(op, (x, weight, weight[:1]), (1, 2)) for op, x, weight in layers if weight[0] == x[-1]]
    program = program_of(rows, rng, integers=True)
    todo = probes(program, allowed=True)
    assert sum(step.kernel.symbol.startswith(("taps_", "tapwise")) for step, _, _ in todo) > 10
    found = survivors(program, tmp_path, rng, allowed=True, body=Body.DSP)
    for (step, _, allowed), distances in zip(todo, found, strict=True):
        assert distances == allowed, step


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 5, 6])
def test_planes_hold_every_tap(stride, dilation, kernel):
    """The words of a row: the last pair of taps of the last output is one of its phase."""
    outputs = 5
    planes = planes_of([(1, 1, 1, 1, 1, 0), (99, outputs, kernel, stride, dilation, 0)])
    columns = [o * stride + tap * dilation for o in range(outputs) for tap in range(0, kernel, 2)]
    places = {(column % stride, column // stride) for column in columns}
    assert planes.phases in {1, stride}
    assert planes.phases > 1 or {phase for phase, _ in places} == {0}
    assert max(place for _, place in places) == planes.phase_x - 1


def test_bands_share_rows_evenly():
    planes = planes_of([(20, 20, 5, 1, 1, 2), (9, 9, 5, 1, 1, 2)])
    assert planes.band(planes.bytes(1)) == 1
    assert planes.band(planes.bytes(20)) == 20
    assert planes.band(planes.bytes(19)) == 10
    assert planes.band(0) == 1

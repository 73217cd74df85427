"""Layers by one shift: the same output for every sum they can have, and C that takes either form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.ops.test_conv_dense import assert_formatted, int_arrays, int_operands, run_c
from toolchain.config import Rounding
from toolchain.fixedpoint import quantize_multipliers
from toolchain.ir.types import DType
from toolchain.ops.linear import LinearSpec
from toolchain.ops.shifts import one_shift, stilled, with_one_shift

each_rounding = pytest.mark.parametrize("rounding", list(Rounding), ids=lambda rounding: rounding.value)


def layer(rng, rounding, reals, inputs=3, bias=3000):
    """A layer whose outputs have these ratios of scales."""
    weight = rng.integers(-127, 128, (len(reals), inputs)).astype(np.int8)
    biases = rng.integers(-bias, bias + 1, len(reals)).astype(np.int32)
    numbers = quantize_multipliers(np.asarray(reals, np.float64))
    zeros = (int(zero) for zero in rng.choice([-128, 127, 0, 5, int(rng.integers(-128, 128))], 2))
    limits = [(-128, 127), (-128, 127), (-100, 90), (int(rng.integers(-128, 100)), 127)][rng.integers(4)]
    return LinearSpec(weight, biases, *numbers, *zeros, *limits, rounding, DType.INT8, "requantize")


def every_output(spec, lowest, highest):
    """Each output for all sums between the two, those of a layer without weights for 0 alone."""
    sums = np.arange(lowest, highest + 1)[:, None]
    return np.where(spec.weight.any(axis=1), spec.output(sums), spec.output(np.zeros(1, np.int64)))


def assert_same(spec, found):
    edges = [spec.weight.astype(int) * (edge - spec.zero_x) for edge in (-128, 127)]
    lowest, highest = np.minimum(*edges).sum(axis=1), np.maximum(*edges).sum(axis=1)
    before, after = (every_output(each, lowest.min(), highest.max()) for each in (spec, found))
    sums = np.arange(lowest.min(), highest.max() + 1)[:, None]
    reachable = (sums >= lowest) & (sums <= highest)
    np.testing.assert_array_equal(after[reachable], before[reachable])


@each_rounding
def test_every_sum_gives_the_same(rounding, rng):
    told = 0
    for trial in range(24):
        reals = 10.0 ** rng.uniform(-4.5, -0.5, 1) * rng.uniform(0.1, 1, 6)
        if trial % 3 == 0:
            reals[0] = rng.choice([1e-9, 2.0**-22, 2.0**-9, 0.0])
        spec = layer(rng, rounding, reals)
        if trial % 5 == 0:
            spec = replace(spec, bias=spec.bias * np.int32(rng.choice([0, 1000, 1 << 14])))
        found = with_one_shift(spec)
        assert_same(spec, found)
        told += one_shift(found) is not None
    assert told >= 22


@each_rounding
def test_ties(rounding, rng):
    """Multipliers of one bit: many sums lie between two outputs."""
    for _ in range(10):
        spec = layer(rng, rounding, 0.5 ** rng.integers(1, 12, 5))
        assert_same(spec, with_one_shift(spec))


def test_the_shift_and_the_last_bits_are_the_layers_shifts(rng):
    spec = with_one_shift(layer(rng, Rounding.TFLM, rng.uniform(1e-3, 1e-1, 64), inputs=40))
    common = one_shift(spec)
    assert common is not None
    np.testing.assert_array_equal(spec.shift, common - (spec.multiplier & 15))
    assert len(set(spec.shift)) > 3


def test_most_layers_of_usual_size_have_one(rng):
    found = [with_one_shift(layer(rng, Rounding.TFLM, rng.uniform(1e-3, 8e-3, 64), 100)) for _ in range(20)]
    assert sum(one_shift(each) is not None for each in found) >= 18


@each_rounding
def test_outputs_given_up_in_training(rounding, rng):
    """Extreme numbers, which no input changes, do not stand in the way."""
    reals = np.append(rng.uniform(1e-3, 1e-2, 8), [1e-12, 1e-9, 0.0, 300.0])
    spec = layer(rng, rounding, reals, inputs=9)
    spec = replace(spec, zero_y=-20, low=-128, high=127, bias=spec.bias + np.int32(1000000) * (reals > 1))
    found = with_one_shift(spec)
    assert one_shift(found) is not None
    assert not found.weight[-4:].any()
    x = rng.integers(-128, 128, (500, 9)) - spec.zero_x
    before, after = (each.output(x @ each.weight.astype(int).T) for each in (spec, found))
    np.testing.assert_array_equal(after, before)


def test_one_scale_stays_as_it_is(rng):
    spec = layer(rng, Rounding.TFLM, [0.0123], inputs=30)
    spec = replace(spec, weight=np.repeat(spec.weight, 4, axis=0), bias=np.array([7, 1 << 29, 3, 9], np.int32))
    assert with_one_shift(spec) is spec
    still = stilled(spec)
    assert (still.multiplier, still.shift) == (spec.multiplier, spec.shift)
    assert [bool(row.any()) for row in still.weight] == [True, False, True, True]
    assert abs(int(still.bias[1])) < 1 << 20


@pytest.mark.parametrize("real", [1.5, 40.0, 1e6])
def test_no_such_multiplier(real, rng):
    spec = layer(rng, Rounding.TFLM, [0.01, real, 0.02], inputs=1)
    spec = replace(spec, bias=np.array([5, 5, 5], np.int32), zero_y=0, low=-128, high=127)
    found = with_one_shift(spec)
    assert one_shift(found) is None
    assert_same(spec, found)


@pytest.mark.parametrize("case", ["padded", "grouped", "pointwise", "depthwise", "multiplier", "transposed", "dense"])
@pytest.mark.parametrize("form", ["channels", "shifts"])
def test_c_of_both_forms(case, form, rng, tmp_path, monkeypatch):
    if form == "shifts":
        monkeypatch.setattr("toolchain.ops.linear.with_one_shift", lambda spec: spec)
    op, x, weight, bias = int_arrays(case, rng)
    operands = int_operands(op, x, weight, bias, per_channel=True)
    y, text = run_c(operands, op, [x], tmp_path)
    np.testing.assert_array_equal(y, op.reference_int(operands, x, weight, bias)[0])
    assert f"_{form}" in op.lower(operands)[0].kernel.symbol
    assert_formatted(text)

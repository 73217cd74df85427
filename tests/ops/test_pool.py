"""Pooling: numpy against PyTorch and TensorFlow Lite's arithmetic, the C against numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.ops import batch
from tests.ops.native import assert_formatted, check, operands_of
from toolchain.ir.types import DType, QuantParams
from toolchain.ops.base import Body
from toolchain.ops.pool import AvgPool, MaxPool

QUANT = QuantParams((0.05,), -11)


def first(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def last(y):
    return np.moveaxis(y.numpy(), 1, -1)


@pytest.mark.parametrize("clamp", [None, (0.0, 1.0), (0.0, float("inf"))])
def test_max_pool_2d(clamp, rng):
    x = rng.normal(size=(2, 9, 8, 5)).astype(np.float32)
    op = MaxPool((3, 2), (2, 1), ((1, 1), (1, 1)), (2, 1), clamp)
    (y,) = check(op, x)
    expected = last(torch.nn.functional.max_pool2d(first(x), (3, 2), (2, 1), (1, 1), (2, 1)))
    np.testing.assert_array_equal(y, expected if clamp is None else np.clip(expected, *clamp))


def test_max_pool_1d(rng):
    x = rng.normal(size=(2, 9, 3)).astype(np.float32)
    (y,) = check(MaxPool((3,), (2,), ((1, 1),), (1,)), x)
    np.testing.assert_array_equal(y, last(torch.nn.functional.max_pool1d(first(x), 3, 2, 1)))


@pytest.mark.parametrize("clamp", [None, (0.0, 3.0)])
def test_max_pool_int8(clamp, rng):
    x = rng.integers(-128, 128, (1, 7, 7, 19)).astype(np.int8)
    (y,) = check(MaxPool((2, 2), (2, 2), ((0, 1), (0, 1)), (1, 1), clamp), x, quant=[QUANT, QUANT])
    expected = last(torch.nn.functional.max_pool2d(first(x).float(), 2, 2, ceil_mode=True)).astype(np.int8)
    np.testing.assert_array_equal(y, expected if clamp is None else np.clip(expected, -11, 49))


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("ceil", [False, True])
def test_avg_pool_2d(include, ceil, rng):
    x = rng.normal(size=(2, 8, 6, 5)).astype(np.float32)
    pads = ((1, 1 + ceil), (1, 1 + ceil))
    op = AvgPool((3, 3), (2, 2), pads, include, ((1, 1), (1, 1)) if include else ())
    (y,) = check(op, x, rtol=1e-6)
    oracle = torch.nn.AvgPool2d(3, 2, 1, ceil_mode=ceil, count_include_pad=include)
    np.testing.assert_allclose(y, last(oracle(first(x))), atol=1e-6)


def test_avg_pool_1d_clamped(rng):
    x = rng.normal(size=(2, 9, 3)).astype(np.float32)
    (y,) = check(AvgPool((4,), (3,), ((0, 0),), clamp=(0.0, 6.0)), x, rtol=1e-6)
    np.testing.assert_allclose(y, last(torch.nn.functional.avg_pool1d(first(x), 4, 3)).clip(0, 6), atol=1e-6)


def divide_half_away(total, count):
    """TensorFlow Lite's reference: acc > 0 ? (acc + count / 2) / count : (acc - count / 2) / count in C."""
    nudged = total + count // 2 if total > 0 else total - count // 2
    return int(np.sign(nudged)) * (abs(nudged) // count)


@pytest.mark.parametrize("clamp", [None, (0.0, 3.0)])
@pytest.mark.parametrize("include", [False, True])
def test_avg_pool_int8(clamp, include, rng):
    x = rng.integers(-128, 128, (1, 5, 4, 18)).astype(np.int8)
    op = AvgPool((3, 2), (2, 2), ((1, 1), (0, 1)), include, clamp=clamp)
    (y,) = check(op, x, quant=[QUANT, QUANT])
    for row, column, channel in np.ndindex(y.shape[1:]):
        top, left = 2 * row - 1, 2 * column
        part = x[0, max(top, 0) : top + 3, left : left + 2, channel].astype(int)
        total, count = int(part.sum()), part.size
        if include:
            total, count = total - 11 * (6 - count), 6
        expected = np.clip(divide_half_away(total, count), *((-128, 127) if clamp is None else (-11, 49)))
        assert y[0, row, column, channel] == expected


def test_a_clamp_without_effect_costs_nothing():
    quant = QuantParams((0.1,), -128)
    op = MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), (0.0, float("inf")))
    (call,) = op.lower(operands_of(op, [np.zeros((1, 2, 2, 4), np.int8)], [quant, quant]))
    assert call.kernel.symbol == "maxpool_s8"


def test_no_padding_is_no_padding_that_counts():
    plain = AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)))
    included = replace(plain, include_pad=True)
    operands = operands_of(included, [np.zeros((1, 4, 4, 8), np.int8)], [QUANT, QUANT])
    assert included.lower(operands)[0].kernel == plain.lower(operands)[0].kernel
    assert replace(included, padding=((1, 1), (1, 1))) == replace(plain, padding=((1, 1), (1, 1)))


def test_a_larger_batch(rng):
    x = rng.normal(size=(3, 4, 4, 2)).astype(np.float32)
    for op in (MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)))):
        assert op.reference(x)[0].shape == (3, 2, 2, 2)


def test_a_window_that_does_not_fit():
    with pytest.raises(ValueError, match="does not fit"):
        operands_of(MaxPool((5, 5), (1, 1), ((0, 0), (0, 0)), (1, 1)), [np.zeros((1, 3, 3, 1), np.float32)])


def test_kernels_are_laid_out_as_clang_format_does():
    pads = ((1, 1), (1, 1))
    ops = [AvgPool((2, 2), (2, 2), pads, include, (), c) for include in (False, True) for c in (None, (0.0, 1.0))]
    ops += [MaxPool((2, 2), (2, 2), pads, (1, 1), c) for c in (None, (0.0, 1.0))]
    x = np.zeros((1, 4, 4, 4), np.float32)
    assert_formatted([(op, [x], []) for op in ops] + [(op, [x.astype(np.int8)], [QUANT, QUANT]) for op in ops])


def awkward(rng):
    """(window, stride, padding, dilation, shape) where every window meets the picture."""
    window, stride = ([int(n) for n in rng.integers(1, most, 2)] for most in (5, 4))
    padding = tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for k in window)
    sizes = [int(n) for n in rng.integers(5, 10, 2)]
    shape = (int(rng.integers(1, 3)), *sizes, int(rng.choice([3, 4, 5, 8, 17, 34])))
    return tuple(window), tuple(stride), padding, shape


@pytest.mark.parametrize("body", [Body.PORTABLE, Body.DSP])
def test_bodies_are_numpys_to_the_bit(body, tmp_path):
    rng = np.random.default_rng(8)
    cases = []
    for number in range(24):
        window, stride, padding, shape = awkward(rng)
        clamp = (0.0, 3.0) if number % 3 == 0 else None
        dilation = (1 + number % 2, 1 + number % 3 // 2)
        inside = tuple((b, e + (k - 1) * (d - 1)) for (b, e), k, d in zip(padding, window, dilation, strict=True))
        cases.append((MaxPool(window, stride, inside, dilation, clamp), shape))
        cases.append((AvgPool(window, stride, padding, number % 2 == 0, (), clamp), shape))
    cases += [(AvgPool((n, n), (n, n), ((0, 0), (0, 0))), (1, n, n, 20)) for n in (8, 15, 16)]
    values = [rng.integers(-128, 128, shape).astype(np.int8) for _, shape in cases]
    values[-2][:] = -128
    some = [batch.Case(op, (x,), (QUANT, QUANT), DType.INT8) for (op, _), x in zip(cases, values, strict=True)]
    batch.check(some, tmp_path, body=body)

"""From observed values to ranges, scales and zero points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.config import CalibrationMethod
from toolchain.ir.graph import Tensor
from toolchain.ir.types import TensorType
from toolchain.quantize.methods import calibrated_range
from toolchain.quantize.observe import BINS, Observer
from toolchain.quantize.parameters import affine, quantized_weights

SINGLE_METHODS = [method for method in CalibrationMethod if method is not CalibrationMethod.AUTO]
REALS = st.floats(-1e6, 1e6, width=32)


def seen(*batches: np.ndarray) -> Observer:
    observer = Observer()
    for batch in batches:
        observer.see(batch.astype(np.float32))
    return observer


@given(REALS, REALS)
def test_zero_is_exact_and_the_range_is_covered(a: float, b: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    params = affine(low, high)
    scale = params.scale[0]
    assert -128 <= params.zero_point <= 127
    assert scale > 0
    assert (-128 - params.zero_point) * scale <= low + 0.51 * scale
    assert (127 - params.zero_point) * scale >= high - 0.51 * scale


def test_degenerate_ranges() -> None:
    assert affine(0.0, 0.0).scale == (1.0,)
    assert affine(3.0, 3.0).zero_point == -128
    assert affine(-3.0, -3.0).zero_point == 127


def test_histogram_keeps_every_value_while_it_widens(rng: np.random.Generator) -> None:
    batches = [rng.normal(0, scale, 1000) for scale in (1e-3, 1.0, 50.0)]
    observer = seen(np.zeros(7), *batches)
    assert observer.counts.sum() == 3007
    values = np.concatenate([np.zeros(7), *batches])
    assert (observer.low, observer.high) == pytest.approx((values.min(), values.max()), rel=1e-6)
    exact = np.histogram(values, BINS, (-observer.reach, observer.reach))[0]
    assert np.abs(np.cumsum(exact) - np.cumsum(observer.counts)).max() <= 1100


@pytest.mark.parametrize("method", SINGLE_METHODS)
def test_methods_stay_within_the_extremes(method: CalibrationMethod, rng: np.random.Generator) -> None:
    observer = seen(rng.normal(size=20000), np.array([40.0]))
    low, high = calibrated_range(observer, method)
    assert observer.low <= low < 0 < high <= observer.high
    if method is CalibrationMethod.MINMAX:
        assert high == 40.0
    else:
        assert high < 40.0


@pytest.mark.parametrize("method", SINGLE_METHODS)
def test_constant_tensors_have_a_range(method: CalibrationMethod) -> None:
    assert calibrated_range(seen(np.zeros(5)), method) == (0.0, 0.0)
    assert calibrated_range(seen(np.full(5, 2.0)), method) == (2.0, 2.0)


def constant(data: np.ndarray) -> Tensor:
    data = data.astype(np.float32)
    return Tensor("w", TensorType(data.shape), data)


@pytest.mark.parametrize("axis", [None, 0])
def test_weights_are_symmetric(axis: int | None, rng: np.random.Generator) -> None:
    data = rng.normal(size=(4, 3, 3, 2)) * np.array([1, 10, 0, 0.1]).reshape(4, 1, 1, 1)
    weight, bias = quantized_weights(constant(data), constant(rng.normal(size=4)), 0.1, axis, "conv")
    assert weight.data is not None
    assert weight.type.quant is not None
    assert bias is not None
    assert bias.data is not None
    assert np.abs(weight.data.astype(int)).max() == 127
    scales = weight.type.quant.scales(4).reshape(4, 1, 1, 1)
    assert (np.abs(weight.data * scales - data) <= scales * 0.5001).all()
    assert bias.data.dtype == np.int32
    assert bias.type.quant is not None
    np.testing.assert_allclose(bias.type.quant.scale, 0.1 * np.asarray(weight.type.quant.scale))


def test_a_large_bias_widens_the_weight_scale() -> None:
    _, bias = quantized_weights(constant(np.full((2, 3), 1e-7)), constant(np.array([1e4, 0])), 1e-3, None, "d")
    assert bias is not None
    assert bias.data is not None
    assert bias.type.quant is not None
    assert np.abs(bias.data.astype(np.int64)).max() < 2**31 - 127 * 255 * 3
    assert bias.data[0] * bias.type.quant.scale[0] == pytest.approx(1e4, rel=1e-6)

"""From real ranges and weights to scales, zero points and integers."""

from __future__ import annotations

import numpy as np

from toolchain import fixedpoint
from toolchain.errors import InputError
from toolchain.ir.graph import Tensor
from toolchain.ir.types import Array, DType, QuantParams, TensorType

INT8 = DType.INT8.limits
STEPS = INT8[1] - INT8[0]
INT16_LIMIT = DType.INT16.limits[1]
WEIGHT_LIMIT = 127
ACCUMULATOR = {DType.INT8: 2**31 - 1, DType.INT16: 2**46}
"""Magnitude that bias and products stay within, for each type of activation."""
BIAS = {DType.INT8: DType.INT32, DType.INT16: DType.INT64}
WIDEST = {DType.INT8: STEPS, DType.INT16: INT16_LIMIT + 1}
"""Largest magnitude of an activation less its zero point."""
SMALLEST = float(np.finfo(np.float32).tiny)


def affine(low: float, high: float) -> QuantParams:
    """int8 parameters that cover [low, high] and represent 0 exactly (TensorFlow Lite: zero point to nearest).

    A range of nothing but zero gets scale 1 and zero point 0.

    >>> affine(0.0, 255.0)
    QuantParams(scale=(1.0,), zero_point=-128, axis=None)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = _float32((high - low) / STEPS)
    if scale < SMALLEST:
        return QuantParams((1.0,), 0)
    zero_point = int(np.clip(round(INT8[0] - low / scale), *INT8))
    return QuantParams((scale,), zero_point)


def symmetric(low: float, high: float) -> QuantParams:
    """int16 parameters that cover [low, high] with zero point 0 (TensorFlow Lite's 16x8 scheme).

    >>> symmetric(-1.0, 32767.0)
    QuantParams(scale=(1.0,), zero_point=0, axis=None)
    """
    scale = _float32(max(-low, high) / INT16_LIMIT)
    return QuantParams((1.0,), 0) if scale < SMALLEST else QuantParams((scale,), 0)


def covering(dtype: DType, low: float, high: float) -> QuantParams:
    """Parameters of int8 or int16 activations that cover [low, high]."""
    return symmetric(low, high) if dtype is DType.INT16 else affine(low, high)


def _float32(value: float) -> float:
    """The nearest float32: scales are what the C holds."""
    return float(np.float32(value))


def quantized_constant(tensor: Tensor, name: str, dtype: DType) -> Tensor:
    """A constant operand in integers, with parameters of its own extremes."""
    assert tensor.data is not None
    quant = covering(dtype, float(tensor.data.min(initial=0.0)), float(tensor.data.max(initial=0.0)))
    return with_params(tensor, name, quant, dtype)


def with_params(tensor: Tensor, name: str, quant: QuantParams, dtype: DType) -> Tensor:
    """A constant in integers with given per-tensor parameters."""
    data = fixedpoint.quantize(tensor.data, quant.scale[0], quant.zero_point, *dtype.limits).astype(dtype.numpy)
    return Tensor(name, TensorType(tensor.type.shape, dtype, quant), data)


def quantized_weights(
    weight: Tensor,
    bias: Tensor | None,
    input_scale: float,
    axis: int | None,
    origin: str,
    dtype: DType = DType.INT8,
) -> tuple[Tensor, Tensor | None]:
    """int8 weights (-127..127, zero point 0; one scale, or one per index of `axis`) and the bias.

    The bias is int32 beside activations of `dtype` int8, int64 beside int16.
    Where |bias| would leave no room for the products in the accumulator, the weight scale is widened.
    """
    assert weight.data is not None
    data = weight.data.astype(np.float64)
    if not np.isfinite(data).all() or (bias is not None and not np.isfinite(bias.data).all()):  # type: ignore[arg-type]
        raise InputError(f"{origin}: found NaN or infinity in the weights, expected finite numbers")
    largest = _extents(data, axis)
    scales = np.where(largest > 0, largest / WEIGHT_LIMIT, 1.0)
    if bias is not None:
        assert bias.data is not None
        scales = np.maximum(scales, _scales_for_bias(bias.data, input_scale, data, axis, dtype))
    scales = scales.astype(np.float32).astype(np.float64)
    quant = QuantParams(tuple(float(scale) for scale in scales), 0, axis)
    integers = fixedpoint.round_half_away(data / _along(scales, axis, data.ndim))
    integers = np.clip(integers, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    result = Tensor(weight.name, TensorType(weight.type.shape, DType.INT8, quant), integers)
    return result, None if bias is None else _quantized_bias(bias, input_scale, quant, dtype)


def _extents(data: Array, axis: int | None) -> Array:
    if axis is None:
        return np.asarray(np.abs(data).max(initial=0.0)).reshape(1)
    moved = np.moveaxis(data, axis, 0).reshape(data.shape[axis], -1)
    return np.asarray(np.abs(moved).max(axis=1, initial=0.0))


def _along(scales: Array, axis: int | None, rank: int) -> Array:
    if axis is None:
        return scales.reshape((1,) * rank)
    return scales.reshape(tuple(-1 if each == axis else 1 for each in range(rank)))


def _scales_for_bias(bias: Array, input_scale: float, weight: Array, axis: int | None, dtype: DType) -> Array:
    """The least weight scales under which bias and products stay within the accumulator."""
    products, most = WIDEST[dtype] * WEIGHT_LIMIT * weight.size // max(bias.size, 1), ACCUMULATOR[dtype]
    room = max(most - products, most // 2) * (1 - 1e-6)  # the scale is rounded to float32
    least = np.abs(bias.astype(np.float64)) / (input_scale * room)
    return least.reshape(-1) if axis is not None else least.max(initial=0.0).reshape(1)


def _quantized_bias(bias: Tensor, input_scale: float, weight: QuantParams, dtype: DType) -> Tensor:
    assert bias.data is not None
    scales = input_scale * np.asarray(weight.scale)
    integers = fixedpoint.round_half_away(bias.data.astype(np.float64) / scales)
    data = np.clip(integers, -ACCUMULATOR[dtype], ACCUMULATOR[dtype]).astype(BIAS[dtype].numpy)
    quant = QuantParams(tuple(float(scale) for scale in scales), 0, None if weight.axis is None else 0)
    return Tensor(bias.name, TensorType(bias.type.shape, BIAS[dtype], quant), data)

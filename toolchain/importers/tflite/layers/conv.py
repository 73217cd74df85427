"""CONV_2D, DEPTHWISE_CONV_2D and TRANSPOSE_CONV."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.layer import Layer, handles
from toolchain.importers.tflite.tracing import SpreadConv
from toolchain.ir.types import DType, QuantParams
from toolchain.ops.conv import Conv, ConvTranspose

if TYPE_CHECKING:
    from toolchain.ir.types import Array

Padding = tuple[tuple[int, int], ...]
SAME, VALID = 0, 1
BIASES = {DType.INT8: (DType.INT32,), DType.INT16: (DType.INT64, DType.INT32)}
"""Element type of a quantized input -> of the bias beside it, the usual one first."""
TENSOR_INT32 = 2
"""The schema's number of int32."""


def window_pair(layer: Layer, y: str, x: str, default: int | None = None) -> tuple[int, int]:
    """Two options that are positive numbers."""
    pair = tuple(int(layer.option(name) if default is None else layer.get(name, default)) for name in (y, x))
    if min(pair) < 1:
        raise ValueError(f"{y} and {x} {list(pair)}, expected positive numbers")
    return pair[0], pair[1]


def padding_of(layer: Layer, sizes: tuple[int, ...], reach: tuple[int, ...], stride: tuple[int, ...]) -> Padding:
    """Explicit padding: none for VALID; for SAME the smaller half first."""
    code = int(layer.option("Padding"))
    if code == VALID:
        return ((0, 0),) * len(sizes)
    if code != SAME:
        raise ValueError(f"padding {code}, expected SAME or VALID")
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sizes, reach, stride, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def weight_of(layer: Layer, index: int, rank: int) -> tuple[str, Array, QuantParams | None]:
    """(name, values, grid) of constant weights: float beside a float input, symmetric integers beside a quantized one.

    Weights with a zero point (the older uint8 scheme) are taken less that, in int8 or, where that takes 9 bits, int16.
    """
    name, weight, kind = layer.operand(index), layer.constant_value(index, "weight"), layer.type(index)
    if weight.ndim != rank:
        raise ValueError(f"weight of shape {weight.shape}, expected rank {rank}")
    if kind.quant is None or (kind.dtype is DType.INT8 and not kind.quant.zero_point):
        return name, weight, kind.quant
    if kind.dtype is not DType.INT8:
        raise NoCFormError(f"{kind.dtype.value} weights, expected int8, uint8 or int4")
    less = weight.astype(np.int16) - np.int16(kind.quant.zero_point)
    less = less.astype(np.int8) if np.abs(less).max(initial=0) <= DType.INT8.limits[1] else less
    quant = replace(kind.quant, zero_point=0)
    return layer.builder.constant(name, less, quant), less, quant


def check_weight(x: str, quant: QuantParams | None, layer: Layer) -> None:
    """Raise NoCFormError unless both input and weights are quantized, or neither."""
    if (layer.builder.type(x).quant is None) != (quant is None):
        raise NoCFormError("quantized and float operands mixed, expected both int8 or both float32")


def bias_of(layer: Layer, index: int, outputs: int, x: str) -> str:
    """The bias, zeros where there is none: int32 beside int8 inputs, int64 or int32 beside int16 ones."""
    kind = layer.builder.type(x)
    dtypes = (DType.FLOAT32,) if kind.quant is None else BIASES.get(kind.dtype, (DType.INT32,))
    if not layer.has(index):
        named = DType.INT32 if int(layer.get("QuantizedBiasType", 0)) == TENSOR_INT32 else dtypes[0]
        return layer.constant(np.zeros(outputs, (named if named in dtypes else dtypes[0]).numpy), "bias")
    value = layer.constant_value(index, "bias")
    if value.size != outputs:
        raise ValueError(f"bias of shape {value.shape}, expected ({outputs},)")
    if value.dtype not in [dtype.numpy for dtype in dtypes]:
        raise NoCFormError(f"a bias of {value.dtype}, expected {' or '.join(dtype.value for dtype in dtypes)}")
    return layer.inputs[index] if value.ndim == 1 else layer.constant(value.reshape(-1), "bias")


def _convolved(layer: Layer, name: str, weight: Array, quant: QuantParams | None, groups: int) -> str:
    stride = window_pair(layer, "StrideH", "StrideW")
    dilation = window_pair(layer, "DilationHFactor", "DilationWFactor", 1)
    check_weight(layer.x, quant, layer)
    kernel = weight.shape[1:3]
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    op = Conv(stride, dilation, padding_of(layer, layer.shape[1:3], reach, stride), groups, layer.clamp())
    bias = bias_of(layer, 2, len(weight), layer.x)
    y = layer.activated(layer.emit(op, layer.x, name, bias))
    spread = layer.traces.spread.get(layer.x)
    if spread is not None and {*stride, *dilation} == {1} and not np.any(op.padding):
        layer.traces.convolved[y] = SpreadConv(spread, op, (name, bias))
    return y


@handles("CONV_2D")
def conv(layer: Layer) -> str:
    """Convolution, in groups where the filter reads fewer channels than there are."""
    layer.check_rank(4)
    name, weight, quant = weight_of(layer, 1, 4)
    channels = layer.shape[-1]
    if not weight.shape[-1] or channels % weight.shape[-1]:
        raise ValueError(f"filter of shape {weight.shape} does not fit {channels} input channels")
    return _convolved(layer, name, weight, quant, channels // weight.shape[-1])


@handles("DEPTHWISE_CONV_2D")
def depthwise(layer: Layer) -> str:
    """Convolution of each channel by itself; the file keeps the filter as (1, height, width, outputs)."""
    layer.check_rank(4)
    _, weight, quant = weight_of(layer, 1, 4)
    if weight.shape[0] != 1:
        raise ValueError(f"filter of shape {weight.shape}, expected 1 in front")
    if quant is not None and quant.axis is not None:
        if quant.axis != 3:
            raise NoCFormError(f"scales along axis {quant.axis} of the filter, expected 3")
        quant = QuantParams(quant.scale, 0, 0)
    first = np.ascontiguousarray(np.moveaxis(weight, 3, 0)).reshape(weight.shape[3], *weight.shape[1:3], 1)
    name = layer.builder.constant(layer.inputs[1], first, quant)
    return _convolved(layer, name, first, quant, layer.shape[-1])


@handles("TRANSPOSE_CONV")
def transpose_conv(layer: Layer) -> str:
    """Inputs are the output's shape, the filter, the image and perhaps a bias."""
    x = layer.operand(2)
    shape = layer.builder.shape(x)
    wanted = layer.integers(0, "output shape")
    name, weight, quant = weight_of(layer, 1, 4)
    if len(shape) != 4 or len(wanted) != 4:
        raise NoCFormError(f"an input of rank {len(shape)}, expected 4")
    check_weight(x, quant, layer)
    stride = window_pair(layer, "StrideH", "StrideW")
    begins = [begin for begin, _ in padding_of(layer, wanted[1:3], weight.shape[1:3], stride)]
    ends = [
        (n - 1) * s + k - begin - out
        for n, s, k, begin, out in zip(shape[1:3], stride, weight.shape[1:3], begins, wanted[1:3], strict=True)
    ]
    padding = tuple((begin, max(end, 0)) for begin, end in zip(begins, ends, strict=True))
    op = ConvTranspose(stride, (1, 1), padding, tuple(max(-end, 0) for end in ends), 1, layer.clamp())
    bias = bias_of(layer, 3, len(weight), x)
    return layer.activated(layer.emit(op, x, name, bias))

"""Poolings over windows."""

from __future__ import annotations

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.layer import Layer, handles
from toolchain.importers.tflite.layers.conv import padding_of, window_pair
from toolchain.ops.pool import AvgPool, MaxPool


@handles("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
def pool(layer: Layer) -> str:
    """Maximum, average, or root of the average square; padding counts nowhere."""
    layer.check_rank(4)
    window = window_pair(layer, "FilterHeight", "FilterWidth")
    stride = window_pair(layer, "StrideH", "StrideW")
    padding = padding_of(layer, layer.shape[1:3], window, stride)
    if layer.kind == "L2_POOL_2D":
        mean = layer.compute(AvgPool(window, stride, padding), layer.unary("square", layer.x))
        return layer.clamped(layer.unary("sqrt", mean))
    if layer.quantized and layer.type(0).quant != layer.declared[0].quant:
        raise NoCFormError("input and output have different scales, expected one")
    if layer.kind == "MAX_POOL_2D":
        return layer.activated(layer.emit(MaxPool(window, stride, padding, (1, 1), layer.clamp()), layer.x))
    op = AvgPool(window, stride, padding, clamp=layer.clamp(), halves_up=layer.unsigned)
    return layer.activated(layer.emit(op, layer.x))

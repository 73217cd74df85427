"""Softmax and the older normalizations."""

from __future__ import annotations

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.layer import Layer, handles
from toolchain.ops.normalize import LRN
from toolchain.ops.reduce import Reduce
from toolchain.ops.softmax import LogSoftmax, Softmax

SMALLEST_SQUARE = 1e-6
"""What L2_NORMALIZATION takes at least for the sum of squares."""


@handles("SOFTMAX", "LOG_SOFTMAX")
def softmax(layer: Layer) -> str:
    """Along the last axis."""
    axis = layer.axis(-1)
    op = LogSoftmax(axis) if layer.kind == "LOG_SOFTMAX" else Softmax(axis, float(np.float32(layer.get("Beta", 1.0))))
    declared = layer.declared[0]
    if declared.quant is not None and declared.quant != op.fixed_quant(declared.dtype):
        raise NoCFormError(f"an output of scale {declared.quant.scale[0]:g}, expected {op.fixed_quant(declared.dtype)}")
    return layer.emit(op, layer.x)


@handles("L2_NORMALIZATION")
def l2_normalization(layer: Layer) -> str:
    """X over the root of its sum of squares along the last axis."""
    total = layer.compute(Reduce("sum", (layer.axis(-1),), keepdims=True), layer.unary("square", layer.x))
    root = layer.unary("sqrt", layer.binary("max", total, SMALLEST_SQUARE))
    return layer.clamped(layer.binary("div", layer.x, root))


@handles("LOCAL_RESPONSE_NORMALIZATION")
def local_response(layer: Layer) -> str:
    """TensorFlow's alpha is that of one channel, LRN's that of the whole window."""
    size = 2 * int(layer.option("Radius")) + 1
    if size < 1:
        raise ValueError(f"radius {layer.option('Radius')}, expected 0 or more")
    alpha, beta, offset = (float(layer.option(name)) for name in ("Alpha", "Beta", "Bias"))
    return layer.compute(LRN(size, alpha * size, beta, offset), layer.x)

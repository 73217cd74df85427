"""Softmax and LogSoftmax, with the flattening they had before opset 13."""

from __future__ import annotations

import math

from toolchain.importers.onnx.layer import Layer, handles
from toolchain.ops.softmax import LogSoftmax, Softmax


@handles("Softmax", "LogSoftmax")
def softmax(layer: Layer) -> str:
    """Normalise along `axis`; before opset 13 along all axes from `axis` on."""
    make = Softmax if layer.kind == "Softmax" else LogSoftmax
    if layer.opset >= 13:
        return layer.add(make(layer.axis(-1)), layer.x)
    axis = layer.axis(1)
    if axis == layer.rank - 1:
        return layer.add(make(axis), layer.x)
    flat = layer.reshape(layer.x, (math.prod(layer.shape[:axis]), math.prod(layer.shape[axis:])))
    return layer.reshape(layer.add(make(1), flat), layer.shape)

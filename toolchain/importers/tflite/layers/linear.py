"""FULLY_CONNECTED and BATCH_MATMUL."""

from __future__ import annotations

import math

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.layer import Layer, handles
from toolchain.importers.tflite.layers.conv import bias_of, check_weight, weight_of
from toolchain.ops.dense import Dense, MatMul


@handles("FULLY_CONNECTED")
def fully_connected(layer: Layer) -> str:
    """Rows of the input times the filter (outputs, inputs)."""
    if int(layer.get("WeightsFormat", 0)):
        raise NoCFormError("shuffled weights, expected the default format")
    depth = layer.type(1).shape[-1]
    x = _rows(layer, depth)
    if layer.value(1) is None:
        return _computed_weights(layer, x)
    name, weight, quant = weight_of(layer, 1, 2)
    check_weight(x, quant, layer)
    bias = bias_of(layer, 2, len(weight), x)
    return layer.activated(layer.emit(Dense(layer.clamp()), x, name, bias))


def _rows(layer: Layer, depth: int) -> str:
    """The input with `depth` as its last axis."""
    if layer.get("KeepNumDims", False) and layer.shape[-1:] == (depth,):
        return layer.x
    elements = math.prod(layer.shape)
    if depth < 1 or elements % depth:
        raise ValueError(f"an input of shape {layer.shape} does not split into rows of {depth}")
    return layer.reshape(layer.x, (elements // depth, depth))


def _computed_weights(layer: Layer, x: str) -> str:
    """A filter that is itself computed."""
    if layer.quantized:
        if layer.has(2) or layer.get("FusedActivationFunction", 0):
            raise NoCFormError("weights computed at run time with a bias or an activation, expected constant weights")
        return layer.emit(MatMul(), x, layer.transpose(layer.inputs[1], (1, 0)))
    y = layer.emit(MatMul(), x, layer.transpose(layer.inputs[1], (1, 0)))
    return layer.clamped(layer.binary("add", y, layer.inputs[2]) if layer.has(2) else y)


@handles("BATCH_MATMUL")
def batch_matmul(layer: Layer) -> str:
    """Products of matrices, each possibly transposed first."""
    a, b = layer.operand(0), layer.operand(1)
    if layer.get("AdjX", False):
        a = layer.transpose(a, _swapped(len(layer.builder.shape(a))))
    if layer.builder.value(b) is not None and len(layer.builder.shape(b)) == 2 and layer.is_float(a):
        weight = b if layer.get("AdjY", False) else layer.transpose(b, (1, 0))
        zeros = layer.constant(np.zeros(layer.builder.shape(weight)[0], np.float32), "bias")
        return layer.emit(Dense(), a, weight, zeros)
    if layer.get("AdjY", False):
        b = layer.transpose(b, _swapped(len(layer.builder.shape(b))))
    return layer.emit(MatMul(), a, b)


def _swapped(rank: int) -> tuple[int, ...]:
    """The permutation that swaps the last two axes."""
    if rank < 2:
        raise ValueError(f"a matrix of rank {rank}, expected 2 or more")
    order = np.arange(rank)
    order[-2:] = order[-2:][::-1]
    return tuple(int(axis) for axis in order)

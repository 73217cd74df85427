"""Gemm and MatMul; a constant factor makes a Dense layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolchain.importers.onnx.layer import Layer, handles
from toolchain.ops.dense import Dense, MatMul

if TYPE_CHECKING:
    from toolchain.ir.types import Array


def dense(layer: Layer, x: str, weight: Array, weight_name: str, bias: str | None = None) -> str:
    """X times the transpose of weight (outputs, inputs), plus bias."""
    bias = bias or layer.constant(np.zeros(weight.shape[0], np.float32), "bias")
    return layer.add(Dense(), x, layer.builder.constant(weight_name, weight), bias)


def swapped(layer: Layer, x: str) -> str:
    """X with its last two axes exchanged."""
    rank = len(layer.builder.shape(x))
    return layer.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


@handles("Gemm")
def gemm(layer: Layer) -> str:
    """Alpha * A' * B' + beta * C."""
    a = swapped(layer, layer.x) if layer.get("transA", 0) else layer.x
    alpha, beta = float(layer.get("alpha", 1.0)), float(layer.get("beta", 1.0))
    if layer.rank != 2 or len(layer.type(1).shape) != 2:
        raise ValueError(f"operands of shape {layer.shape} and {layer.type(1).shape}, expected rank 2")
    b = layer.value(1)
    if b is None:
        other = swapped(layer, layer.operand(1)) if layer.get("transB", 0) else layer.operand(1)
        y = _scaled(layer, layer.add(MatMul(), a, other), alpha)
        return _plus(layer, y, beta) if layer.has(2) else y
    weight = b if layer.get("transB", 0) else b.T
    bias = _row(layer.value(2), weight.shape[0])
    weight = weight if alpha == 1.0 else weight * np.float32(alpha)
    bias_name = None if bias is None else layer.builder.constant(layer.inputs[2], bias * np.float32(beta))
    y = dense(layer, a, weight, layer.inputs[1], bias_name)
    return _plus(layer, y, beta) if layer.has(2) and bias is None else y


def _row(c: Array | None, outputs: int) -> Array | None:
    """C as one bias per output, or None when it differs between rows or is no constant."""
    if c is None or c.ndim > 2 or (c.ndim == 2 and c.shape[0] != 1) or c.size not in {1, outputs}:
        return None
    return np.broadcast_to(c.reshape(-1), (outputs,))


def _scaled(layer: Layer, x: str, factor: float) -> str:
    return x if factor == 1.0 else layer.binary("mul", x, factor)


def _plus(layer: Layer, y: str, beta: float) -> str:
    return layer.binary("add", y, _scaled(layer, layer.operand(2), beta))


@handles("MatMul")
def matmul(layer: Layer) -> str:
    """numpy.matmul."""
    left, right = layer.value(0), layer.value(1)
    if right is not None and right.ndim == 2:
        return dense(layer, layer.x, right.T, layer.inputs[1])
    if left is not None and left.ndim == 2 and len(layer.type(1).shape) >= 2:
        return swapped(layer, dense(layer, swapped(layer, layer.operand(1)), left, layer.inputs[0]))
    return _matmul_of_any_rank(layer)


def _matmul_of_any_rank(layer: Layer) -> str:
    """A vector on the left is a row, on the right a column; its axis leaves the result."""
    a, b = layer.type(0).shape, layer.type(1).shape
    if not a or not b:
        raise ValueError("a scalar operand, expected rank 1 or more")
    row = layer.reshape(layer.x, (1, *a)) if len(a) == 1 else layer.x
    column = layer.reshape(layer.operand(1), (*b, 1)) if len(b) == 1 else layer.operand(1)
    y = layer.add(MatMul(), row, column)
    shape = list(layer.builder.shape(y))
    if len(b) == 1:
        del shape[-1]
    if len(a) == 1:
        del shape[-1 if len(b) == 1 else -2]
    return layer.reshape(y, shape)

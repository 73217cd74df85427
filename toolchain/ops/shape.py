"""Operators that lay the same values out under another shape or order, or repeat them.

All but Reshape, which is no code, are a strided view of their input: see toolchain/ops/strided.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from toolchain.ir.types import Array, TensorType
from toolchain.ops.base import Call, Op, Operands, QuantRule, operator
from toolchain.ops.strided import ViewOp, moved


@operator("shape")
@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """The same values under another shape (no -1): no code."""

    shape: tuple[int, ...]

    quant_rule = QuantRule.SAME_AS_INPUT
    view = True

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if math.prod(self.shape) != inputs[0].elements or min(self.shape, default=1) < 0:
            raise ValueError(f"cannot reshape {inputs[0].shape} to {self.shape}")
        return moved(inputs[0], self.shape)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """A batch k times that of the graph stays in front: (k * shape[0], ...)."""
        x, elements = inputs[0], math.prod(self.shape)
        if x.size == elements:
            return (x.reshape(self.shape),)
        if not self.shape or not elements or x.size % elements:
            raise ValueError(f"cannot reshape {x.shape} to {self.shape}")
        return (x.reshape(x.size // elements * self.shape[0], *self.shape[1:]),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        del operands
        return ()


@operator("shape")
@dataclass(frozen=True, slots=True)
class Copy(ViewOp):
    """The input once more, where two tensors need memory of their own."""

    def _view(self, x: Array) -> Array:
        return x

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


@operator("shape")
@dataclass(frozen=True, slots=True)
class Transpose(ViewOp):
    """Axis i of the output is axis permutation[i] of the input."""

    permutation: tuple[int, ...]

    def _view(self, x: Array) -> Array:
        return np.transpose(x, self.permutation)

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if sorted(self.permutation) != list(range(len(shape))):
            raise ValueError(f"permutation {self.permutation} does not fit the shape {shape}")
        return tuple(shape[axis] for axis in self.permutation)


@operator("shape")
@dataclass(frozen=True, slots=True)
class Tile(ViewOp):
    """The input repeats[i] times after itself along axis i."""

    repeats: tuple[int, ...]

    def _view(self, x: Array) -> Array:
        split = x.reshape([part for length in x.shape for part in (1, length)])
        pairs = zip(self.repeats, x.shape, strict=True)
        return np.broadcast_to(split, [part for pair in pairs for part in pair])

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != len(self.repeats) or min(self.repeats, default=1) < 1:
            raise ValueError(f"repeats {self.repeats} do not fit the shape {shape}")
        return tuple(length * count for length, count in zip(shape, self.repeats, strict=True))


@operator("shape")
@dataclass(frozen=True, slots=True)
class Expand(ViewOp):
    """The input broadcast to `shape`, the output's."""

    shape: tuple[int, ...]

    def _view(self, x: Array) -> Array:
        return np.broadcast_to(x, self._shape(x.shape))

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) == len(self.shape) and shape and shape[0] > 1 and self.shape[0] == 1:
            return (shape[0], *self.shape[1:])
        if np.broadcast_shapes(shape, self.shape) != self.shape:
            return (*np.broadcast_shapes(shape[:1], self.shape[:1]), *self.shape[1:])
        return self.shape

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if np.broadcast_shapes(inputs[0].shape, self.shape) != self.shape:
            raise ValueError(f"cannot expand {inputs[0].shape} to {self.shape}")
        return moved(inputs[0], self.shape)


@operator("shape")
@dataclass(frozen=True, slots=True)
class SpaceToDepth(ViewOp):
    """Blocks of pixels become channels, ordered (block y, block x, channel) for DCR, (channel, y, x) for CRD."""

    block: int
    mode: Literal["DCR", "CRD"] = "DCR"

    def _view(self, x: Array) -> Array:
        batch, *spatial, channels = x.shape
        split = x.reshape(batch, *[part for s in spatial for part in (s // self.block, self.block)], channels)
        pixels = [1 + 2 * axis for axis in range(len(spatial))]
        inner = [axis + 1 for axis in pixels]
        last = split.ndim - 1
        depth = [*inner, last] if self.mode == "DCR" else [last, *inner]
        view: Array = split.transpose(0, *pixels, *depth)
        return view

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        batch, *spatial, channels = shape
        if any(length % self.block for length in spatial):
            raise ValueError(f"{tuple(spatial)} pixels do not split into blocks of {self.block}")
        return (batch, *(s // self.block for s in spatial), channels * self.block ** len(spatial))


@operator("shape")
@dataclass(frozen=True, slots=True)
class DepthToSpace(ViewOp):
    """Channels become blocks of pixels; channels are ordered (y, x, channel) for DCR, (channel, y, x) for CRD."""

    block: int
    mode: Literal["DCR", "CRD"] = "DCR"

    def _view(self, x: Array) -> Array:
        batch, *spatial, channels = x.shape
        rank = len(spatial)
        depth = channels // self.block**rank
        blocks = [self.block] * rank
        split = x.reshape(batch, *spatial, *([*blocks, depth] if self.mode == "DCR" else [depth, *blocks]))
        first = 1 + rank + (self.mode == "CRD")
        pairs = [axis for i in range(rank) for axis in (1 + i, first + i)]
        view: Array = split.transpose(0, *pairs, 1 + 2 * rank if self.mode == "DCR" else 1 + rank)
        return view

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        batch, *spatial, channels = shape
        if channels % self.block ** len(spatial):
            raise ValueError(f"{channels} channels do not split into blocks of {self.block}")
        return (batch, *(s * self.block for s in spatial), channels // self.block ** len(spatial))

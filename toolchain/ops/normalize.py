"""Normalisation by statistics of the input itself. Float only: the quantizer keeps these in float."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ops.base import Call, Field, Kernel, Op, Operands, QuantRule, float32, operator
from toolchain.ops.overlap import IN_PLACE, Overlap, in_steps

if TYPE_CHECKING:
    from toolchain.ir.types import Array, TensorType


def _standardized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """X less its mean over its standard deviation along axes."""
    centred = x - x.mean(axes, keepdims=True, dtype=np.float32)
    variance = np.square(centred).mean(axes, keepdims=True, dtype=np.float32)
    return np.asarray(centred / np.sqrt(variance + np.float32(epsilon)), np.float32)


@operator("normalize")
@dataclass(frozen=True, slots=True)
class LayerNorm(Op):
    """(x, scale, bias) -> standardized over the axes from `axis` (>= 0) on; scale and bias have their shape."""

    axis: int
    epsilon: float

    quant_rule = QuantRule.FLOAT

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, scale, bias = inputs
        if scale.shape != x.shape[self.axis :] or bias.shape != scale.shape:
            raise ValueError(f"scale {scale.shape} and bias {bias.shape}, expected {x.shape[self.axis :]}")
        return (x,)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x, scale, bias = float32(*inputs)
        return (_standardized(x, tuple(range(self.axis, x.ndim)), self.epsilon) * scale + bias,)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x = operands.inputs[0].type
        length = math.prod(x.shape[self.axis :])
        kernel = Kernel("normalize", "layer_norm", "layer_norm_f32")
        record: dict[str, Field] = {"rows": x.elements // length, "length": length, "epsilon": float(self.epsilon)}
        return (Call(kernel, record, reads=(0, 1, 2), overlaps=(Overlap(0),)),)


@operator("normalize")
@dataclass(frozen=True, slots=True)
class GroupNorm(Op):
    """(x[N, *spatial, C], scale[C], bias[C]) -> standardized over pixels and each group of channels.

    groups = C is instance normalisation.
    """

    groups: int
    epsilon: float

    quant_rule = QuantRule.FLOAT

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, scale, bias = inputs
        channels = x.shape[-1]
        if channels % self.groups or scale.shape != (channels,) or bias.shape != (channels,):
            raise ValueError(f"groups={self.groups}, scale {scale.shape}, bias {bias.shape} on {channels} channels")
        return (x,)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x, scale, bias = float32(*inputs)
        grouped = x.reshape(x.shape[0], -1, self.groups, x.shape[-1] // self.groups)
        return (_standardized(grouped, (1, 3), self.epsilon).reshape(x.shape) * scale + bias,)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x = operands.inputs[0].type
        record: dict[str, Field] = {
            "batch": x.shape[0],
            "pixels": math.prod(x.shape[1:-1]),
            "groups": self.groups,
            "group_channels": x.shape[-1] // self.groups,
            "epsilon": float(self.epsilon),
        }
        kernel = Kernel("normalize", "group_norm", "group_norm_f32")
        return (Call(kernel, record, reads=(0, 1, 2), overlaps=(IN_PLACE,)),)


@operator("normalize")
@dataclass(frozen=True, slots=True)
class LRN(Op):
    """X / (offset + alpha / size * sum of squares of `size` channels around)^beta, channels last."""

    size: int
    alpha: float
    beta: float
    offset: float

    quant_rule = QuantRule.FLOAT

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (inputs[0],)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        (x,) = float32(*inputs)
        before, channels = (self.size - 1) // 2, x.shape[-1]
        padded = np.pad(np.square(x), [(0, 0)] * (x.ndim - 1) + [(before, self.size - 1 - before)])
        total = np.zeros_like(x)
        for offset in range(self.size):
            total += padded[..., offset : offset + channels]
        base = np.float32(self.offset) + np.float32(self.alpha / self.size) * total
        return (x * np.power(base, np.float32(-self.beta)),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x = operands.inputs[0].type
        before = (self.size - 1) // 2
        record: dict[str, Field] = {
            "pixels": x.elements // x.shape[-1],
            "channels": x.shape[-1],
            "before": before,
            "after": self.size - 1 - before,
            "alpha": float(self.alpha / self.size),
            "beta": float(self.beta),
            "offset": float(self.offset),
        }
        channel = np.tile(np.arange(x.shape[-1]), x.elements // x.shape[-1])
        element = np.arange(x.elements)
        overlap = in_steps((element - np.minimum(channel, before)) * x.dtype.bytes, (element + 1) * x.dtype.bytes)
        return (Call(Kernel("normalize", "lrn", "lrn_f32"), record, overlaps=(overlap,)),)

"""Concat and Split: parts along one axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.fixedpoint import round_half_away
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Constant, Field, Op, Operands, QuantRule, only_quant, operator
from toolchain.ops.overlap import in_steps
from toolchain.ops.strided import blank, copy_view, element_kernel, moved

if TYPE_CHECKING:
    from toolchain.ir.graph import Tensor


def _with_batch(arrays: tuple[Array, ...], axis: int) -> list[Array]:
    """Constants of batch 1 repeated to the batch of the others, unless the batch is what is joined."""
    if axis == 0 or arrays[0].ndim < 2:
        return list(arrays)
    batch = max(a.shape[0] for a in arrays)
    return [a if a.shape[0] == batch else np.repeat(a, batch // a.shape[0], 0) for a in arrays]


def rescale_table(source: Tensor, target: Tensor) -> Array | None:
    """The target's int8 for each int8 of the source, by its unsigned byte; None where they are the same."""
    if source.type.quant is None or target.type.quant is None:
        return None
    (scale, zero), (out_scale, out_zero) = only_quant(source), only_quant(target)
    if (scale, zero) == (out_scale, out_zero):
        return None
    if source.type.dtype is not DType.INT8:
        raise ValueError(f"{source.name}: only int8 can be rescaled while it is joined")
    values = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)
    real = (values - zero) * (np.float64(scale) / out_scale)
    low, high = target.type.dtype.limits
    return np.clip(round_half_away(real) + out_zero, low, high).astype(np.int8)


@operator("joining")
@dataclass(frozen=True, slots=True)
class Concat(Op):
    """The inputs after one another along `axis` (>= 0)."""

    axis: int

    quant_rule = QuantRule.SHARED

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        shape = list(inputs[0].shape)
        for other in inputs:
            if len(other.shape) != len(shape) or not 0 <= self.axis < len(shape):
                raise ValueError(f"cannot join {[i.shape for i in inputs]} along axis {self.axis}")
            if any(a != b for i, (a, b) in enumerate(zip(shape, other.shape, strict=True)) if i != self.axis):
                raise ValueError(f"cannot join {[i.shape for i in inputs]} along axis {self.axis}")
        shape[self.axis] = sum(i.shape[self.axis] for i in inputs)
        return moved(inputs[0], tuple(shape))

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        return (np.concatenate(_with_batch(inputs, self.axis), self.axis),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        tables = [rescale_table(tensor, operands.outputs[0]) for tensor in operands.inputs]
        pairs = zip(inputs, tables, strict=True)
        return self.reference(*(x if table is None else table[x.view(np.uint8)] for x, table in pairs))

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        y = operands.outputs[0]
        row = math.prod(y.type.shape[self.axis :])
        calls, offset = [], 0
        for i, tensor in enumerate(operands.inputs):
            run = math.prod(tensor.type.shape[self.axis :])
            record: dict[str, Field] = {
                "count": tensor.type.elements // run,
                "run": run,
                "offset": offset,
                "stride": row,
            }
            table = rescale_table(tensor, y)
            if table is not None:
                record["table"] = Constant(table)
            kernel = element_kernel("concat" if table is None else "concat_mapped", tensor.type.dtype, family="joining")
            blocks = np.arange(tensor.type.elements // run) * tensor.type.dtype.bytes
            overlap = in_steps(blocks * run, blocks * row + (offset + run) * tensor.type.dtype.bytes, writes_first=True)
            calls.append(Call(kernel, record, reads=(i,), overlaps=(overlap,)))
            offset += run
        return tuple(calls)


@operator("joining")
@dataclass(frozen=True, slots=True)
class Split(Op):
    """Consecutive parts of `sizes` along `axis` (>= 0), one output each."""

    axis: int
    sizes: tuple[int, ...]

    quant_rule = QuantRule.SAME_AS_INPUT

    def _views(self, x: Array) -> tuple[Array, ...]:
        return tuple(np.split(x, np.cumsum(self.sizes)[:-1], self.axis))

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        shape = inputs[0].shape
        if not 0 <= self.axis < len(shape) or sum(self.sizes) != shape[self.axis]:
            raise ValueError(f"cannot split {shape} along axis {self.axis} into {self.sizes}")
        return tuple(moved(inputs[0], (*shape[: self.axis], n, *shape[self.axis + 1 :]))[0] for n in self.sizes)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        return tuple(np.ascontiguousarray(part) for part in self._views(inputs[0]))

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x = operands.inputs[0].type
        whole = blank(x.shape)
        return tuple(copy_view(part, whole, x.dtype, i) for i, part in enumerate(self._views(whole)))

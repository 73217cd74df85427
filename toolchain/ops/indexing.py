"""Slice, Gather and Pad: elements by their place along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from toolchain.fixedpoint import quantize
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Field, Op, Operands, QuantRule, only_quant, operator
from toolchain.ops.strided import (
    ViewOp,
    blank,
    copy_indexed,
    copy_view,
    element_kernel,
    merged_axes,
    moved,
    offset_in,
    outer,
)

if TYPE_CHECKING:
    from toolchain.ir.graph import Tensor

END = 2**31 - 1
"""A slice stop beyond any axis: up to the end, however long the axis is."""


@operator("indexing")
@dataclass(frozen=True, slots=True)
class Slice(ViewOp):
    """x[start:stop:step] on every axis. start >= 0; a stop of -1 with a negative step includes index 0.

    A stop past the end (`END`) takes the axis to its end, also in a batch larger than the graph's.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]

    def _slices(self) -> tuple[slice, ...]:
        bounds = zip(self.start, self.stop, self.step, strict=True)
        return tuple(slice(a, None if b < 0 and step < 0 else b, step) for a, b, step in bounds)

    def _view(self, x: Array) -> Array:
        view: Array = x[self._slices()]
        return view

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != len(self.start) or 0 in self.step:
            raise ValueError(f"slice {self.start}:{self.stop}:{self.step} does not fit the shape {shape}")
        axes = zip(self._slices(), shape, strict=True)
        taken = tuple(len(range(*part.indices(length))) for part, length in axes)
        if 0 in taken:
            raise ValueError(f"slice {self.start}:{self.stop}:{self.step} of {shape} is empty")
        return taken


@operator("indexing")
@dataclass(frozen=True, slots=True)
class Pad(Op):
    """(begin, end) more elements on every axis: `value`, or values of the input by `mode` (numpy.pad's names)."""

    padding: tuple[tuple[int, int], ...]
    mode: Literal["constant", "reflect", "edge", "symmetric", "wrap"] = "constant"
    value: float = 0.0

    quant_rule = QuantRule.SAME_AS_INPUT

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        shape = inputs[0].shape
        if len(shape) != len(self.padding) or any(min(pair) < 0 for pair in self.padding):
            raise ValueError(f"padding {self.padding} does not fit the shape {shape}")
        return moved(inputs[0], tuple(n + b + e for n, (b, e) in zip(shape, self.padding, strict=True)))

    def _pad(self, x: Array, value: float) -> Array:
        if self.mode == "constant":
            return np.pad(x, self.padding, constant_values=np.asarray(value).astype(x.dtype))
        return np.pad(x, self.padding, mode=self.mode)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        return (self._pad(inputs[0], self.value),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        return (self._pad(inputs[0], self._stored(operands.outputs[0])),)

    def _stored(self, y: Tensor) -> float:
        """The padding value as the output stores it."""
        if y.type.dtype is DType.FLOAT32:
            return float(self.value)
        if y.type.quant is None:
            return int(self.value)
        return int(quantize(self.value, *only_quant(y), *y.type.dtype.limits))

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x, y = operands.inputs[0].type, operands.outputs[0]
        if self.mode == "constant":
            return (self._lower_constant(y),)
        pairs = enumerate(zip(x.shape, self.padding, strict=True))
        tables = {a: np.pad(np.arange(n), pair, mode=self.mode) for a, (n, pair) in pairs if any(pair)}
        return (copy_indexed(x.shape, tables or {0: np.arange(x.shape[0])}, x.dtype),)

    def _lower_constant(self, y: Tensor) -> Call:
        whole = blank(y.type.shape)
        inner = whole[tuple(slice(b, n - e) for n, (b, e) in zip(whole.shape, self.padding, strict=True))]
        axes = merged_axes(inner)
        run = axes.pop()[0] if axes and axes[-1][1] == 1 else 1
        shape, stride = outer(axes)
        record: dict[str, Field] = {
            "value": self._stored(y),
            "elements": y.type.elements,
            "offset": offset_in(inner, whole),
            "run": run,
            "shape": shape,
            "stride": stride,
        }
        return Call(element_kernel("pad_constant", y.type.dtype, len(shape), "indexing"), record)


@operator("indexing")
@dataclass(frozen=True, slots=True)
class Gather(Op):
    """x[..., indices, ...] along `axis` (>= 0) with constant indices of shape `index_shape` (() drops the axis)."""

    axis: int
    indices: tuple[int, ...]
    index_shape: tuple[int, ...]

    quant_rule = QuantRule.SAME_AS_INPUT

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        shape = inputs[0].shape
        if not 0 <= self.axis < len(shape) or any(not -shape[self.axis] <= i < shape[self.axis] for i in self.indices):
            raise ValueError(f"indices {self.indices} are outside axis {self.axis} of {shape}")
        return moved(inputs[0], (*shape[: self.axis], *self.index_shape, *shape[self.axis + 1 :]))

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        index = np.asarray(self.indices, np.int64).reshape(self.index_shape)
        return (np.asarray(np.take(inputs[0], index, self.axis)),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x = operands.inputs[0].type
        index = np.asarray(self.indices, np.int64) % x.shape[self.axis]
        steps = np.unique(np.diff(index))
        if len(steps) > 1 or 0 in steps:
            return (copy_indexed(x.shape, {self.axis: index}, x.dtype),)
        whole = blank(x.shape)
        step = int(steps[0]) if len(steps) else 1
        stop = int(index[-1]) + step
        taken = slice(int(index[0]), None if stop < 0 else stop, step)
        return (copy_view(whole[(slice(None),) * self.axis + (taken,)], whole, x.dtype),)

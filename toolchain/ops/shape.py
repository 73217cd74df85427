"""Operators that only move values: reshape, transpose, slice, join, repeat, pad, pick.

Most of them are a strided view of their input. The view is stated once, in numpy, by `_view`: on an array
it is the reference, on an empty array its strides are the record of the C kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolchain.fixedpoint import quantize, round_half_away
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Constant, Field, Kernel, Op, Operands, QuantRule, only_quant, operator
from toolchain.ops.overlap import Int, Overlap, in_steps

if TYPE_CHECKING:
    from toolchain.ir.graph import Tensor

END = 2**31 - 1
"""A slice stop beyond any axis: up to the end, however long the axis is."""
SHORT_RUN_BYTES = 8
"""Runs shorter than this are copied element by element, since a call of memcpy costs more."""

Axes = list[tuple[int, int]]


def element_kernel(name: str, dtype: DType, rank: int | None = None) -> Kernel:
    """The data-movement kernel `name` for one element type, with `rank` outer axes where it has such."""
    digits = "" if rank is None else str(rank)
    variant: tuple[tuple[str, Any], ...] = (("type", dtype.c), ("rank", rank))
    return Kernel("shape", name, f"{name}{digits}_{dtype.short}", variant)


def merged_axes(view: Array) -> Axes:
    """The (length, stride in elements) of a view's axes, unit axes dropped and adjacent ones joined."""
    axes: Axes = []
    for length, stride in zip(view.shape, (stride // view.itemsize for stride in view.strides), strict=True):
        if length == 1:
            continue
        if axes and axes[-1][1] == stride * length:
            axes[-1] = (axes[-1][0] * length, stride)
        else:
            axes.append((length, stride))
    return axes


def _offset(view: Array, whole: Array) -> int:
    return int(view.__array_interface__["data"][0] - whole.__array_interface__["data"][0])


def _outer(axes: Axes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(lengths, strides) of the outer axes, at least one."""
    axes = axes or [(1, 0)]
    return tuple(length for length, _ in axes), tuple(stride for _, stride in axes)


def _places(axes: Axes, offset: int) -> Int:
    """The elements of a view's axes in order, as places in the whole."""
    places = np.full(1, offset, np.int64)
    for length, stride in axes:
        places = (places[:, None] + np.arange(length) * stride).ravel()
    return places


def _in_runs(places: Int, run: int, dtype: DType) -> Overlap:
    """Runs of elements that begin at `places` are copied by memcpy, for which none may meet its own copy."""
    ends = np.arange(1, places.size + 1) * run
    return in_steps(places * dtype.bytes, ends * dtype.bytes, writes_first=True)


def copy_view(view: Array, whole: Array, dtype: DType, write: int = 0) -> Call:
    """Return the call that writes `view` (an int8 view of `whole`, the input) in order to one output."""
    axes, offset = merged_axes(view), _offset(view, whole)
    run, step = axes.pop() if axes else (1, 1)
    record: dict[str, Field] = {"offset": offset, "run": run}
    if step != 1 or (axes and run * dtype.bytes < SHORT_RUN_BYTES):
        record["step"] = step
        places = _places([*axes, (run, step)], offset) * dtype.bytes
        overlap = in_steps(places, np.arange(1, places.size + 1) * dtype.bytes)
        name = "copy_strided"
    else:
        overlap = _in_runs(_places(axes, offset), run, dtype)
        name = "copy_rows"
    if not axes and name == "copy_rows":
        return Call(element_kernel("copy_block", dtype), record, writes=(write,), overlaps=(overlap,))
    record["shape"], record["stride"] = _outer(axes)
    kernel = element_kernel(name, dtype, len(_outer(axes)[0]))
    return Call(kernel, record, writes=(write,), overlaps=(overlap,))


def copy_indexed(shape: tuple[int, ...], tables: dict[int, Array], dtype: DType) -> Call:
    """Return the call y[i, j, ...] = x[tables[0][i], tables[1][j], ...] for an input of `shape`.

    Axes without a table are taken whole.
    """
    last = max(tables)
    run = math.prod(shape[last + 1 :])
    rows: list[Array] = []
    for axis in range(last + 1):
        stride = math.prod(shape[axis + 1 :])
        table = np.asarray(tables.get(axis, np.arange(shape[axis])), np.int32)
        if axis == last or shape[axis] > 1 or len(table) > 1:
            rows.append(table * np.int32(stride))
    record: dict[str, Field] = {
        "run": run,
        "shape": tuple(len(row) for row in rows),
        "table": Constant(np.concatenate(rows).astype(np.int32)),
    }
    places = np.zeros(1, np.int64)
    for row in rows:
        places = (places[:, None] + row).ravel()
    kernel = element_kernel("copy_indexed", dtype, len(rows))
    return Call(kernel, record, overlaps=(_in_runs(places, run, dtype),))


def _blank(shape: tuple[int, ...]) -> Array:
    return np.empty(shape, np.int8)


def _typed(x: TensorType, shape: tuple[int, ...]) -> tuple[TensorType, ...]:
    return (TensorType(tuple(int(length) for length in shape), x.dtype),)


class ViewOp(Op):
    """An operator whose output is a strided view of its input, written out in order."""

    __slots__ = ()
    quant_rule = QuantRule.SAME_AS_INPUT

    def _view(self, x: Array) -> Array:
        """The values of the output in order, as a strided view that may have more axes than the output."""
        raise NotImplementedError

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The output's shape."""
        raise NotImplementedError

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return _typed(inputs[0], self._shape(inputs[0].shape))

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x = inputs[0]
        return (np.ascontiguousarray(self._view(x)).reshape(self._shape(x.shape)),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x = operands.inputs[0].type
        whole = _blank(x.shape)
        return (copy_view(self._view(whole), whole, x.dtype),)


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
        return _typed(inputs[0], self.shape)

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
        return _typed(inputs[0], self.shape)


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


@operator("shape")
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
        return _typed(inputs[0], tuple(shape))

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
            kernel = element_kernel("concat" if table is None else "concat_mapped", tensor.type.dtype)
            blocks = np.arange(tensor.type.elements // run) * tensor.type.dtype.bytes
            overlap = in_steps(blocks * run, blocks * row + (offset + run) * tensor.type.dtype.bytes, writes_first=True)
            calls.append(Call(kernel, record, reads=(i,), overlaps=(overlap,)))
            offset += run
        return tuple(calls)


@operator("shape")
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
        return tuple(_typed(inputs[0], (*shape[: self.axis], n, *shape[self.axis + 1 :]))[0] for n in self.sizes)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        return tuple(np.ascontiguousarray(part) for part in self._views(inputs[0]))

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x = operands.inputs[0].type
        whole = _blank(x.shape)
        return tuple(copy_view(part, whole, x.dtype, i) for i, part in enumerate(self._views(whole)))


@operator("shape")
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
        return _typed(inputs[0], tuple(n + b + e for n, (b, e) in zip(shape, self.padding, strict=True)))

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
        whole = _blank(y.type.shape)
        inner = whole[tuple(slice(b, n - e) for n, (b, e) in zip(whole.shape, self.padding, strict=True))]
        axes = merged_axes(inner)
        run = axes.pop()[0] if axes and axes[-1][1] == 1 else 1
        shape, stride = _outer(axes)
        record: dict[str, Field] = {
            "value": self._stored(y),
            "elements": y.type.elements,
            "offset": _offset(inner, whole),
            "run": run,
            "shape": shape,
            "stride": stride,
        }
        return Call(element_kernel("pad_constant", y.type.dtype, len(shape)), record)


@operator("shape")
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
        return _typed(inputs[0], (*shape[: self.axis], *self.index_shape, *shape[self.axis + 1 :]))

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        index = np.asarray(self.indices, np.int64).reshape(self.index_shape)
        return (np.asarray(np.take(inputs[0], index, self.axis)),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x = operands.inputs[0].type
        index = np.asarray(self.indices, np.int64) % x.shape[self.axis]
        steps = np.unique(np.diff(index))
        if len(steps) > 1 or 0 in steps:
            return (copy_indexed(x.shape, {self.axis: index}, x.dtype),)
        whole = _blank(x.shape)
        step = int(steps[0]) if len(steps) else 1
        stop = int(index[-1]) + step
        taken = slice(int(index[0]), None if stop < 0 else stop, step)
        return (copy_view(whole[(slice(None),) * self.axis + (taken,)], whole, x.dtype),)

"""Copies by strides or by index tables: what the kernels of data movement have in common.

A view is stated once, in numpy: on an array it is the reference, on an empty array its strides are the record of
the C kernel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Constant, Field, Kernel, Op, Operands, QuantRule
from toolchain.ops.overlap import Int, Overlap, in_steps

SHORT_RUN_BYTES = 8
"""Runs shorter than this are copied element by element, since a call of memcpy costs more."""

Axes = list[tuple[int, int]]


def element_kernel(name: str, dtype: DType, rank: int | None = None, family: str = "shape") -> Kernel:
    """The data-movement kernel `name` for one element type, with `rank` outer axes where it has such."""
    digits = "" if rank is None else str(rank)
    variant: tuple[tuple[str, Any], ...] = (("type", dtype.c), ("rank", rank))
    return Kernel(family, name, f"{name}{digits}_{dtype.short}", variant)


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


def offset_in(view: Array, whole: Array) -> int:
    """Bytes from the beginning of `whole` to that of its view."""
    return int(view.__array_interface__["data"][0] - whole.__array_interface__["data"][0])


def outer(axes: Axes) -> tuple[tuple[int, ...], tuple[int, ...]]:
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
    axes, offset = merged_axes(view), offset_in(view, whole)
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
    record["shape"], record["stride"] = outer(axes)
    kernel = element_kernel(name, dtype, len(outer(axes)[0]))
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


def blank(shape: tuple[int, ...]) -> Array:
    """An array whose views show how the elements of a tensor of this shape are walked, a byte each."""
    return np.empty(shape, np.int8)


def moved(x: TensorType, shape: tuple[int, ...]) -> tuple[TensorType, ...]:
    """The one output type of an operator that moves elements of x to `shape`."""
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
        return moved(inputs[0], self._shape(inputs[0].shape))

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x = inputs[0]
        return (np.ascontiguousarray(self._view(x)).reshape(self._shape(x.shape)),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x = operands.inputs[0].type
        whole = blank(x.shape)
        return (copy_view(self._view(whole), whole, x.dtype),)

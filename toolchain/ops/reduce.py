"""Reductions over axes, and the index of the largest or smallest element."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import fixedpoint
from toolchain.errors import InputError
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Field, Kernel, Op, Operands, QuantRule, only_quant, operator
from toolchain.ops.broadcast import OUTER
from toolchain.ops.overlap import LANES, Overlap, in_steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.ir.graph import Tensor

COMBINE = {
    "mean": "total + value",
    "sum": "total + value",
    "max": "value > total ? value : total",
    "min": "value < total ? value : total",
    "prod": "total * value",
}
"""Kind -> C expression that takes in one more value."""
FUNCTIONS = {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}


@dataclass(frozen=True, slots=True)
class Rescaling:
    """y = requantize(sum + bias) + y_offset; `bias` takes out the input's zero points."""

    bias: int
    multiplier: int
    shift: int
    y_offset: int


@operator("reduce")
@dataclass(frozen=True, slots=True)
class Reduce(Op):
    """Mean, sum, max, min or prod over `axes`."""

    kind: str
    axes: tuple[int, ...]
    keepdims: bool

    @property
    def quant_rule(self) -> QuantRule:  # type: ignore[override]
        """Max and min select; prod has no integer form."""
        if self.kind in ("max", "min"):
            return QuantRule.SAME_AS_INPUT
        return QuantRule.FLOAT if self.kind == "prod" else QuantRule.OWN_RANGE

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The shape without the axes, or with ones in their place."""
        (x,) = inputs
        if self.kind not in COMBINE:
            raise ValueError(f"{self.kind} is not a reduction")
        if any(not -len(x.shape) <= axis < len(x.shape) for axis in self.axes):
            raise ValueError(f"axes {self.axes} of shape {x.shape}")
        axes = self._positive(len(x.shape))
        kept = (1 if i in axes else size for i, size in enumerate(x.shape) if self.keepdims or i not in axes)
        return (TensorType(tuple(kept), x.dtype),)

    def _positive(self, rank: int) -> tuple[int, ...]:
        return tuple(sorted({axis % rank for axis in self.axes}))

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """In the input's own type."""
        x = np.asarray(inputs[0])
        y = FUNCTIONS[self.kind](x, axis=self.axes, keepdims=self.keepdims)  # type: ignore[operator]
        return (np.asarray(y).astype(x.dtype),)

    def rescaling(self, operands: Operands) -> Rescaling:
        """The integers of mean and sum (TensorFlow Lite QuantizedMeanOrSum)."""
        source = operands.inputs[0]
        (scale, zero_point), (y_scale, y_zero) = only_quant(source), only_quant(operands.outputs[0])
        count = math.prod(source.type.shape[axis] for axis in self._positive(len(source.type.shape)))
        widest = 255 if source.type.dtype.bytes == 1 else 1 << 15
        if count * widest >= 1 << 31:
            raise InputError(f"{source.name}: {count} elements in one sum, expected at most {(1 << 31) // widest}")
        multiplier, shift = fixedpoint.quantize_multiplier(scale / y_scale)
        if self.kind == "mean":
            down = min(count.bit_length() - 1, 32, 31 + shift)
            multiplier, shift = (multiplier << down) // count, shift - down
        return Rescaling(-zero_point * count, multiplier, shift, y_zero)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """One rescaling of the exact sum."""
        if self.kind in ("max", "min"):
            return self.reference(*inputs)
        spec = self.rescaling(operands)
        total = np.sum(np.asarray(inputs[0], np.int64), axis=self.axes, keepdims=self.keepdims) + spec.bias
        y = fixedpoint.requantize(total, spec.multiplier, spec.shift, operands.rounding) + spec.y_offset
        out = operands.outputs[0].type.dtype
        return (np.clip(y, *out.limits).astype(out.numpy),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """Loops over the last axes, over axes in the middle, or over any axes by strides."""
        x = operands.inputs[0].type
        groups = merged(x.shape, self._positive(len(x.shape)))
        layout, record = _loops(groups)
        rescaled = x.quant is not None and self.kind in ("mean", "sum")
        helpers: tuple[str, ...] = (f"clamp_{x.dtype.short}", "requantize") if rescaled else ()
        if rescaled:
            spec = self.rescaling(operands)
            record |= {"bias": spec.bias, "multiplier": spec.multiplier, "shift": spec.shift, "y_offset": spec.y_offset}
        elif self.kind == "mean":
            record |= {"count": float(math.prod(size for size, reduced in groups if reduced))}
        if layout == "strided":
            helpers = (*helpers, "strided_offset")
        kind = "sum" if rescaled else self.kind
        variant = (
            ("type", x.dtype.c),
            ("short", x.dtype.short),
            ("limits", x.dtype.limits if rescaled else ()),
            ("total", "int32_t" if rescaled else x.dtype.c),
            ("expression", COMBINE[kind]),
            ("finish", "rescaled" if rescaled else "mean" if kind == "mean" else "plain"),
            ("layout", layout),
        )
        suffix = {"last": "", "middle": "_columns", "strided": "_strided"}[layout]
        kernel = Kernel("reduce", "reduce", f"reduce_{kind}{suffix}_{x.dtype.short}", variant, helpers)
        return (Call(kernel, record, overlaps=(_overlap(layout, record, x.dtype),)),)


def _overlap(layout: str, record: Mapping[str, Any], dtype: DType) -> Overlap:
    """A row of sums, or LANES columns of it, is read as a whole and then written."""
    rows = np.arange(record["outer"])
    if layout == "middle":
        first = np.arange(0, record["inner"], LANES)
        lows = rows[:, None] * record["size"] * record["inner"] + first
        ends = rows[:, None] * record["inner"] + np.minimum(first + LANES, record["inner"])
        return in_steps(lows.ravel() * dtype.bytes, ends.ravel() * dtype.bytes)
    places = rows * record["size"]
    if layout == "strided":
        index = np.unravel_index(rows, record["outer_dims"])
        places = np.asarray(sum(i * stride for i, stride in zip(index, record["outer_strides"], strict=True)))
    return in_steps(places * dtype.bytes, (rows + 1) * dtype.bytes)


def merged(shape: tuple[int, ...], axes: tuple[int, ...]) -> list[tuple[int, bool]]:
    """Return (size, whether reduced) with neighbours of one kind merged and axes of length one left out.

    >>> merged((1, 4, 4, 8), (1, 2))
    [(16, True), (8, False)]
    """
    groups: list[tuple[int, bool]] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if groups and groups[-1][1] == (axis in axes):
            groups[-1] = (groups[-1][0] * size, axis in axes)
        else:
            groups.append((size, axis in axes))
    return groups


def _loops(groups: list[tuple[int, bool]]) -> tuple[str, dict[str, Field]]:
    """The loop layout and its fields."""
    pattern = [reduced for _, reduced in groups]
    sizes = [size for size, _ in groups]
    if pattern in ([], [False], [True], [False, True]):
        outer = sizes[0] if pattern[:1] == [False] else 1
        return "last", {"outer": outer, "size": sizes[-1] if pattern[-1:] == [True] else 1}
    if pattern in ([True, False], [False, True, False]):
        return "middle", {"outer": sizes[0] if len(sizes) == 3 else 1, "size": sizes[-2], "inner": sizes[-1]}
    record: dict[str, Field] = {}
    for name, reduced in (("outer", False), ("size", True)):
        picked = [i for i, flag in enumerate(pattern) if flag is reduced]
        missing = OUTER - len(picked)
        if missing < 0:
            raise ValueError(f"reduction over {len(picked)} separate groups of axes, expected at most {OUTER}")
        record[name] = math.prod(sizes[i] for i in picked)
        record[f"{name}_dims"] = (1,) * missing + tuple(sizes[i] for i in picked)
        record[f"{name}_strides"] = (0,) * missing + tuple(math.prod(sizes[i + 1 :]) for i in picked)
    return "strided", record


@operator("reduce")
@dataclass(frozen=True, slots=True)
class ArgReduce(Op):
    """Index of the largest or smallest element along the axis: the first such, or the `last`."""

    kind: str
    axis: int
    keepdims: bool
    dtype: DType
    last: bool = False
    quant_rule = QuantRule.INDEX

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The shape without the axis, or with a one in its place."""
        shape = inputs[0].shape
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(f"axis {self.axis} of shape {shape}")
        axis = self.axis % len(shape)
        middle = (1,) if self.keepdims else ()
        return (TensorType((*shape[:axis], *middle, *shape[axis + 1 :]), self.dtype),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """Indices as `dtype`."""
        x = np.asarray(inputs[0])
        find = np.argmax if self.kind == "max" else np.argmin
        if self.last:
            y = x.shape[self.axis] - 1 - find(np.flip(x, self.axis), axis=self.axis, keepdims=self.keepdims)
        else:
            y = find(x, axis=self.axis, keepdims=self.keepdims)
        return (np.asarray(y).astype(self.dtype.numpy),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """Integers are ordered as the reals are."""
        del operands
        return self.reference(*inputs)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """One pass per output."""
        x = operands.inputs[0].type
        axis = self.axis % len(x.shape)
        record: dict[str, Field] = {
            "outer": math.prod(x.shape[:axis]),
            "size": x.shape[axis],
            "inner": math.prod(x.shape[axis + 1 :]),
        }
        better = (">" if self.kind == "max" else "<") + ("=" if self.last else "")
        variant = (("type", x.dtype.c), ("y_type", self.dtype.c), ("better", better))
        symbol = f"arg{self.kind}_{'last_' if self.last else ''}{x.dtype.short}_{self.dtype.short}"
        overlap = self._overlap(x.dtype, record) if min(x.dtype.bytes, self.dtype.bytes) == 1 else None
        return (Call(Kernel("reduce", "arg_reduce", symbol, variant), record, overlaps=(overlap,)),)

    def _overlap(self, dtype: DType, record: Mapping[str, Any]) -> Overlap:
        """Column after column of each row of matrices; None between types that C lets a compiler keep apart."""
        rows, columns = np.arange(record["outer"])[:, None], np.arange(record["inner"])
        lows = (rows * record["size"] * record["inner"] + columns).ravel()
        return in_steps(lows * dtype.bytes, np.arange(1, lows.size + 1) * self.dtype.bytes)

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        """Integers are ordered as the reals are."""
        del inputs, outputs, dtype
        return None

"""Resizing the spatial axes of a channels-last tensor, nearest or linear.

Where each output pixel reads is computed at export: `nearest_table` and `linear_table` per axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Constant, Field, Kernel, Op, Operands, QuantRule, operator
from toolchain.ops.overlap import by_lanes, first_pixels
from toolchain.ops.strided import copy_indexed

FRACTION_BITS = 10
"""Bits of the integer weights (TensorFlow Lite's ResizeBilinearInteger)."""


@dataclass(frozen=True, slots=True)
class LinearTable:
    """Output i of an axis is (1 - fraction[i]) * x[lower[i]] + fraction[i] * x[lower[i] + 1].

    The fraction is a float32, or an integer of FRACTION_BITS; 0 means that lower + 1 may not exist.
    """

    lower: Array
    fraction: Array

    @property
    def upper(self) -> Array:
        """The second pixel, the first again where it has no weight."""
        return self.lower + (self.fraction > 0)


@operator("resize")
@dataclass(frozen=True, slots=True)
class Resize(Op):
    """x[N, *spatial, C] at another spatial `size`.

    `scales` are size ratios (output / input) that map coordinates; () takes them from the sizes.
    """

    size: tuple[int, ...]
    mode: Literal["nearest", "linear"] = "nearest"
    coordinate: Literal["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"] = "half_pixel"
    nearest_rounding: Literal["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"] = "round_prefer_floor"
    scales: tuple[float, ...] = ()

    quant_rule = QuantRule.SAME_AS_INPUT

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x = inputs[0]
        if len(self.size) not in {1, 2} or len(x.shape) != len(self.size) + 2 or min(self.size) < 1:
            raise ValueError(f"cannot resize {x.shape} to {self.size}")
        return (TensorType((x.shape[0], *self.size, x.shape[-1]), x.dtype),)

    def _coordinates(self, axis: int, length: int) -> Array:
        """Where each output pixel of a spatial axis lies in the input, in its pixels.

        Products and quotients are float32, as the frameworks form them: ties and steps fall alike.
        """
        count = self.size[axis]
        where = np.arange(count, dtype=np.float32)
        if self.coordinate == "align_corners":
            return np.asarray(where * np.float32((length - 1) / max(count - 1, 1)), np.float64)
        centre = 0.0 if self.coordinate == "asymmetric" else 0.5
        if self.coordinate == "pytorch_half_pixel" and count == 1:
            return np.zeros(1)
        where = where + np.float32(centre)
        where = where / np.float32(self.scales[axis]) if self.scales else where * np.float32(length / count)
        return np.asarray(where, np.float64) - centre

    def nearest_table(self, axis: int, length: int) -> Array:
        """The input pixel of each output pixel along a spatial axis."""
        where = self._coordinates(axis, length)
        rounded = {
            "floor": np.floor(where),
            "ceil": np.ceil(where),
            "round_prefer_floor": np.ceil(where - 0.5),
            "round_prefer_ceil": np.floor(where + 0.5),
        }[self.nearest_rounding]
        return np.clip(rounded, 0, length - 1).astype(np.int32)

    def linear_table(self, axis: int, length: int) -> LinearTable:
        """Pixels and float32 weights along a spatial axis."""
        where = np.clip(self._coordinates(axis, length), 0, length - 1)
        lower = np.floor(where).astype(np.int32)
        return LinearTable(lower, (where - lower).astype(np.float32))

    def integer_table(self, axis: int, length: int) -> LinearTable:
        """Pixels and integer weights along a spatial axis, as TensorFlow Lite's ResizeBilinearInteger."""
        one = 1 << FRACTION_BITS
        position = np.clip(self._integer_coordinates(axis, length), 0, (length - 1) * one)
        return LinearTable((position // one).astype(np.int32), (position % one).astype(np.int16))

    def _integer_coordinates(self, axis: int, length: int) -> Array:
        one, count = 1 << FRACTION_BITS, self.size[axis]
        from_sizes = not self.scales or np.float32(self.scales[axis]) == np.float32(count / length)
        if not from_sizes or (self.coordinate == "pytorch_half_pixel" and count == 1):
            return np.floor(self._coordinates(axis, length) * one + 0.5).astype(np.int64)
        where = np.arange(count, dtype=np.int64)
        if self.coordinate == "align_corners" and count > 1:
            return where * ((one * (length - 1) + (count - 1) // 2) // (count - 1))
        scale = (one * length + count // 2) // count
        half = 0 if self.coordinate in {"asymmetric", "align_corners"} else scale // 2 - one // 2
        return where * scale + half

    def _nearest(self, x: Array) -> Array:
        for axis, length in enumerate(x.shape[1:-1]):
            x = np.take(x, self.nearest_table(axis, length), axis + 1)
        return x

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x = inputs[0]
        if self.mode == "nearest":
            return (self._nearest(x),)
        for axis in reversed(range(len(self.size))):
            table = self.linear_table(axis, x.shape[axis + 1])
            low, high = (np.take(x, pixels, axis + 1) for pixels in (table.lower, table.upper))
            x = low + (high - low) * _along(table.fraction, axis + 1, x.ndim)
        return (x.astype(np.float32),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        del operands
        x = inputs[0]
        if self.mode == "nearest":
            return (self._nearest(x),)
        total = x.astype(np.int64)
        for axis in range(len(self.size)):
            table = self.integer_table(axis, x.shape[axis + 1])
            high = _along(table.fraction.astype(np.int64), axis + 1, x.ndim)
            total = np.take(total, table.lower, axis + 1) * ((1 << FRACTION_BITS) - high) + (
                np.take(total, table.upper, axis + 1) * high
            )
        bits = FRACTION_BITS * len(self.size)
        magnitude = (np.abs(total) + (1 << (bits - 1))) >> bits
        return ((np.sign(total) * magnitude).astype(x.dtype),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x = operands.inputs[0].type
        if self.mode == "nearest":
            tables = {axis + 1: self.nearest_table(axis, n) for axis, n in enumerate(x.shape[1:-1])}
            return (copy_indexed(x.shape, tables, x.dtype),)
        if x.dtype.bytes > 2 and x.dtype is not DType.FLOAT32:
            raise ValueError(f"linear resizing of {x.dtype.value} would overflow 64 bits")
        table = self.linear_table if x.dtype is DType.FLOAT32 else self.integer_table
        axes = [table(axis, n) for axis, n in enumerate(x.shape[1:-1])]
        if len(axes) == 1:
            axes = [LinearTable(np.zeros(1, np.int32), np.zeros(1, axes[0].fraction.dtype)), *axes]
        in_y, in_x = (1, *x.shape[1:-1])[-2:]
        rows, columns = axes
        record: dict[str, Field] = {
            "batch": x.shape[0],
            "channels": x.shape[-1],
            "in_y": in_y,
            "in_x": in_x,
            "out_y": len(rows.lower),
            "out_x": len(columns.lower),
            "lower_y": Constant(rows.lower),
            "lower_x": Constant(columns.lower),
            "fraction_y": Constant(rows.fraction),
            "fraction_x": Constant(columns.fraction),
        }
        macro = "linear" if x.dtype is DType.FLOAT32 else "linear_int"
        variant = (("type", x.dtype.c), ("wide", x.dtype.bytes > 1))
        kernel = Kernel("resize", macro, f"resize_linear_{x.dtype.short}", variant)
        pixels = first_pixels([rows.lower, columns.lower], (in_y, in_x), x.shape[0])
        return (Call(kernel, record, overlaps=(by_lanes(pixels, x, lanes=1),)),)


def _along(values: Array, axis: int, rank: int) -> Array:
    """A vector shaped to broadcast along one axis."""
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])

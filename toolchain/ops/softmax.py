"""Softmax and LogSoftmax along one axis, on int8 and int16 with the fixed-point arithmetic of TensorFlow Lite."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain import fixedpoint
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.ops import integer, integer16
from toolchain.ops.base import Call, Constant, Field, Kernel, Op, Operands, QuantRule, only_quant, operator
from toolchain.ops.overlap import IN_PLACE, Overlap

if TYPE_CHECKING:
    from toolchain.config import Rounding
    from toolchain.ir.graph import Tensor

LONGEST = {DType.INT8: 4095, DType.INT16: 65535}
"""Elements whose exponentials the sum holds: Q12.19 of int8, Q16.15 of int16."""
SUM_HELPERS = ("leading_zeros", "doubling_high_mul", "rounding_shift", "saturating_shift", "one_over_one_plus")


@dataclass(frozen=True, slots=True)
class Exponentials:
    """What int8 softmax needs of the input's scale.

    `table[d]` is exp(-d * scale * beta) in Q0.31 for a distance d from the maximum; longer distances count as 0.
    `multiplier` and `shift` take a distance to Q5.26.
    """

    table: Array
    multiplier: int
    shift: int

    def of(self, distance: Array) -> Array:
        """The exponentials of -distance, int64."""
        padded = np.zeros(256, np.int64)
        padded[: self.table.size] = self.table
        return padded[distance]


def exponentials(scale: float, beta: float) -> Exponentials:
    """Return the table for an input scale (TensorFlow Lite PreprocessSoftmaxScaling, CalculateInputRadius)."""
    multiplier, shift = fixedpoint.quantize_multiplier(min(beta * scale * 2.0**26, 2.0**31 - 1))
    radius = math.floor(31.0 * 2.0 ** (26 - shift))
    distance = np.arange(min(radius, 255) + 1)
    values = integer.exp_on_negative(fixedpoint.requantize(-distance, multiplier, shift))
    return Exponentials(values.astype(np.int32), multiplier, shift)


def exponential_table() -> Array:
    """For `integer16.interpolate`: exp on [-10, 0] in Q0.15."""
    return integer16.interpolation_table(np.exp, (10.0 / 65535, integer16.HIGHEST), (2.0 / 65535, 0), np.float64)


def reciprocal_table() -> Array:
    """For `integer16.interpolate`: 1 / (1 + x) on [0, 1] in Q0.15."""
    x, y = (1.0 / 65535, integer16.LOWEST), (2.0 / 65535, 0)
    return integer16.interpolation_table(lambda x: 1.0 / (1.0 + x), x, y, np.float64)


def int16_scaling(scale: float, beta: float) -> tuple[int, int]:
    """(multiplier, shift) that take a distance from the maximum to steps of 10 / 65535."""
    return fixedpoint.quantize_multiplier(float(np.float32(scale) * np.float32(beta)) / (10.0 / 65535.0))


def _softmax_int16(x: Array, axis: int, scaling: tuple[int, int], rounding: Rounding) -> Array:
    """TensorFlow Lite's SoftmaxInt16."""
    wide = np.asarray(x, np.int64)
    steps = fixedpoint.requantize(wide - wide.max(axis=axis, keepdims=True), *scaling, rounding) + integer16.HIGHEST
    powers = integer16.interpolate(np.clip(steps, integer16.LOWEST, integer16.HIGHEST), exponential_table())
    total = powers.sum(axis=axis, keepdims=True)
    zeros = integer.leading_zeros(total)
    fraction = (((total << (zeros - 1)) + (1 << 13)) >> 14) - (1 << 15) - (1 << 16)
    inverse = integer16.interpolate(np.clip(fraction, integer16.LOWEST, integer16.HIGHEST), reciprocal_table())
    shift = 31 - zeros
    y = (powers * inverse + (np.int64(1) << (shift - 1))) >> shift
    return np.asarray(np.clip(y, 0, integer16.HIGHEST), np.int16)


def _split(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Elements before, along and after the axis."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _checked_axis(x: TensorType, axis: int) -> TensorType:
    if not -len(x.shape) <= axis < len(x.shape):
        raise ValueError(f"axis {axis} of shape {x.shape}")
    return TensorType(x.shape, x.dtype)


def _too_long(inputs: tuple[Tensor, ...], axis: int, dtype: DType) -> str | None:
    size = inputs[0].type.shape[axis]
    return f"{size} elements along the axis, expected at most {LONGEST[dtype]}" if size > LONGEST[dtype] else None


def _call(macro: str, operands: Operands, axis: int, fields: dict[str, Field], helpers: tuple[str, ...]) -> Call:
    x = operands.inputs[0].type
    outer, size, inner = _split(x.shape, axis % len(x.shape))
    record: dict[str, Field] = {"outer": outer, "size": size, **({"inner": inner} if inner > 1 else {}), **fields}
    symbol = f"{macro}{'_strided' if inner > 1 else ''}_{x.dtype.short}"
    variant = (("strided", inner > 1), ("beta", "beta" in fields))
    kernel = Kernel("softmax", f"{macro}_{x.dtype.short}", symbol, variant, helpers)
    return Call(kernel, record, overlaps=(IN_PLACE if inner > 1 else Overlap(0),))


@operator("softmax")
@dataclass(frozen=True, slots=True)
class Softmax(Op):
    """exp(beta * x) / sum of exp(beta * x) along the axis."""

    axis: int
    beta: float = 1.0
    quant_rule = QuantRule.FIXED

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The input's shape."""
        return (_checked_axis(inputs[0], self.axis),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """In float32, the maximum subtracted first."""
        x = np.asarray(inputs[0], np.float32)
        powers = np.exp((x - x.max(axis=self.axis, keepdims=True)) * np.float32(self.beta))
        return (powers / powers.sum(axis=self.axis, keepdims=True),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """TensorFlow Lite's reference kernel."""
        x = np.asarray(inputs[0], np.int64)
        scale, _ = only_quant(operands.inputs[0])
        if operands.inputs[0].type.dtype is DType.INT16:
            return (_softmax_int16(x, self.axis, int16_scaling(scale, self.beta), operands.rounding),)
        powers = exponentials(scale, self.beta).of(x.max(axis=self.axis, keepdims=True) - x)
        total = fixedpoint.rounding_divide_by_pot(powers, 12).sum(axis=self.axis, keepdims=True)
        inverse, bits = integer.reciprocal(total, 12)
        exponent = bits + 23
        inverse = np.where(exponent > 31, 0, inverse)
        product = fixedpoint.saturating_rounding_doubling_high_mul(inverse, powers)
        y = fixedpoint.rounding_divide_by_pot(product, np.minimum(exponent, 31)) - 128
        return (np.clip(y, -128, 127).astype(np.int8),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """On int8 the exponentials come from a table made at export."""
        if operands.inputs[0].type.quant is None:
            fields: dict[str, Field] = {} if self.beta == 1.0 else {"beta": self.beta}
            macro = "softmax" if self.beta == 1.0 else "softmax_beta"
            return (_call(macro, operands, self.axis, fields, ()),)
        scale, _ = only_quant(operands.inputs[0])
        if operands.inputs[0].type.dtype is DType.INT16:
            multiplier, shift = int16_scaling(scale, self.beta)
            fields = {"multiplier": multiplier, "shift": shift}
            fields |= {"powers": Constant(exponential_table()), "inverses": Constant(reciprocal_table())}
            helpers = ("clamp_s16", "requantize", "interpolate_s16", "leading_zeros")
            return (_call("softmax", operands, self.axis, fields, helpers),)
        table = exponentials(scale, self.beta).table
        fields = {"longest": table.size - 1, "table": Constant(table)}
        return (_call("softmax", operands, self.axis, fields, (*SUM_HELPERS, "reciprocal")),)

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        """The axis must not be too long."""
        del outputs
        return _too_long(inputs, self.axis, dtype)

    def fixed_quant(self, dtype: DType) -> QuantParams:
        """Steps of 1/256 from 0; on int16 of 1/32768."""
        return QuantParams((1 / 32768,), 0) if dtype is DType.INT16 else QuantParams((1 / 256,), -128)


@operator("softmax")
@dataclass(frozen=True, slots=True)
class LogSoftmax(Op):
    """x - log(sum of exp(x)) along the axis."""

    axis: int
    quant_rule = QuantRule.FIXED

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The input's shape."""
        return (_checked_axis(inputs[0], self.axis),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """In float32, the maximum subtracted first."""
        x = np.asarray(inputs[0], np.float32)
        below = x - x.max(axis=self.axis, keepdims=True)
        return (below - np.log(np.exp(below).sum(axis=self.axis, keepdims=True)),)

    def spec(self, operands: Operands) -> tuple[Exponentials, tuple[int, int]]:
        """The exponentials, and (multiplier, shift) from Q5.26 back to the input's steps."""
        values = exponentials(only_quant(operands.inputs[0])[0], 1.0)
        return values, fixedpoint.quantize_multiplier(2.0 ** (31 - values.shift) / values.multiplier)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """TensorFlow Lite's reference kernel."""
        values, back = self.spec(operands)
        x = np.asarray(inputs[0], np.int64)
        distance = x.max(axis=self.axis, keepdims=True) - x
        total = fixedpoint.rounding_divide_by_pot(values.of(distance), 12).sum(axis=self.axis, keepdims=True)
        log_total = integer.log_q12_to_q5(total)
        lowest = fixedpoint.requantize(log_total - (1 << 31), *back, operands.rounding)
        lowest = np.maximum(lowest, -values.table.size)
        scaled = fixedpoint.requantize(-distance, values.multiplier, values.shift, operands.rounding)
        y = np.clip(fixedpoint.rounding_divide_by_pot(scaled - log_total, 22) + 127, -128, 127)
        return (np.where(-distance > lowest, y, -128).astype(np.int8),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """On int8 the exponentials come from a table made at export."""
        if operands.inputs[0].type.quant is None:
            return (_call("log_softmax", operands, self.axis, {}, ()),)
        values, back = self.spec(operands)
        fields: dict[str, Field] = {
            "longest": values.table.size - 1,
            "table": Constant(values.table),
            "multiplier": values.multiplier,
            "shift": values.shift,
            "back_multiplier": back[0],
            "back_shift": back[1],
        }
        helpers = ("clamp_s8", "requantize", *SUM_HELPERS, "log_q12_to_q5")
        return (_call("log_softmax", operands, self.axis, fields, helpers),)

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        """The axis must not be too long; there is no form on int16."""
        del outputs
        return "no form on int16" if dtype is DType.INT16 else _too_long(inputs, self.axis, dtype)

    def fixed_quant(self, dtype: DType) -> QuantParams:
        """Steps of 1/16 down from 0."""
        del dtype
        return QuantParams((16 / 256,), 127)

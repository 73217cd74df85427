"""Functions of one int16 input as TensorFlow Lite computes them: tables between whose entries it interpolates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.fixedpoint import round_half_away, rounding_divide_by_pot

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolchain.ir.types import Array

STEPS = 512
"""Intervals of an interpolated table."""
LOWEST, HIGHEST = -(1 << 15), (1 << 15) - 1
_ONE_MORE = (
    4, 8, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29, 30, 31, 33, 34, 35, 37, 39, 40, 41, 43, 44, 45, 46, 49,
    50, 54, 62, 63, 64, 66, 82, 86, 93, 100, 103, 112, 116, 135, 255,
)  # fmt: skip
"""Where TensorFlow Lite's table of sigmoids exceeds the nearest integers by one."""


def interpolation_table(
    function: Callable[[Any], Any],
    x: tuple[float, int],
    y: tuple[float, int],
    real: type[np.floating[Any]] = np.float32,
) -> Array:
    """513 int16 entries from which `interpolate` gives `function` (TensorFlow Lite LUTPopulate for int16).

    `x` and `y` are (scale, zero point); every step is rounded to `real`. An entry is moved by half the error that
    interpolation would make in the middle of the interval after it. NaN gives the lowest integer.
    """
    scale_x, scale_y = real(x[0]), real(y[0])
    low_x, high_x = (scale_x * real(edge - x[1]) for edge in (LOWEST, HIGHEST))
    low_y, high_y = (scale_y * real(edge - y[1]) for edge in (LOWEST, HIGHEST))
    step = (high_x - low_x) / real(STEPS)
    inverse = real(1 << 16) / (high_y - low_y)

    def steps(places: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.asarray(function(places)).astype(real) * inverse)

    index = np.arange(STEPS).astype(real)
    start = low_x + index * step
    here = round_half_away(steps(start)).astype(real)
    after = steps(low_x + (index + real(1)) * step)
    middle = round_half_away(steps(start + step / real(2))).astype(real)
    straight = round_half_away((after + here) / real(2)).astype(real)
    entries = here - round_half_away((straight - middle) / real(2)).astype(real)
    entries = np.append(entries, round_half_away(steps(np.asarray([high_x]))))
    finite = np.nan_to_num(entries, nan=LOWEST, posinf=HIGHEST, neginf=LOWEST)
    return np.asarray(np.clip(finite, LOWEST, HIGHEST), np.int16)


def interpolate(q: Array, table: Array) -> Array:
    """The function behind a table at int16 integers, int64 (TensorFlow Lite LUTLookup; slopes are int16 as there)."""
    wide = np.asarray(q, np.int64)
    index = (STEPS >> 1) + (wide >> 7)
    base = table[index].astype(np.int64)
    slope = (table[index + 1].astype(np.int64) - base).astype(np.int16).astype(np.int64)
    return np.asarray((base + ((slope * (wide & 127) + 64) >> 7)).astype(np.int16), np.int64)


def sigmoid_table() -> Array:
    """sigmoid(i / 24) in 0.16, i = 0 .. 255."""
    values = np.array([math.floor(65536 / (1 + math.exp(-i / 24)) + 0.5) for i in range(256)])
    values[list(_ONE_MORE)] += 1
    return np.asarray(values, np.uint16)


def sigmoid_scaling(kind: str, scale: float) -> tuple[int, int]:
    """(multiplier, shift) that take an input to steps of 1 / (3 * 4096), for "sigmoid" or "tanh".

    Powers of two that need no more than a shift are taken exactly; other scales by a multiplier of 15 bits, cut off.
    """
    fraction, exponent = math.frexp(scale)
    left = 12 + exponent - 1
    if fraction == 0.5 and left in ((0,) if kind == "sigmoid" else (0, 1)):
        return 3 << left, 0
    multiplier, shift = scale * 4096.0 * 3.0, 0
    while multiplier <= HIGHEST / 2.0 and shift <= 30:
        multiplier, shift = 2 * multiplier, shift + 1
    return int(multiplier), shift


def sigmoid_or_tanh(kind: str, q: Array, scale: float) -> Array:
    """Sigmoid in steps of 1 / 32768 or tanh, int64 (TensorFlow Lite's Logistic and Tanh on int16)."""
    multiplier, shift = sigmoid_scaling(kind, scale)
    half = (1 << shift) >> 1
    x = (np.asarray(q, np.int64) * multiplier + half) >> shift
    bits = 9 if kind == "sigmoid" else 8
    table = sigmoid_table().astype(np.int64)
    index = np.minimum(np.abs(x) >> bits, 254)
    rest = np.abs(x) & ((1 << bits) - 1)
    between = (table[index] << bits) + rest * (table[index + 1] - table[index])
    if kind == "sigmoid":
        between = np.where(np.abs(x) >> bits >= 255, HIGHEST << 10, between)
        return np.where(x >= 0, between + (1 << 9), (1 << 25) - between + (1 << 9) - 1) >> 10
    between = np.where(np.abs(x) >> bits >= 255, 0xFFFF << 8, between) - (1 << 23)
    return np.where(x >= 0, between + (1 << 7), -between + (1 << 7) - 1) >> 8


_FACTORS = (25520, 19875, 12055, 4435, 600, 11, 0)
"""exp(-1/4), exp(-1/2), exp(-1), ..., exp(-16) in Q0.15."""


def mul_q15(a: Any, b: Any) -> Array:
    """The product of two numbers in Q0.15, int64 (gemmlowp SaturatingRoundingDoublingHighMul on int16)."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.asarray(np.minimum((product + (1 << 14)) >> 15, HIGHEST))


def _saturated(value: Any) -> Array:
    return np.asarray(np.clip(value, LOWEST, HIGHEST))


def exp_q15(value: Array, bits: int) -> Array:
    """Return exp(value) in Q0.15 for value <= 0 in int16 with `bits` integer bits (exp_on_negative_values)."""
    quarter = 1 << (13 - bits)
    part = (value & (quarter - 1)) - quarter
    x = part * (1 << bits) + (1 << 12)
    x2 = mul_q15(x, x)
    tail = mul_q15(rounding_divide_by_pot(mul_q15(x2, x2), 2) + mul_q15(x2, x), 10923) + x2
    result = _saturated(28918 + mul_q15(28918, x + rounding_divide_by_pot(tail, 1)))
    for index, factor in enumerate(_FACTORS[: bits + 2]):
        result = np.where((part - value) & (quarter << index), mul_q15(result, factor), result)
    if bits > 5:
        result = np.where(value < -(1 << (20 - bits)), 0, result)
    return np.where(value == 0, HIGHEST, result)


def _two_over_one_plus(fraction: Array) -> Array:
    """2 / (1 + fraction) in Q2.13 for a fraction of Q0.15: three Newton-Raphson steps."""
    half = (fraction + (1 << 15)) >> 1
    x = 23130 + mul_q15(half, -15420)
    for _ in range(3):
        x = x + _saturated(mul_q15(x, (1 << 13) - mul_q15(half, x)) * 4)
    return np.asarray(x)


def sigmoid_q15(value: Any) -> Array:
    """1 / (1 + exp(-value)) in Q0.15 for int16 with 3 integer bits (gemmlowp logistic)."""
    wide = np.asarray(value, np.int64)
    above = _saturated(_two_over_one_plus(exp_q15(-np.abs(wide), 3)) * 2)
    return np.where(wide == 0, 1 << 14, np.where(wide > 0, above, HIGHEST - above))


def tanh_q15(value: Any, bits: int) -> Array:
    """Return tanh(value) in Q0.15 for int16 with `bits` integer bits (gemmlowp tanh)."""
    wide = np.asarray(value, np.int64)
    size = _saturated((_two_over_one_plus(exp_q15(-np.abs(wide), bits + 1)) - (1 << 13)) * 4)
    return np.asarray(np.sign(wide) * size)

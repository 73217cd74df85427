"""Fixed-point functions of gemmlowp and TensorFlow Lite on int32, in numpy: exp, reciprocal, logarithm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.fixedpoint import (
    quantize_multiplier,
    requantize,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
)

if TYPE_CHECKING:
    from toolchain.config import Rounding
    from toolchain.ir.types import Array

_EXP_STEPS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""exp(-1/4), exp(-1/2), exp(-1), ..., exp(-16) in Q0.31."""
_mul = saturating_rounding_doubling_high_mul


def leading_zeros(value: Any) -> Array:
    """Zero bits above the highest set bit of values in 0 .. 2^32 - 1."""
    _, exponent = np.frexp(np.asarray(value, np.float64))
    return 32 - exponent.astype(np.int64)


def saturating_shift(value: Any, exponent: Any) -> Array:
    """Return value * 2^exponent saturated to int32; negative exponents round, halves away from zero."""
    value, exponent = np.asarray(value, np.int64), np.asarray(exponent, np.int64)
    left = np.clip(value << np.maximum(exponent, 0), -(1 << 31), (1 << 31) - 1)
    return np.where(exponent >= 0, left, rounding_divide_by_pot(value, np.maximum(-exponent, 0)))


def one_over_one_plus(fraction: Any) -> Array:
    """1 / (1 + fraction) in Q0.31 (gemmlowp one_over_one_plus_x_for_x_in_0_1)."""
    half_denominator = (np.asarray(fraction, np.int64) + (1 << 31)) // 2
    x = 1515870810 + _mul(half_denominator, -1010580540)
    for _ in range(3):
        rest = (1 << 29) - _mul(half_denominator, x)
        x = x + saturating_shift(_mul(x, rest), 2)
    return saturating_shift(x, 1)


def reciprocal(value: Any, integer_bits: int) -> tuple[Array, Array]:
    """(1 / value normalised to (1/2, 1] in Q0.31, bits value lies above one) (TensorFlow Lite GetReciprocal)."""
    zeros = leading_zeros(value)
    fraction = (np.asarray(value, np.int64) << zeros) - (1 << 31)
    return one_over_one_plus(fraction), integer_bits - zeros


def exp_on_negative(value: Any) -> Array:
    """Return exp(value) in Q0.31 for value <= 0 in Q5.26 (gemmlowp exp_on_negative_values)."""
    value = np.asarray(value, np.int64)
    quarter = 1 << 24
    part = (value & (quarter - 1)) - quarter
    result = _exp_in_last_quarter(saturating_shift(part, 5))
    remainder = part - value
    for bit, factor in enumerate(_EXP_STEPS, start=24):
        result = np.where(remainder & (1 << bit), _mul(result, factor), result)
    return np.where(value == 0, (1 << 31) - 1, result)


def _exp_in_last_quarter(value: Array) -> Array:
    """Return exp on [-1/4, 0) in Q0.31: Taylor around -1/8."""
    x = value + (1 << 28)
    x2 = _mul(x, x)
    x3, x4 = _mul(x2, x), _mul(x2, x2)
    tail = rounding_divide_by_pot(_mul(rounding_divide_by_pot(x4, 2) + x3, 715827883) + x2, 1)
    return 1895147668 + _mul(1895147668, x + tail)


def log_q12_to_q5(value: Any) -> Array:
    """Natural logarithm of value >= 1 in Q12.19, result in Q5.26 (log_x_for_x_greater_than_or_equal_to_1)."""
    value = np.asarray(value, np.int64)
    root_half, root_root_half, quarter = 1518500250, 1805811301, 1 << 23
    zeros = leading_zeros(value)
    r_a = saturating_shift(_mul(saturating_shift(value, zeros - 1), root_half), 1)
    power_a = saturating_shift(12 - zeros, 25) + quarter
    zeros_b = leading_zeros(_mul(value, root_half)) - 1
    r_b = saturating_shift(value, zeros_b)
    power_b = saturating_shift(12 - zeros_b, 25) - quarter
    r, power = np.minimum(r_a, r_b), np.maximum(power_a, power_b)
    total = r + root_root_half
    p = (total + 1) // 2
    q = 2 * (r - root_root_half)
    square = _mul(q, q)
    numerator = _mul(q, r) + _mul(_mul(q, square), 117049297)
    denominator = _mul(p, 1057819769 + q + _mul(127690142, square)) + _mul(638450708, q)
    scaled = rounding_divide_by_pot(numerator, 6)
    return saturating_shift(_mul(power, 1488522236) + _mul(scaled, one_over_one_plus(denominator)), 1)


def inverse_root(q: Array, scale: float, out_scale: float, rounding: Rounding) -> Array:
    """Steps of 1 / sqrt(x) for q = x / scale (TensorFlow Lite's Rsqrt on int8); the largest at 0, NaN below it."""
    bits = 20
    root = np.float32(np.sqrt(np.float32(scale))) * np.float32(out_scale)
    multiplier, shift = quantize_multiplier(1.0 / float(root))
    mantissa, exponent = _inverse_root(np.maximum(q, 1))
    fine = requantize(np.ones_like(q), mantissa, exponent + bits, rounding)
    steps = requantize(fine, multiplier, shift - bits, rounding).astype(np.float64)
    return np.where(q > 0, steps, np.where(q == 0, 2.0**30, np.nan))


def _inverse_root(value: Array) -> tuple[Array, Array]:
    """(mantissa in Q0.31, exponent) of 1 / sqrt(value), value < 2^29 (GetInvSqrtQuantizedMultiplierExp)."""
    pairs = (leading_zeros(value) - 1) // 2 - 1
    whole = (value << (2 * pairs)) >> 1
    half = rounding_divide_by_pot(whole, 1)
    x: Array = np.full_like(value, 1 << 28)
    for _ in range(5):
        cube = saturating_shift(_mul(_mul(x, x), x), 6)
        x = saturating_shift(_mul(np.full_like(x, 3 << 27), x) - _mul(half, cube), 3)
    mantissa, exponent = _mul(x, 1518500250), pairs - 11
    mantissa = np.where(exponent > 0, mantissa << np.maximum(exponent, 0), mantissa)
    one = value <= 1
    return np.where(one, (1 << 31) - 1, mantissa), np.where(one, 0, np.minimum(exponent, 0))


def hard_swish(q: Array, scale: float, out_scale: float) -> Array | None:
    """Steps of x * relu6(x + 3) / 6 for q = x / scale (TensorFlow Lite's HardSwish on 16 bits).

    None where its output multiplier exceeds 1, for which that kernel is not defined.
    """
    fine = np.float32(scale) * np.float32(1 / 128)
    factor, shift = _half_multiplier(fine / np.float32(out_scale))
    gate_factor, gate_shift = _half_multiplier(fine / np.float32(3 / 32768))
    if shift > 0:
        return None
    x = np.asarray(q, np.int64) << 7
    gate = _mul16(_saturated16(x << max(gate_shift - 1, 0)), gate_factor)
    gate = _saturated16(gate << 1) if gate_shift > 0 else rounding_divide_by_pot(gate, -gate_shift)
    gate = (gate + (1 << 15)) >> 1
    product = gate * _mul16(x, factor)
    high = np.sign(product) * (np.abs(product) >> 15)
    return rounding_divide_by_pot(high, -shift)


def _half_multiplier(real: np.float32) -> tuple[int, int]:
    """`quantize_multiplier` with a multiplier of 16 bits."""
    multiplier, shift = quantize_multiplier(float(real))
    return min((multiplier + (1 << 15)) >> 16, (1 << 15) - 1), shift


def _saturated16(value: Array) -> Array:
    return np.clip(value, -(1 << 15), (1 << 15) - 1)


def _mul16(a: Array, b: int) -> Array:
    """SQRDMULH on int16, halves away from zero."""
    product = a * b
    return np.asarray(np.sign(product) * ((np.abs(product) + (1 << 14)) >> 15))

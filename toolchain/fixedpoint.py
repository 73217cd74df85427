"""The integer arithmetic that numpy, portable C and SIMD C share to the bit.

Every function works on numpy arrays and plain ints alike. `shift` follows TensorFlow Lite: positive
shifts left before the multiplication, negative shifts right after it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.config import Rounding

IntArray = NDArray[np.integer[Any]]


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Return (multiplier, shift) with real ~ multiplier / 2^31 * 2^shift, multiplier in [2^30, 2^31).

    As TensorFlow Lite's QuantizeMultiplier: frexp, round half away from zero, carry; 0 below 2^-32.
    """
    if real < 0 or not math.isfinite(real):
        raise ValueError(f"a multiplier must be finite and not negative, got {real}")
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * 2.0**31 + 0.5)
    if multiplier == 1 << 31:
        multiplier //= 2
        shift += 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        return (1 << 31) - 1, 30
    return multiplier, shift


def quantize_multipliers(reals: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`quantize_multiplier` for each element: two int32 arrays of the same shape."""
    pairs = [quantize_multiplier(float(real)) for real in reals.ravel()]
    multipliers = np.array([m for m, _ in pairs], np.int32).reshape(reals.shape)
    shifts = np.array([s for _, s in pairs], np.int32).reshape(reals.shape)
    return multipliers, shifts


def wrap32(value: Any) -> IntArray:
    """Keep the low 32 bits as a signed number, held in int64."""
    return np.asarray(value, np.int64).astype(np.int32).astype(np.int64)


def saturating_rounding_doubling_high_mul(a: Any, b: Any) -> IntArray:
    """SQRDMULH on int32 for any signs: round(a * b / 2^31), halves away from zero, saturated (gemmlowp)."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.minimum(np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31)), (1 << 31) - 1)


def rounding_divide_by_pot(value: Any, exponent: Any) -> IntArray:
    """Divide by 2^exponent, halves away from zero (gemmlowp RoundingDivideByPOT)."""
    wide = np.asarray(value, np.int64)
    mask = (np.int64(1) << np.asarray(exponent, np.int64)) - 1
    threshold = (mask >> 1) + (wide < 0)
    return np.asarray((wide >> np.asarray(exponent, np.int64)) + ((wide & mask) > threshold))


def requantize(value: Any, multiplier: Any, shift: Any, rounding: Rounding = Rounding.TFLM) -> IntArray:
    """Return int32 `value` times multiplier * 2^(shift - 31), rounded as the policy says, held in int64."""
    wide = np.asarray(value, np.int64)
    shift = np.asarray(shift, np.int64)
    if rounding is Rounding.SINGLE:
        total = 31 - shift
        return np.asarray((wide * np.asarray(multiplier, np.int64) + (np.int64(1) << (total - 1))) >> total)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    return rounding_divide_by_pot(saturating_rounding_doubling_high_mul(wrap32(wide << left), multiplier), right)


def reduced_multiplier(multiplier: Any, shift: Any) -> tuple[IntArray, IntArray]:
    """(multiplier of 16 bits, bits to shift right) of `requantize_wide`; the shift must be 14 or less."""
    wide = np.asarray(multiplier, np.int64)
    return np.where(wide < 0x7FFF0000, (wide + (1 << 15)) >> 16, 0x7FFF), 15 - np.asarray(shift, np.int64)


def saturate32(value: Any) -> IntArray:
    """The nearest int32, held in int64."""
    return np.clip(np.asarray(value, np.int64), -(1 << 31), (1 << 31) - 1)


def requantize_wide(value: Any, multiplier: Any, shift: Any) -> IntArray:
    """The int64-accumulator form of 16-bit activations: a 16-bit multiplier, one rounding (TensorFlow Lite).

    |value| < 2^47. Where the result leaves int32, it saturates.
    """
    reduced, total = reduced_multiplier(multiplier, shift)
    return saturate32((np.asarray(value, np.int64) * reduced + (np.int64(1) << (total - 1))) >> total)


def requantize_once(value: Any, multiplier: Any, shift: Any) -> IntArray:
    """Return int64 `value` times multiplier * 2^(shift - 31) with all 31 bits of the multiplier, rounded once.

    |value| < 2^47 and shift <= 14. The product is formed in two halves. Saturates to int32.
    """
    wide, factor = np.asarray(value, np.int64), np.asarray(multiplier, np.int64)
    total = 31 - np.asarray(shift, np.int64)
    low = ((wide & 0xFFFF) * factor) >> 16
    return saturate32(((wide >> 16) * factor + low + (np.int64(1) << (total - 17))) >> (total - 16))


def round_half_away(value: Any) -> NDArray[np.float64]:
    """C's round(): halves away from zero."""
    real = np.asarray(value, np.float64)
    return np.copysign(np.floor(np.abs(real) + 0.5), real)


def quantize(real: Any, scale: float, zero_point: int, low: int, high: int) -> NDArray[np.int32]:
    """Return the integers nearest to `real` (float32) on the affine grid, saturated to [low, high]; NaN gives low.

    The division is done in float32, as the generated C does it.
    """
    scaled = np.asarray(real, np.float32) / np.float32(scale)
    steps = round_half_away(np.clip(scaled, -(2.0**30), 2.0**30)) + zero_point
    return np.where(np.isnan(steps), low, np.clip(steps, low, high)).astype(np.int32)


def dequantize(value: Any, scale: float, zero_point: int) -> NDArray[np.float32]:
    """Return scale * (value - zero_point) in float32."""
    return np.asarray((np.asarray(value, np.int32) - np.int32(zero_point)).astype(np.float32) * np.float32(scale))

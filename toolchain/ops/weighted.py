"""Sums of two int8 operands as one weighted sum, where that gives the same bits for every pair of operands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.ir.types import Array, DType

SHIFT = 18
"""Fraction bits of the sum: what its instruction shifts by."""
FACTOR_BITS = SHIFT + 8
"""Fraction bits of the factors: their products with 256 times an operand lose 16."""
NUDGES = (0.0, *(sign * 2.0**-bits for bits in range(18, 9, -1) for sign in (1, -1)))
"""What factors are enlarged by until all pairs agree: halves go away from zero, or where a scale's rounding takes
them."""


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """y = saturated((constant + (a_factor a >> 8) + (b_factor b >> 8)) >> SHIFT)."""

    a_factor: int
    b_factor: int
    constant: int


def weighted_sum(table: Array, a: float, b: float) -> WeightedSum | None:
    """Return the sum a x0 + b x1 that equals `table`, or None when no factors near a and b do.

    `table` has the int8 outputs, saturated at the ends of int8, of all pairs of operands, both from -128 up.
    """
    factors = (tuple(round(x * (1 + nudge) * 2.0**FACTOR_BITS) for x in (a, b)) for nudge in NUDGES)
    if max(abs(a), abs(b)) * 2 >= 1 << (31 - FACTOR_BITS):
        return None
    found = (_fitting(table.astype(np.int64), *each) for each in factors)
    return next((each for each in found if each is not None), None)


def _fitting(table: Array, a_factor: int, b_factor: int) -> WeightedSum | None:
    """The sum with these factors and whatever constant: each output that is not saturated bounds it on both sides."""
    operand = np.arange(-128, 128)
    sums = (a_factor * operand >> 8)[:, None] + (b_factor * operand >> 8)
    low, high = DType.INT8.limits
    above, below = table > low, table < high
    least = int(((table << SHIFT) - sums)[above].max(initial=-(1 << 40)))
    most = int(((table + 1 << SHIFT) - sums)[below].min(initial=1 << 40)) - 1
    constant = least if least > -(1 << 40) else most
    largest = abs(constant) + int(np.abs(sums).max())
    return WeightedSum(a_factor, b_factor, constant) if least <= most and largest < 1 << 31 else None

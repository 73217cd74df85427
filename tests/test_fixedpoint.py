"""The arithmetic against exact rationals."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.config import Rounding
from toolchain.fixedpoint import (
    dequantize,
    quantize,
    quantize_multiplier,
    requantize,
    requantize_once,
    requantize_wide,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
)

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT32 = st.integers(INT32_MIN, INT32_MAX)
MULTIPLIER = st.integers(2**30, 2**31 - 1)


def half_away(value: Fraction) -> int:
    return int(math.copysign(math.floor(abs(value) + Fraction(1, 2)), value)) if value else 0


@given(st.floats(2.0**-30, 2.0**29, allow_nan=False))
def test_multiplier_is_the_nearest_31_bit_fraction(real: float) -> None:
    multiplier, shift = quantize_multiplier(real)
    assert 2**30 <= multiplier < 2**31
    assert abs(Fraction(multiplier) * Fraction(2) ** (shift - 31) - Fraction(real)) <= Fraction(2) ** (shift - 32)


@pytest.mark.parametrize(
    ("real", "expected"), [(0.0, (0, 0)), (1.0, (2**30, 1)), (0.5, (2**30, 0)), (2.0**-40, (0, 0))]
)
def test_multiplier_at_the_edges(real: float, expected: tuple[int, int]) -> None:
    assert quantize_multiplier(real) == expected


@pytest.mark.parametrize("real", [-1.0, math.inf, math.nan])
def test_multiplier_refuses_what_is_no_ratio(real: float) -> None:
    with pytest.raises(ValueError, match="multiplier"):
        quantize_multiplier(real)


@given(INT32, MULTIPLIER)
def test_high_mul_is_one_floor_for_positive_multipliers(a: int, m: int) -> None:
    assert int(saturating_rounding_doubling_high_mul(a, m)) == (a * m + 2**30) >> 31


def test_high_mul_saturates_its_only_overflow() -> None:
    assert int(saturating_rounding_doubling_high_mul(-(2**31), -(2**31))) == 2**31 - 1


@given(INT32, st.integers(1, 31))
def test_divide_by_pot_rounds_half_away_and_has_the_closed_form(h: int, s: int) -> None:
    result = int(rounding_divide_by_pot(h, s))
    assert result == half_away(Fraction(h, 2**s))
    assert result == (h + (h >> 31) + (1 << (s - 1))) >> s


@given(INT32, MULTIPLIER, st.integers(1, 31))
def test_double_rounding_collapses_to_one_floor(a: int, m: int, s: int) -> None:
    collapsed = (a * m + 2**30 + 2 ** (30 + s) - (2**31 if a < 0 else 0)) >> (31 + s)
    twice = int(requantize(a, m, -s, Rounding.TFLM))
    srdhm = (a * m + 2**30) >> 31
    assert twice == half_away(Fraction(srdhm, 2**s))
    if srdhm < 0 or a >= 0:
        assert twice == collapsed


@given(INT32, MULTIPLIER, st.integers(-31, 0))
def test_single_rounding_is_the_nearest_integer(a: int, m: int, shift: int) -> None:
    exact = Fraction(a * m) * Fraction(2) ** (shift - 31)
    assert int(requantize(a, m, shift, Rounding.SINGLE)) == math.floor(exact + Fraction(1, 2))


@given(st.integers(-(2**47), 2**47 - 1), MULTIPLIER, st.integers(-14, 0))
def test_wide_requantization_stays_within_half_a_step_of_its_16_bit_multiplier(a: int, m: int, shift: int) -> None:
    reduced = (m + (1 << 15)) >> 16 if m < 0x7FFF0000 else 0x7FFF
    exact = Fraction(a * reduced) * Fraction(2) ** (shift - 15)
    nearest = min(max(exact, INT32_MIN), INT32_MAX)
    assert abs(int(requantize_wide(a, m, shift)) - nearest) <= Fraction(1, 2)


@given(st.integers(-(2**46), 2**46), st.integers(2**30, 2**31 - 1), st.integers(-31, 14))
def test_one_rounding_keeps_all_bits_of_the_multiplier(a: int, m: int, shift: int) -> None:
    exact = math.floor(Fraction(a * m) * Fraction(2) ** (shift - 31) + Fraction(1, 2))
    assert int(requantize_once(a, m, shift)) == min(max(exact, INT32_MIN), INT32_MAX)


@given(st.integers(-128, 127), st.floats(2.0**-20, 2.0**10), st.integers(-128, 127))
def test_quantize_inverts_dequantize(q: int, scale: float, zero_point: int) -> None:
    scale = float(np.float32(scale))
    assert int(quantize(dequantize(q, scale, zero_point), scale, zero_point, -128, 127)) == q


def test_quantize_saturates_and_takes_nan_for_the_lowest() -> None:
    real = np.array([np.inf, -np.inf, 1e30, -1e30, np.nan, 0.5, -0.5], np.float32)
    assert quantize(real, 1.0, 0, -128, 127).tolist() == [127, -128, 127, -128, -128, 1, -1]

"""Operators on int16: the C against numpy to the bit, and numpy near the real function."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.ops.batch import Case, check
from toolchain.config import Rounding
from toolchain.errors import InputError
from toolchain.ir.types import DType, QuantParams
from toolchain.ops.conv import Conv, ConvTranspose
from toolchain.ops.dense import Dense
from toolchain.ops.elementwise import Binary, PRelu, Quantize, Unary
from toolchain.ops.softmax import LogSoftmax, Softmax
from toolchain.ops.unary import JUMPS, KINDS, STEEP

if TYPE_CHECKING:
    from pathlib import Path

PARAMETERS = {"leaky": (0.1, 0.0), "elu": (1.3, 0.0), "selu": (1.67326, 1.0507), "celu": (0.7, 0.0)}
PARAMETERS |= {"hard_sigmoid": (0.2, 0.5), "clip": (-0.5, 1.5)}
SMOOTH = sorted(KINDS.keys() - STEEP - JUMPS - {"not", "identity"})
X, Y = QuantParams((6 / 32768,)), QuantParams((5 / 32768,))
GRID = QuantParams((1.0,))


def operator(kind: str) -> Unary:
    return Unary(kind, *PARAMETERS.get(kind, (0.0, 0.0)))


def curve(kind: str) -> Case:
    """The whole range of the input, on a grid that holds what the function gives there."""
    x = np.arange(-32768, 32768, 37).astype(np.int16)
    with np.errstate(all="ignore"):
        real = operator(kind).reference(x * X.scale[0])[0]
    y = operator(kind).fixed_quant(DType.INT16) if kind in {"sigmoid", "tanh"} else None
    return Case(operator(kind), (x,), (X, y or QuantParams((float(np.float32(np.abs(real).max() / 32767)),))))


@pytest.mark.parametrize("kind", SMOOTH)
def test_a_function_is_near_the_real_one(kind: str) -> None:
    case = curve(kind)
    real = np.asarray(case.op.reference(case.inputs[0] * X.scale[0])[0], np.float64)
    assert case.quant[1] is not None
    error = case.expected * case.quant[1].scale[0] - real
    assert 10 * np.log10(np.mean(real**2) / np.mean(error**2)) > 55


def cases(rng: np.random.Generator, rounding: Rounding) -> list[Case]:
    def int16(*shape: int) -> np.ndarray:
        return rng.integers(-32768, 32768, shape).astype(np.int16)

    found = [Case(curve(kind).op, curve(kind).inputs, curve(kind).quant, rounding=rounding) for kind in SMOOTH]
    product = QuantParams((36 / 32768,))
    found += [
        Case(Binary(kind), (int16(3, 5), int16(3, 5)), (X, Y, product), rounding=rounding)
        for kind in ("add", "sub", "mul", "div", "min", "max")
    ]
    found.append(Case(PRelu(), (int16(4, 7), int16(7)), (X, Y, product), rounding=rounding))
    eight = QuantParams((0.05,), -7)
    found += [
        Case(Quantize(), (rng.integers(-128, 128, 40).astype(np.int8),), (eight, X), DType.INT16, rounding),
        Case(Quantize(), (int16(40),), (X, eight), DType.INT8, rounding),
        Case(Softmax(1), (int16(3, 6, 2),), (X, QuantParams((1 / 32768,))), rounding=rounding),
    ]
    return found


@pytest.mark.parametrize("rounding", list(Rounding))
def test_c_equals_numpy(rounding: Rounding, rng: np.random.Generator, tmp_path: Path) -> None:
    check(cases(rng, rounding), tmp_path)


DECADES = QuantParams((0.0, 1.0), 0, 0)
DEPTHWISE = Conv((1, 1), (1, 1), ((0, 1), (0, 0)), 600)
UP = ConvTranspose((2, 1), (1, 1), ((0, 0), (0, 0)), (0, 0))


def quant(scales: QuantParams, count: int) -> tuple[QuantParams | None, ...]:
    """Over three decades in place of DECADES."""
    if scales is DECADES:
        scales = QuantParams(tuple(float(s) for s in np.float32(10.0 ** np.linspace(-3, 0, count))), 0, 0)
    return X, scales, None, GRID


def facts(rounding: Rounding) -> tuple[DType, Rounding, tuple[int, int]]:
    return DType.INT16, rounding, (1, 2)


def layer(op: Conv | Dense, weight: np.ndarray, bias: np.ndarray, x: np.ndarray, rounding: Rounding) -> Case:
    return Case(op, (x, weight, bias), quant(DECADES, len(weight)), *facts(rounding))


@pytest.mark.parametrize("rounding", list(Rounding))
def test_layers_saturate_where_their_sums_leave_32_bits(rounding: Rounding, tmp_path: Path) -> None:
    weight, x = np.full((3, 600), 127, np.int8), np.full((2, 600), 32767, np.int16)
    pixels, kernels = x.reshape(1, 2, 1, 600), weight.reshape(3, 1, 1, 600).repeat(2, 1)
    conv = Conv((1, 1), (1, 1), ((0, 1), (0, 0)))
    found = []
    for dtype in (np.int32, np.int64):
        bias = np.array([-5, 0, 2**30], dtype)
        found.append(layer(Dense(), weight, bias, x[:1], rounding))
        found.append(layer(Dense((0.0, 6000.0)), weight, bias, x, rounding))
        found.append(layer(conv, kernels, bias, pixels, rounding))
        depths = np.full((600, 2, 1, 1), 127, np.int8)
        for scales in (DECADES, QuantParams((0.1,))):
            channels = Case(DEPTHWISE, (pixels, depths, bias.repeat(200)), quant(scales, 600), *facts(rounding))
            up = Case(UP, (pixels, kernels, bias), quant(scales, 3), *facts(rounding))
            found += [channels, up]
    narrow, wide = (case.expected.tolist() for case in found if isinstance(case.op, Conv) and case.op.groups == 1)
    assert narrow != wide
    check(found, tmp_path)


def test_sums_beyond_the_64_bit_products_are_refused() -> None:
    weight, bias = np.ones((1, 1), np.int8), np.array([1 << 47], np.int64)
    with pytest.raises(InputError, match="may not fit 48 bits"):
        layer(Dense(), weight, bias, np.ones((1, 1), np.int16), Rounding.TFLM).expected  # noqa: B018


def test_what_has_no_form_says_so() -> None:
    for kind in STEEP | JUMPS:
        assert Unary(kind).has_integer_form((), (), DType.INT8) is None
        assert "too steep" in str(Unary(kind).has_integer_form((), (), DType.INT16))
    assert Binary("squared_difference").has_integer_form((), (), DType.INT16)
    assert LogSoftmax(0).has_integer_form((), (), DType.INT16)

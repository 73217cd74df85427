"""Softmax: numpy against PyTorch and TensorFlow Lite's reference kernels, the C against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.ops.batch import Case, check
from tests.ops.reference_kernels import run
from toolchain import fixedpoint
from toolchain.config import Rounding
from toolchain.ir.types import DType, QuantParams
from toolchain.ops import integer
from toolchain.ops.softmax import LogSoftmax, Softmax

SOFT, LOG = Softmax(-1).fixed_quant(DType.INT8), LogSoftmax(-1).fixed_quant(DType.INT8)
SCALES = (0.004, 0.05, 0.2, 1.1, 20.0)


def cases_int8(rng, rounding=Rounding.TFLM):
    cases = []
    for scale in SCALES:
        for shape, axis in (((3, 10), 1), ((1, 1), 1), ((2, 5, 3), 1), ((1, 1000), 1)):
            x = rng.integers(-128, 128, shape).astype(np.int8)
            for op, out in ((Softmax(axis), SOFT), (LogSoftmax(axis), LOG)):
                cases.append(Case(op, (x,), (QuantParams((scale,), 7), out), rounding=rounding))
    equal = np.full((1, 2000), 5, np.int8)
    cases += [
        Case(
            Softmax(1),
            (equal,),
            (
                QuantParams(
                    (0.1,),
                ),
                SOFT,
            ),
            rounding=rounding,
        )
    ]
    return cases


def test_softmax_c(rng, tmp_path):
    x = (rng.normal(size=(2, 7, 5)) * 20).astype(np.float32)
    cases = [Case(op, (x,)) for axis in (1, 2, -1) for op in (Softmax(axis), LogSoftmax(axis), Softmax(axis, 0.3))]
    check(cases, tmp_path)


@pytest.mark.parametrize("rounding", list(Rounding))
def test_softmax_int8_c(rounding, rng, tmp_path):
    check(cases_int8(rng, rounding), tmp_path)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_is_what_torch_computes(axis, rng):
    x = (rng.normal(size=(4, 7, 5)) * 10).astype(np.float32)
    t = torch.from_numpy(x)
    np.testing.assert_allclose(Softmax(axis).reference(x)[0], torch.softmax(t, axis).numpy(), atol=1e-6)
    np.testing.assert_allclose(LogSoftmax(axis).reference(x)[0], torch.log_softmax(t, axis).numpy(), atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_int8_is_near_to_float(scale, rng):
    x = rng.integers(-128, 128, (50, 6)).astype(np.int8)
    for op, out in ((Softmax(1), SOFT), (LogSoftmax(1), LOG)):
        y = Case(op, (x,), (QuantParams((scale,), 7), out)).expected
        (real,) = op.reference(fixedpoint.dequantize(x, scale, 7))
        exact = fixedpoint.quantize(real, out.scale[0], out.zero_point, -128, 127)
        assert np.abs(y.astype(int) - exact).max() <= 1


def test_logarithm():
    x = np.linspace(1, 4000, 500)
    y = integer.log_q12_to_q5((x * 2**19).astype(np.int64)) / 2**26
    np.testing.assert_allclose(y, np.log(x), atol=1e-4)


def test_long_axes_stay_in_float():
    case = Case(Softmax(1), (np.zeros((1, 5000), np.float32),))
    assert "4095" in (case.op.has_integer_form(case.operands.inputs, case.operands.outputs) or "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["softmax", "log_softmax"])
def test_int8_is_what_the_reference_kernels_compute(kind, rng):
    result = run(kind, [(40, 12)], rng)
    op = Softmax(1) if kind == "softmax" else LogSoftmax(1)
    np.testing.assert_array_equal(Case(op, result.inputs, result.quant).expected, result.output)

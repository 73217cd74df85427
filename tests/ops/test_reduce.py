"""Reductions: numpy against PyTorch and TensorFlow Lite's reference kernels, the C against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.ops.batch import Case, check
from tests.ops.reference_kernels import run
from toolchain import fixedpoint
from toolchain.config import Rounding
from toolchain.errors import InputError
from toolchain.ir.graph import Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.ops.base import Operands
from toolchain.ops.binary import Binary
from toolchain.ops.reduce import ArgReduce, Reduce, merged

X, Y = QuantParams((0.05,), -11), QuantParams((0.03,), 4)
AXES = [(0,), (1,), (3,), (1, 2), (0, 2), (1, 3), (2, 3), (0, 1, 2, 3)]
SHAPE = (2, 3, 4, 19)


def test_reduce_c(rng, tmp_path):
    x = rng.normal(size=SHAPE).astype(np.float32)
    cases = [
        Case(Reduce(kind, axes, keepdims=kind != "max"), (x,))
        for kind in ("mean", "sum", "max", "min")
        for axes in AXES
    ]
    cases += [Case(Reduce("prod", axes, keepdims=False), (x,)) for axes in AXES[:3]]
    check([*cases, Case(Reduce("mean", (1,), keepdims=True), (x[:, :1],))], tmp_path)


@pytest.mark.parametrize("rounding", list(Rounding))
def test_reduce_int8_c(rounding, rng, tmp_path):
    x = rng.integers(-128, 128, SHAPE).astype(np.int8)
    cases = [
        Case(Reduce(kind, axes, keepdims=False), (x,), (X, out), rounding=rounding)
        for axes in AXES
        for kind, out in (("mean", X), ("mean", Y), ("sum", QuantParams((0.7,), -3)), ("max", X), ("min", X))
    ]
    check(cases, tmp_path)


def test_arg_reduce_c(rng, tmp_path):
    x = rng.integers(-3, 3, SHAPE).astype(np.int8)
    ops = [
        ArgReduce(kind, axis, keepdims=last, dtype=dtype, last=last)
        for kind in ("max", "min")
        for axis in (1, 3, -1)
        for last in (False, True)
        for dtype in (DType.INT32, DType.INT64)
    ]
    check([Case(op, (v,), (q,)) for op in ops for v, q in ((x, X), (x.astype(np.float32), None))], tmp_path)


@pytest.mark.parametrize("axes", AXES)
def test_reduce_is_what_torch_computes(axes, rng):
    x = rng.normal(size=SHAPE).astype(np.float32)
    t = torch.from_numpy(x)
    for kind, function in (("mean", torch.mean), ("sum", torch.sum), ("max", torch.amax), ("min", torch.amin)):
        (y,) = Reduce(kind, axes, keepdims=True).reference(x)
        np.testing.assert_allclose(y, function(t, axes, keepdim=True).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "scale"), [("mean", 0.03), ("sum", 0.3)])
def test_int8_is_near_to_float(kind, scale, rng):
    """For sums this is the only oracle: the desktop reference kernel answers -1 to every int8 sum."""
    x = rng.integers(-128, 128, SHAPE).astype(np.int8)
    op = Reduce(kind, (1, 2), keepdims=False)
    (real,) = op.reference(fixedpoint.dequantize(x, 0.05, -11))
    y = Case(op, (x,), (X, QuantParams((scale,), 4))).expected
    assert np.abs(np.clip(real / scale + 4, -128, 127) - y).max() <= 1.0


def test_too_many_elements_are_refused():
    types = (TensorType((1, 1 << 24), DType.INT8, X), TensorType((1,), DType.INT8, Y))
    operands = Operands((Tensor("big", types[0]),), (Tensor("y", types[1]),))
    with pytest.raises(InputError, match="big: 16777216 elements"):
        Reduce("mean", (1,), keepdims=False).lower(operands)


def test_neighbouring_axes_merge():
    assert merged((2, 1, 3, 4), (1, 2)) == [(2, False), (3, True), (4, False)]
    with pytest.raises(ValueError, match="axes"):
        Reduce("mean", (4,), keepdims=False).infer(TensorType((1, 2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mean", "mean_inner"])
def test_int8_is_what_the_reference_kernels_compute(kind, rng):
    result = run(kind, [(1, 5, 7, 6)], rng)
    axes = (3,) if kind == "mean_inner" else (1, 2)
    op = Reduce(kind.removesuffix("_inner"), axes, keepdims=False)
    np.testing.assert_array_equal(Case(op, result.inputs, result.quant).expected, result.output)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["add", "sub", "mul", "add_relu", "squared_difference", "max", "min"])
@pytest.mark.parametrize("shapes", [[(1, 4, 5, 6), (1, 4, 5, 6)], [(1, 4, 5, 6), (1, 1, 1, 6)]])
def test_binary_int8_is_what_the_reference_kernels_compute(kind, shapes, rng):
    result = run(kind, shapes, rng)
    op = Binary(kind.removesuffix("_relu"), (0.0, float("inf")) if kind == "add_relu" else None)
    np.testing.assert_array_equal(Case(op, result.inputs, result.quant).expected, result.output)

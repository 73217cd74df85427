"""Elementwise operators: numpy against PyTorch and the definition, the C against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as nn

from tests.ops.batch import Case, check
from toolchain import fixedpoint
from toolchain.config import Rounding
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.ops import binary, unary
from toolchain.ops.broadcast import walk
from toolchain.ops.elementwise import Binary, Cast, Dequantize, PRelu, Quantize, Select, Unary
from toolchain.ops.overlap import Overlap

PARAMETERS = {
    "leaky": (0.1, 0.0),
    "elu": (1.3, 0.0),
    "selu": (1.67326, 1.0507),
    "celu": (0.7, 0.0),
    "hard_sigmoid": (0.2, 0.5),
    "clip": (-0.5, 1.5),
    "thresholded_relu": (0.4, 0.0),
}
POSITIVE = {"log", "sqrt", "rsqrt", "reciprocal"}
UNIT = {"asin", "acos", "atanh"}
REAL_KINDS = [kind for kind in unary.KINDS if kind != "not"]
TORCH = {
    "relu": nn.relu, "relu6": nn.relu6, "leaky": lambda x: nn.leaky_relu(x, 0.1), "elu": lambda x: nn.elu(x, 1.3),
    "selu": nn.selu, "celu": lambda x: nn.celu(x, 0.7), "sigmoid": torch.sigmoid, "hard_swish": nn.hardswish,
    "silu": nn.silu, "gelu": nn.gelu, "gelu_tanh": lambda x: nn.gelu(x, approximate="tanh"), "mish": nn.mish,
    "softplus": nn.softplus, "erf": torch.erf, "softsign": nn.softsign, "round": torch.round, "rsqrt": torch.rsqrt,
    "hard_sigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1), "clip": lambda x: torch.clamp(x, -0.5, 1.5),
    "thresholded_relu": lambda x: nn.threshold(x, 0.4, 0.0),
}  # fmt: skip
SHAPES = {
    "same": ((2, 3, 4), (2, 3, 4)),
    "scalar": ((2, 3, 4), ()),
    "scalar_first": ((1,), (2, 3, 4)),
    "row": ((2, 3, 4), (4,)),
    "row_first": ((3, 4), (2, 3, 4)),
    "column": ((2, 3, 4), (2, 1, 1)),
    "crossed": ((2, 1, 4, 1), (1, 3, 1, 5)),
    "six": ((2, 1, 2, 1, 2, 3), (1, 3, 1, 2, 1, 3)),
    "one": ((1, 1), (1,)),
}
ARITHMETIC = ["add", "sub", "mul", "div", "min", "max", "squared_difference"]
COMPARISONS = ["equal", "not_equal", "less", "greater", "less_equal", "greater_equal"]
X, Y = QuantParams((0.047,), -5), QuantParams((0.021,), 13)


def operator(kind):
    return Unary(kind, *PARAMETERS.get(kind, (0.0, 0.0)))


def values(kind, rng):
    x = rng.uniform(-6, 6, 300).astype(np.float32)
    if kind in UNIT:
        return x / 6.1
    if kind == "acosh":
        return np.abs(x) + 1
    return np.abs(x) + 0.2 if kind in POSITIVE else x


def integers(rng, shape):
    return rng.integers(-128, 128, shape).astype(np.int8)


def test_unary_c(rng, tmp_path):
    cases = [Case(operator(kind), (values(kind, rng),)) for kind in REAL_KINDS]
    check([*cases, Case(Unary("not"), (rng.random(9) < 0.5,))], tmp_path)


@pytest.mark.parametrize("kind", TORCH)
def test_unary_is_what_torch_computes(kind, rng):
    x = values(kind, rng)
    (y,) = operator(kind).reference(x)
    np.testing.assert_allclose(y, TORCH[kind](torch.from_numpy(x)).numpy(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("rounding", list(Rounding))
def test_tables(rounding, tmp_path):
    x = np.arange(-128, 128, dtype=np.int8)
    cases = [Case(operator(kind), (x,), (X, Y), rounding=rounding) for kind in REAL_KINDS]
    check(cases, tmp_path)
    for case in cases:
        with np.errstate(all="ignore"):
            (real,) = case.op.reference(fixedpoint.dequantize(x, 0.047, -5).astype(np.float64))
        near = np.clip(np.clip(np.nan_to_num(real, nan=-1e9), -1e9, 1e9) / 0.021 + 13, -128, 127)
        assert np.abs(near - case.expected).max() < 1.01, case.op


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_binary_c(compiler, rng, tmp_path):
    cases = []
    for kind in [*ARITHMETIC, *COMPARISONS, "pow", "mod"]:
        for shapes in SHAPES.values():
            a, b = (rng.uniform(0.3, 3, shape).astype(np.float32) for shape in shapes)
            sign = -1 if kind == "mod" else 1
            cases.append(Case(Binary(kind), (a, sign * b)))
    cases += [Case(Binary(kind, (0.1, 0.7)), (c.inputs)) for kind, c in zip(ARITHMETIC, cases, strict=False)]
    cases += [Case(Binary(kind), tuple(rng.random((2, 9)) < 0.5)) for kind in ("and", "or", "xor")]
    whole = (np.array([7, -7, 6, -1], np.int32), np.array([3, 3, -4, -5], np.int32))
    cases += [Case(Binary(kind), whole) for kind in ("add", "mul", "div", "mod", "less")]
    check(cases, tmp_path, compiler)


@pytest.mark.parametrize("rounding", list(Rounding))
def test_binary_int8_c(rounding, rng, tmp_path):
    cases = []
    for kind in ARITHMETIC:
        for shapes in SHAPES.values():
            pair = tuple(integers(rng, shape) for shape in shapes)
            cases.append(Case(Binary(kind), pair, (X, Y, QuantParams((0.061,), -7)), rounding=rounding))
            cases.append(Case(Binary(kind, (0.0, 6.0)), pair, (X, Y, QuantParams((0.61,), -70)), rounding=rounding))
        a, b = (v.ravel().astype(np.int8) for v in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128, 3)))
        cases.append(Case(Binary(kind), (a, b), (X, Y, QuantParams((0.1,), 3)), rounding=rounding))
    cases += [
        Case(Binary(kind), (integers(rng, 99), integers(rng, 99)), (X, X), rounding=rounding) for kind in COMPARISONS
    ]
    check(cases, tmp_path)


@pytest.mark.parametrize("kind", ARITHMETIC)
def test_binary_int8_is_near_to_float(kind, rng):
    a, b = integers(rng, 500), np.abs(integers(rng, 500) // 2) + 20
    b = b.astype(np.int8)
    case = Case(Binary(kind), (a, b), (X, X, QuantParams((0.2,), 3)))
    (real,) = case.op.reference(*(fixedpoint.dequantize(v, 0.047, -5) for v in (a, b)))
    assert np.abs(np.clip(real / 0.2 + 3, -128, 127) - case.expected).max() <= 1.0


def test_commuted_operands_read_the_larger_first():
    types = [TensorType((4,)), TensorType((3, 4))]
    case = Case(Binary("add"), tuple(np.zeros(t.shape, np.float32) for t in types))
    (call,) = case.op.lower(case.operands)
    assert (call.kernel.symbol, call.reads, call.overlaps) == ("add_row_f32", (1, 0), (Overlap(0),))


def test_walk_merges_axes():
    assert walk([(1, 4, 4, 8), (4, 1, 8)], (1, 4, 4, 8)).dims == (4, 4, 8)
    assert walk([(2, 3), ()], (2, 3)).layout == "scalar"


def test_leading_batch_may_grow(rng):
    a, b = rng.normal(size=(7, 3)).astype(np.float32), rng.normal(size=(1, 3)).astype(np.float32)
    assert Binary("add").reference(a, b)[0].shape == (7, 3)


def test_reasons():
    case = Case(Binary("pow"), (np.zeros(3, np.float32),) * 2)
    assert Binary("pow").has_integer_form(case.operands.inputs, case.operands.outputs) == "no integer form of pow"
    assert Binary("less").has_integer_form(case.operands.inputs, case.operands.outputs) is not None
    assert Binary("add").has_integer_form(case.operands.inputs, case.operands.outputs) is None


def test_prelu_and_select(rng, tmp_path):
    x, slope = rng.normal(size=(1, 3, 4, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    condition = rng.random((3, 1, 5)) < 0.5
    mask = rng.random((3, 5)) < 0.5
    q, q_slope, other = integers(rng, (2, 3, 5)), integers(rng, 5), integers(rng, (2, 3, 5))
    cases = [Case(PRelu(), (x, s)) for s in (slope, slope[:1], rng.normal(size=(3, 1, 1)).astype(np.float32))]
    cases += [Case(PRelu(), (q, q_slope), (X, QuantParams((0.01,), 4), Y))]
    cases += [Case(Select(), (condition, x, slope)), Case(Select(), (x > 0, x, -x))]
    cases += [Case(Select(), (mask, q, other), (None, X, X, X))]
    check(cases, tmp_path)
    expected = nn.prelu(torch.from_numpy(np.moveaxis(x, -1, 1).copy()), torch.from_numpy(slope))
    np.testing.assert_allclose(PRelu().reference(x, slope)[0], np.moveaxis(expected.numpy(), 1, -1), rtol=1e-6)


def test_conversions(rng, tmp_path):
    ties = np.array([0.5, -0.5, 1.5, -2.5, 0.49999997, 1e30, -1e30, np.nan, np.inf, -np.inf], np.float32)
    x = np.concatenate([ties, rng.normal(size=40).astype(np.float32) * 50])
    grid = QuantParams((1.0,), 3)
    q = np.arange(-128, 128, dtype=np.int8)
    cases = [Case(Quantize(), (v,), (None, p), DType.INT8) for v, p in ((x, grid), (x, QuantParams((0.3,), -100)))]
    cases += [Case(Quantize(), (x,), (None, grid), dtype) for dtype in (DType.UINT8, DType.INT16)]
    cases += [Case(Quantize(), (q,), (X, Y)), Case(Quantize(), (q.view(np.uint8),), (X, Y), DType.INT8)]
    cases += [Case(Dequantize(), (q,), (X,))]
    sources = [x, q, q != 3, q.astype(np.int32), q.astype(np.int64)]
    targets = [DType.FLOAT32, DType.INT32, DType.INT64, DType.BOOL, DType.INT8]
    cases += [Case(Cast(to), (v,)) for v in sources for to in targets if to.numpy != v.dtype]
    check(cases, tmp_path)
    assert cases[0].expected[:10].tolist() == [4, 2, 5, 0, 3, 127, -128, -128, 127, -128]


def test_every_kind_is_tested():
    assert set(ARITHMETIC + COMPARISONS + ["pow", "mod", "and", "or", "xor"]) == set(binary.KINDS)

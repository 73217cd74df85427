"""Convolutions and fully connected layers: numpy against PyTorch and integer arithmetic, the C against numpy."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import torch

from tests.ops import batch, native
from toolchain.config import Rounding
from toolchain.emit.emitter import helper_functions, tidy
from toolchain.emit.environment import c_type, environment, table
from toolchain.errors import InputError
from toolchain.fixedpoint import quantize, quantize_multiplier, requantize
from toolchain.ir.graph import Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.ops.base import Body, Constant, Operands
from toolchain.ops.conv import Conv, ConvTranspose
from toolchain.ops.dense import Dense, MatMul

INFINITY = float("inf")
RELU = (0.0, INFINITY)
PADS = ((1, 2), (2, 0))

# operator, input shape, weight shape
CASES = {
    "plain": (Conv((1, 1), (1, 1), ((0, 0), (0, 0))), (2, 7, 6, 3), (5, 3, 3, 3)),
    "padded": (Conv((2, 1), (1, 1), PADS), (2, 7, 6, 3), (5, 3, 3, 3)),
    "relu6": (Conv((1, 1), (1, 1), PADS, 1, (0.0, 6.0)), (1, 6, 5, 4), (3, 3, 2, 4)),
    "wide_padding": (Conv((1, 1), (1, 1), ((4, 4), (5, 5))), (1, 3, 2, 2), (3, 3, 3, 2)),
    "dilated": (Conv((1, 2), (2, 3), PADS), (2, 9, 9, 3), (4, 3, 2, 3)),
    "grouped": (Conv((2, 2), (1, 1), PADS, 2), (2, 8, 7, 6), (4, 3, 3, 3)),
    "pointwise": (Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, RELU), (2, 3, 4, 9), (7, 1, 1, 9)),
    "depthwise": (Conv((1, 2), (1, 1), PADS, 19, (0.0, 6.0)), (2, 6, 7, 19), (19, 3, 3, 1)),
    "depthwise_unpadded": (Conv((1, 1), (2, 2), ((0, 0), (0, 0)), 5), (1, 8, 7, 5), (5, 3, 3, 1)),
    "multiplier": (Conv((2, 1), (1, 1), PADS, 3), (2, 6, 7, 3), (6, 3, 3, 1)),
    "one_axis": (Conv((2,), (1,), ((2, 1),)), (2, 9, 3), (4, 3, 3)),
    "one_axis_depthwise": (Conv((1,), (2,), ((2, 0),), 4), (2, 9, 4), (4, 3, 1)),
    "transposed": (ConvTranspose((2, 3), (1, 1), ((1, 1), (0, 1)), (1, 0)), (2, 4, 3, 3), (5, 3, 3, 3)),
    "transposed_dilated": (
        ConvTranspose((2, 1), (2, 2), ((2, 2), (1, 1)), (1, 0), 2, RELU),
        (1, 4, 3, 6),
        (4, 3, 2, 3),
    ),
    "transposed_one_axis": (ConvTranspose((2,), (1,), ((0, 0),), (1,)), (2, 5, 3), (2, 3, 3)),
    "dense": (Dense(RELU), (3, 37), (11, 37)),
    "dense_rows": (Dense(), (2, 3, 8), (5, 8)),
}
each_case = pytest.mark.parametrize("case", CASES)


def first(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def oracle(op, x, weight, bias):
    """What PyTorch computes, before the clamp; float64 where the arrays are."""
    bias = torch.from_numpy(bias)
    if isinstance(op, Dense):
        return torch.nn.functional.linear(torch.from_numpy(x), torch.from_numpy(weight), bias).numpy()
    rank = len(op.stride)
    if isinstance(op, Conv):
        flat = [side for pair in reversed(op.padding) for side in pair]
        run = torch.nn.functional.conv2d if rank == 2 else torch.nn.functional.conv1d
        y = run(torch.nn.functional.pad(first(x), flat), first(weight), bias, op.stride, 0, op.dilation, op.groups)
        return np.moveaxis(y.numpy(), 1, -1)
    o, g = len(weight), op.groups
    kernel = np.concatenate([np.swapaxes(part, 0, -1) for part in np.split(weight, g)])
    run = torch.nn.functional.conv_transpose2d if rank == 2 else torch.nn.functional.conv_transpose1d
    y = np.moveaxis(run(first(x), first(kernel), bias, op.stride, 0, 0, g, op.dilation).numpy(), 1, -1)
    assert y.shape[-1] == o
    grown = np.pad(y, ((0, 0), *((0, extra) for extra in op.output_padding), (0, 0)))
    for axis, extra in enumerate(op.output_padding, 1):
        tail = [slice(None)] * y.ndim
        tail[axis] = slice(grown.shape[axis] - extra, None)
        grown[tuple(tail)] = bias.numpy()
    crops = (slice(b, n - e) for (b, e), n in zip(op.padding, grown.shape[1:-1], strict=True))
    return grown[(slice(None), *crops)]


def float_operands(op, x, weight, bias):
    constants = [Tensor(n, TensorType(a.shape), a) for n, a in (("weight", weight), ("bias", bias))]
    inputs = (Tensor("x", TensorType(x.shape)), *constants)
    return Operands(inputs, (Tensor("y", *op.infer(*(t.type for t in inputs))),))


def int_operands(op, x, weight, bias, *, per_channel=False, rounding=Rounding.TFLM, zero=-17):
    count = len(weight)
    scales = tuple(float(s) for s in np.float32(np.linspace(0.004, 0.03, count) if per_channel else [0.011]))
    wide = tuple(0.05 * s for s in scales)
    quant = QuantParams(scales, 0, 0 if per_channel else None)
    x_type = TensorType(x.shape, DType.INT8, QuantParams((float(np.float32(0.05)),), zero))
    inputs = (
        Tensor("x", x_type),
        Tensor("w", TensorType(weight.shape, DType(weight.dtype.name), quant), weight),
        Tensor("b", TensorType(bias.shape, DType.INT32, QuantParams(wide, 0, 0 if per_channel else None)), bias),
    )
    shape = op.infer(*(t.type for t in inputs))[0].shape
    return Operands(
        inputs, (Tensor("y", TensorType(shape, DType.INT8, QuantParams((float(np.float32(0.21)),), 9))),), rounding
    )


def float_arrays(case, rng):
    op, shape, weights = CASES[case]
    return op, *(rng.normal(size=s).astype(np.float32) for s in (shape, weights, weights[:1]))


def int_arrays(case, rng):
    op, shape, weights = CASES[case]
    x, weight = rng.integers(-128, 128, shape), rng.integers(-127, 128, weights)
    return op, x.astype(np.int8), weight.astype(np.int8), rng.integers(-9000, 9000, weights[:1]).astype(np.int32)


def run_c(operands, op, inputs, folder, compiler="gcc"):
    """The output as the compiled C computes it from arrays standing in the program; and the kernel's text."""
    (call,) = op.lower(operands)
    record = native.portable(call)
    kernel, env = call.kernel, environment()
    wanted = helper_functions(kernel.helpers_of(Body.PORTABLE), operands.rounding).values()
    module = env.get_template(f"ops/{kernel.family}.c.j2").module
    body = tidy(str(getattr(module, kernel.macro)(kernel.symbol, dict(kernel.variant))))
    arrays = {f"x{i}": x for i, x in enumerate(inputs)}
    arrays |= {name: value.data for name, value in record.items() if isinstance(value, Constant)}
    tables = [f"static const {c_type(a)} {n}[{a.size}] = {{\n{table(a)}}};" for n, a in arrays.items()]
    value = env.filters["c_value"]
    fields = [f".{n} = {n if isinstance(v, Constant) else value(v)}" for n, v in record.items()]
    y = operands.outputs[0].type
    scratch = "" if call.scratch is None else ", scratch" if call.scratch else ", NULL"
    main = f"""static uint32_t scratch[{(call.scratch or 0) // 4 + 1}];
static const struct {kernel.symbol} layer = {{{", ".join(fields)}}};
static {y.dtype.c} y[{y.elements}];
int main(void)
{{
    (void)scratch;
    {kernel.symbol}(&layer, {", ".join(f"x{i}" for i in range(len(inputs)))}, y{scratch});
    return fwrite(y, 1, sizeof y, stdout) == sizeof y ? 0 : 1;
}}
"""
    text = "#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n" + "\n".join([*wanted, body, *tables, main])
    (folder / "layer.c").write_text(text)
    subprocess.run([compiler, *native.FLAGS, "-o", folder / "layer", folder / "layer.c"], check=True)
    raw = subprocess.run([folder / "layer"], check=True, capture_output=True).stdout
    return np.frombuffer(raw, y.dtype.numpy).reshape(y.shape), "\n".join([*wanted, body, ""])


def assert_formatted(text):
    assert native.formatted(text) == text


@each_case
def test_float_is_pytorchs(case, rng):
    op, *arrays = float_arrays(case, rng)
    (y,) = op.reference(*arrays)
    expected = oracle(op, *arrays)
    expected = expected if op.clamp is None else np.clip(expected, *op.clamp)
    assert y.dtype == np.float32
    assert y.shape == op.infer(*(TensorType(a.shape) for a in arrays))[0].shape
    np.testing.assert_allclose(y, expected, atol=1e-5)


@each_case
def test_float_c(case, rng, tmp_path):
    op, *arrays = float_arrays(case, rng)
    y, text = run_c(float_operands(op, *arrays), op, arrays[:1], tmp_path)
    (expected,) = op.reference(*arrays)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.ptp(expected))
    assert_formatted(text)


@each_case
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("rounding", list(Rounding))
def test_integers_are_exact(case, per_channel, rounding, rng):
    op, x, weight, bias = int_arrays(case, rng)
    operands = int_operands(op, x, weight, bias, per_channel=per_channel, rounding=rounding)
    (y,) = op.reference_int(operands, x, weight, bias)
    total = oracle(op, x.astype(np.float64) + 17, weight.astype(np.float64), bias.astype(np.float64))
    scale_x, scale_y, dense = operands.inputs[0].type.quant.scale[0], operands.outputs[0].type.quant.scale[0], Dense
    for channel, scale in enumerate(operands.inputs[1].type.quant.scales(len(weight))):
        single = np.float32(scale_x) * np.float32(scale)
        real = float(single) if isinstance(op, dense) and not per_channel else scale_x * scale
        sums = np.round(total[..., channel]).astype(np.int64)
        scaled = requantize(sums, *quantize_multiplier(real / scale_y), rounding) + 9
        limits = [int(quantize(edge, scale_y, 9, -128, 127)) for edge in op.clamp or (-INFINITY, INFINITY)]
        np.testing.assert_array_equal(y[..., channel], np.clip(scaled, *limits))


@each_case
@pytest.mark.parametrize(("per_channel", "rounding"), [(False, Rounding.TFLM), (True, Rounding.SINGLE)])
def test_integer_c(case, per_channel, rounding, rng, tmp_path):
    op, x, weight, bias = int_arrays(case, rng)
    operands = int_operands(op, x, weight, bias, per_channel=per_channel, rounding=rounding)
    y, text = run_c(operands, op, [x], tmp_path)
    np.testing.assert_array_equal(y, op.reference_int(operands, x, weight, bias)[0])
    assert_formatted(text)


def patch_cases(rng):
    """Layers of few inputs, whose outputs may be the lanes of a vector, and of many; odd counts everywhere."""
    sizes = [
        (1, 1, 1),
        (3, 8, 1),
        (2, 8, 16),
        (5, 16, 17),
        (1, 64, 16),
        (3, 65, 3),
        (4, 64, 33),
        (2, 300, 5),
        (7, 20, 31),
    ]
    for number, (pixels, inputs, outputs) in enumerate(sizes):
        for kernel, shape in ((1, (1, 1, pixels, inputs)), (3, (2, 4, pixels, inputs))):
            op = Conv((1, 1 + number % 2), (1, 1), ((1, 1),) * 2 if kernel > 1 else ((0, 0),) * 2)
            x, weight = (rng.integers(-128, 128, s) for s in (shape, (outputs, kernel, kernel, inputs)))
            scales = rng.uniform(0.0005, 0.002, outputs) if number % 3 else [0.001 if number else 1.7]
            quant = (
                QuantParams((1.0,), int(rng.integers(-128, 128))),
                QuantParams(tuple(scales), 0, 0 if len(scales) > 1 else None),
                None,
                QuantParams((1.0,), 3),
            )
            inputs_of = (x.astype(np.int8), weight.astype(np.int8), rng.integers(-9000, 9000, outputs).astype(np.int32))
            yield batch.Case(op, inputs_of, quant, DType.INT8, list(Rounding)[1], constant=(1, 2))


@pytest.mark.parametrize(("compiler", "wide"), [("gcc", True), ("clang", True), ("gcc", False)])
def test_patches_with_and_without_a_vector_unit(compiler, wide, rng, tmp_path):
    batch.check(list(patch_cases(rng)), tmp_path, compiler, wide=wide)


@each_case
@pytest.mark.parametrize(("per_channel", "zero"), [(False, -17), (True, 0)])
def test_weights_of_nine_bits(case, per_channel, zero, rng, tmp_path):
    op, x, weight, bias = int_arrays(case, rng)
    high, low = weight.astype(np.int16), rng.integers(-127, 128, weight.shape).astype(np.int16)
    operands = int_operands(op, x, 2 * high + (low & 1), bias, per_channel=per_channel, zero=zero)
    y, text = run_c(operands, op, [x], tmp_path)
    np.testing.assert_array_equal(y, op.reference_int(operands, x, weight, bias)[0])
    wide = op.lower(operands)[0].kernel
    assert "_wide" in wide.symbol
    assert wide.helpers[-1] == "dot_wide_s8"
    assert_formatted(text)


def test_a_zero_point_of_zero_needs_no_offset(rng, tmp_path):
    op, x, weight, bias = int_arrays("padded", rng)
    operands = int_operands(op, x, weight, bias, zero=0)
    assert op.lower(operands)[0].kernel.symbol == "conv_s8"
    np.testing.assert_array_equal(
        run_c(operands, op, [x], tmp_path, "clang")[0], op.reference_int(operands, x, weight, bias)[0]
    )


@each_case
def test_the_batch_may_be_larger_than_the_graphs(case, rng, monkeypatch):
    op, x, weight, bias = int_arrays(case, rng)
    operands = int_operands(op, x, weight, bias)
    monkeypatch.setattr("toolchain.ops.conv.CHUNK", 3000)
    (once,) = op.reference_int(operands, x, weight, bias)
    (many,) = op.reference_int(operands, np.concatenate([x] * 4), weight, bias)
    np.testing.assert_array_equal(many, np.concatenate([once] * 4))


@pytest.mark.parametrize(("a", "b"), [((4, 5), (5, 3)), ((2, 1, 4, 5), (3, 5, 6)), ((2, 3, 4, 5), (2, 3, 5, 1))])
def test_matmul(a, b, rng, tmp_path):
    left, right = (rng.normal(size=shape).astype(np.float32) for shape in (a, b))
    operands = native.operands_of(MatMul(), [left, right])
    y, text = run_c(operands, MatMul(), [left, right], tmp_path)
    np.testing.assert_allclose(y, np.matmul(left, right), atol=1e-5)
    assert_formatted(text)


def test_matmul_int8(rng, tmp_path):
    left, right = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((2, 1, 4, 5), (3, 5, 6)))
    quant = [QuantParams((0.25,), 3), QuantParams((0.5,), -4), QuantParams((32.0,), 7)]
    operands = native.operands_of(MatMul(), [left, right], quant)
    operands = Operands(operands.inputs, (Tensor("y", TensorType((2, 3, 4, 6), DType.INT8, quant[2])),))
    (y,) = MatMul().reference_int(operands, left, right)
    real = (0.25 * (left.astype(float) - 3)) @ (0.5 * (right.astype(float) + 4))
    assert np.abs(np.clip(real / 32.0 + 7, -128, 127) - y).max() <= 0.5 + 1e-9
    c, text = run_c(operands, MatMul(), [left, right], tmp_path)
    np.testing.assert_array_equal(c, y)
    assert_formatted(text)


@pytest.mark.parametrize("rounding", Rounding, ids=lambda rounding: rounding.value)
def test_matmul_on_dsp(rounding, rng, tmp_path):
    """Four columns at a time: odd counts of inner products and columns, matrices that repeat."""
    shapes = [((4, 5), (5, 6)), ((3, 8), (8, 4)), ((2, 1, 3, 7), (3, 7, 9)), ((2, 1), (1, 5)), ((3, 40), (40, 3))]
    quant = (QuantParams((0.25,), 3), QuantParams((0.5,), -128), QuantParams((32.0,), 7))
    arrays = [tuple(rng.integers(-128, 128, shape).astype(np.int8) for shape in both) for both in shapes]
    cases = [batch.Case(MatMul(), both, quant, DType.INT8, rounding) for both in arrays]
    assert [bool(each.op.lower(each.operands)[0].kernel.dsp_helpers) for each in cases] == [True] * 4 + [False]
    batch.check(cases, tmp_path, body=Body.DSP)


def test_multiply_accumulates():
    def types(*shapes):
        return tuple(TensorType(shape) for shape in shapes)

    for name, expected in {
        "plain": 2 * 5 * 4 * 5 * 27,
        "depthwise": 2 * 7 * 4 * 19 * 9,
        "transposed_one_axis": 2 * 5 * 3 * 3 * 2,
        "dense_rows": 6 * 5 * 8,
    }.items():
        op, shape, weight = CASES[name]
        inputs = types(shape, weight, weight[:1])
        assert op.macs(inputs, op.infer(*inputs)) == expected


def test_impossible_shapes():
    conv = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 2)
    with pytest.raises(ValueError, match="groups=2"):
        conv.infer(TensorType((1, 4, 4, 3)), TensorType((4, 1, 1, 2)), TensorType((4,)))
    with pytest.raises(ValueError, match="does not fit an input"):
        conv.infer(TensorType((1, 2, 2, 4)), TensorType((4, 3, 3, 2)), TensorType((4,)))
    with pytest.raises(ValueError, match="do not fit inputs"):
        Dense().infer(TensorType((1, 4)), TensorType((2, 3)), TensorType((2,)))
    with pytest.raises(ValueError, match="do not multiply"):
        MatMul().infer(TensorType((1, 4)), TensorType((2, 3)))


def test_an_accumulator_that_may_overflow_is_refused():
    weight, x = np.full((1, 70000), 127, np.int8), np.zeros((1, 70000), np.int8)
    operands = int_operands(Dense(), x, weight, np.zeros(1, np.int32))
    with pytest.raises(InputError, match="w: sums"):
        Dense().lower(operands)


def test_computed_weights_have_no_integer_form():
    tensors = tuple(Tensor(name, TensorType((4, 4))) for name in "xwb")
    assert Dense().has_integer_form(tensors, ()) == "w, b computed by the model, not constant"

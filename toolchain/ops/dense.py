"""Fully connected layers and products of two activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from toolchain.errors import InputError
from toolchain.fixedpoint import requantize
from toolchain.ir.graph import Tensor
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Constant, Field, Kernel, Op, Operands, float32, only_quant, operator
from toolchain.ops.linear import (
    Clamp,
    LinearSpec,
    clamped,
    constant,
    constant_reason,
    int8_spec,
    linear_call_parts,
    linear_kernel,
    product_multiplier,
)
from toolchain.ops.overlap import Overlap, in_steps, scaled
from toolchain.ops.pairs import pairs_fields, pairs_reason, settled
from toolchain.ops.patches import patch_call

WIDEST_PRODUCT = 255 * 255
AT_ONCE = 4
"""Outputs that the kernels on int8 compute at a time."""


def dense_call(operands: Operands, clamp: Clamp | None, spec: LinearSpec | None) -> Call:
    """One fully connected layer over the rows of input 0 (a 1x1 convolution is one, too)."""
    weight = constant(operands.inputs[1])
    outputs = len(weight)
    inputs = weight.size // outputs
    x, y = operands.inputs[0].type, operands.outputs[0].type
    rows = x.elements // inputs
    if rows > 1:
        return patch_call(operands, clamp, spec, _row_of_pixels(rows, inputs, outputs), np.arange(rows))
    variant, fields = linear_call_parts(operands, clamp, weight, spec, padded=False)
    at_once = 1 if spec is None else AT_ONCE
    ends = np.minimum(np.arange(at_once, outputs + at_once, at_once), outputs) * y.dtype.bytes
    overlaps = (in_steps(np.zeros_like(ends), ends),)
    record: dict[str, Field] = {"inputs": inputs, "outputs": outputs}
    if spec is None:
        return Call(linear_kernel("dense", "dense", variant, "dot_f32"), record | fields, overlaps=overlaps)
    still = settled(spec)
    if outputs < AT_ONCE or pairs_reason(still):
        kernel = linear_kernel("dense", "dense", variant | {"plain": True}, "products4_s8")
        return Call(kernel, record | fields, overlaps=overlaps)
    kernel = linear_kernel("dense", "dense", variant, "products4_s8", dsp=("pairs_s8", "octet_s8"))
    return Call(kernel, record | pairs_fields(still, fields, AT_ONCE), overlaps=overlaps)


def _row_of_pixels(rows: int, inputs: int, outputs: int) -> dict[str, Field]:
    """The rows as the pixels of a picture of height 1, under a kernel of 1 x 1."""
    sizes = {"batch": 1, "in_y": 1, "in_x": rows, "in_channels": inputs, "out_y": 1, "out_x": rows}
    steps = {"kernel_y": 1, "kernel_x": 1, "stride_y": 1, "stride_x": 1, "dilation_y": 1, "pad_y": 0, "pad_x": 0}
    return {**sizes, "out_channels": outputs, **steps}


@operator("dense")
@dataclass(frozen=True, slots=True)
class Dense(Op):
    """(x[..., inputs], weight[outputs, inputs], bias[outputs]) -> [..., outputs]."""

    clamp: Clamp | None = None

    weight = 1
    bias = 2

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, weight, bias = inputs
        if len(weight.shape) != 2 or not x.shape or x.shape[-1] != weight.shape[1]:
            raise ValueError(f"weights of shape {weight.shape} do not fit inputs of shape {x.shape}")
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"bias of shape {bias.shape}, expected {weight.shape[:1]}")
        return (TensorType((*x.shape[:-1], weight.shape[0])),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x, weight, bias = float32(*inputs)
        return (clamped(x @ weight.T + bias, self.clamp),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        spec = self._spec(operands)
        if spec is None:
            return self.reference(*inputs)
        return (spec.output(spec.centred(inputs[0]) @ spec.weight.astype(spec.exact).T),)

    def _spec(self, operands: Operands) -> LinearSpec | None:
        return int8_spec(operands, self.clamp, single_product=True)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        return (dense_call(operands, self.clamp, self._spec(operands)),)

    def has_integer_form(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> str | None:
        del outputs
        return constant_reason(inputs)

    def macs(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> int:
        return outputs[0].elements * inputs[1].shape[1]


@operator("dense")
@dataclass(frozen=True, slots=True)
class MatMul(Op):
    """(a[..., rows, inner], b[..., inner, columns]) -> [..., rows, columns]; leading axes broadcast."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        a, b = (each.shape for each in inputs)
        if min(len(a), len(b)) < 2 or a[-1] != b[-2]:
            raise ValueError(f"matrices of shapes {a} and {b} do not multiply")
        return (TensorType((*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        a, b = float32(*inputs)
        return (a @ b,)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        if not operands.quantized:
            return self.reference(*inputs)
        a, b = (
            array.astype(np.float64) - only_quant(tensor)[1]
            for array, tensor in zip(inputs, operands.inputs, strict=True)
        )
        y = operands.outputs[0]
        multiplier, shift = product_multiplier(operands.inputs[0], operands.inputs[1], y)
        scaled = requantize((a @ b).astype(np.int64), multiplier, shift, operands.rounding)
        return (np.clip(scaled + only_quant(y)[1], *y.type.dtype.limits).astype(np.int8),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        a, b = (tensor.type.shape for tensor in operands.inputs)
        record, overlaps = _matrices(a, b), _product_overlaps(a, b, operands.outputs[0].type)
        if operands.inputs[0].type.dtype is DType.FLOAT32:
            return (Call(Kernel("dense", "matmul_f32", "matmul_f32"), record, reads=(0, 1), overlaps=overlaps),)
        multiplier, shift = product_multiplier(operands.inputs[0], operands.inputs[1], operands.outputs[0])
        zeros = [only_quant(tensor)[1] for tensor in (*operands.inputs, *operands.outputs)]
        if operands.inputs[0].type.shape[-1] * WIDEST_PRODUCT >= 1 << 31:
            raise InputError(f"{operands.outputs[0].name}: sums of so many products may not fit 32 bits")
        record |= {"multiplier": multiplier, "shift": shift}
        record |= dict(zip(("zero_a", "zero_b", "zero_y"), zeros, strict=True))
        kernel = Kernel("dense", "matmul_s8", "matmul_s8", (), ("requantize", "clamp_s8"))
        return (Call(kernel, record, reads=(0, 1), overlaps=overlaps),)

    def macs(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> int:
        return outputs[0].elements * inputs[0].shape[-1]


def _matrices(a: tuple[int, ...], b: tuple[int, ...]) -> dict[str, Field]:
    """The sizes, and where each pair of matrices starts."""
    batch = np.broadcast_shapes(a[:-2], b[:-2])
    rows, inner, columns = a[-2], a[-1], b[-1]
    return {
        "matrices": math.prod(batch),
        "rows": rows,
        "inner": inner,
        "columns": columns,
        "start_a": Constant(_starts(a, batch)),
        "start_b": Constant(_starts(b, batch)),
    }


def _product_overlaps(a: tuple[int, ...], b: tuple[int, ...], y: TensorType) -> tuple[Overlap, Overlap]:
    """A row of y is written while a row of a and all of b are read."""
    batch, rows = y.shape[:-2], y.shape[-2]
    left = np.repeat(_starts(a, batch), rows) + np.tile(np.arange(rows) * a[-1], math.prod(batch))
    right = np.repeat(_starts(b, batch), rows)
    ends = np.arange(1, left.size + 1) * y.shape[-1] * y.dtype.bytes
    first, second = (in_steps(scaled(lows, y.dtype.bytes), ends, writes_first=True) for lows in (left, right))
    return first, second


def _starts(shape: tuple[int, ...], batch: tuple[int, ...]) -> Array:
    size = shape[-2] * shape[-1]
    starts = np.arange(math.prod(shape[:-2]), dtype=np.int32) * size
    return np.broadcast_to(starts.reshape(shape[:-2]), batch).astype(np.int32).ravel()

"""Fully connected layers and products of two activations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.errors import InputError
from toolchain.fixedpoint import reduced_multiplier, requantize, requantize_wide
from toolchain.ir.graph import Tensor
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops import helium, pairs
from toolchain.ops.base import (
    Call,
    Constant,
    Field,
    Kernel,
    Op,
    Operands,
    Plain,
    fields_of_bodies,
    float32,
    only_quant,
    operator,
)
from toolchain.ops.linear import (
    LARGEST_SHIFT,
    Clamp,
    LinearSpec,
    clamped,
    constant_reason,
    dot_helper,
    integer_spec,
    kernel_spec,
    linear_call_parts,
    linear_kernel,
    product_multiplier,
    rescaling,
    weights_of,
)
from toolchain.ops.overlap import Overlap, by_channel, in_steps, scaled
from toolchain.ops.patches import patch_call

WIDEST_PRODUCT = 255 * 255
AT_ONCE = 4
"""Outputs that the kernels on int8 compute at a time."""


def dense_call(operands: Operands, clamp: Clamp | None, spec: LinearSpec | None) -> Call:
    """One fully connected layer over the rows of input 0 (a 1x1 convolution is one, too)."""
    weight = weights_of(operands, spec)
    outputs = len(weight)
    inputs = weight.size // outputs
    x, y = operands.inputs[0].type, operands.outputs[0].type
    rows = x.elements // inputs
    once = spec is not None and spec.rescale == "requantize_once" and spec.dtype is DType.INT8
    if spec is not None and (spec.wide or (once and rows > 1)):
        return _general_call(operands, clamp, spec, rows)
    if rows > 1:
        return patch_call(operands, clamp, spec, _row_of_pixels(rows, inputs, outputs), np.arange(rows))
    variant, fields = linear_call_parts(operands, clamp, weight, spec, padded=False)
    geometry: dict[str, Plain] = {"inputs": inputs, "outputs": outputs}
    int8 = spec is not None and spec.dtype is DType.INT8
    at_once = AT_ONCE if int8 else 1
    ends = np.minimum(np.arange(at_once, outputs + at_once, at_once), outputs) * y.dtype.bytes
    overlap = in_steps(np.zeros_like(ends), ends)
    if spec is not None and int8:
        return _int8_call(spec, variant, geometry, fields, overlap)
    kernel = linear_kernel(
        "dense", "dense", variant | dict.fromkeys(("dsp", "mve", "octets"), False), f"dot_{variant['short']}"
    )
    return Call(kernel, {**geometry, **fields}, overlaps=(overlap,))


def _int8_call(
    spec: LinearSpec, variant: dict[str, Any], geometry: dict[str, Plain], fields: dict[str, Plain], overlap: Overlap
) -> Call:
    """One row with the bodies that the numbers allow; the one for DSP at least sums the products."""
    rows = spec.weight.reshape(len(spec.weight), -1)
    inputs = rows.shape[1]
    dsp = mve = portable = geometry | fields
    still = pairs.settled(spec, AT_ONCE)
    if still is not None:
        mve = dsp = pairs.record(still, geometry, AT_ONCE)
    octets = still is None and pairs.pairable(spec.weight)
    if octets:
        mve = dsp = portable | {"weight": Constant(pairs.quads_of_rows(rows))}
    scratch = None
    if helium.requantizes(spec):
        mve = helium.dense_record(spec, rows)
        scratch = helium.step_bytes(inputs) if inputs % helium.HALF else 0
    kernel = linear_kernel(
        "dense",
        "dense",
        variant | {"dsp": still is not None, "octets": octets, **helium.variant(spec, mve=helium.requantizes(spec))},
        "products4_s8",
        dsp=(*rescaling(variant), *pairs.SUM_HELPERS) if octets else () if still is None else pairs.DENSE_HELPERS,
        mve=helium.dense_helpers(spec) if helium.requantizes(spec) else (),
    )
    return Call(kernel, fields_of_bodies(portable, dsp, mve), scratch=scratch, overlaps=(overlap,))


def _general_call(operands: Operands, clamp: Clamp | None, spec: LinearSpec, rows: int) -> Call:
    """Weights of more than 8 bits, or int8 sums rounded once beside others: the general convolution, of 1 x 1."""
    x, y = operands.inputs[0].type, operands.outputs[0].type
    outputs = len(spec.weight)
    inputs = spec.weight.size // outputs
    variant, fields = linear_call_parts(operands, clamp, spec.weight, spec, padded=False)
    group: dict[str, Field] = {"group_inputs": inputs, "group_outputs": outputs, "dilation_x": 1}
    kernel = linear_kernel("conv", "conv_grouped", variant | {"taps": False}, dot_helper(variant))
    record: dict[str, Field] = {**_row_of_pixels(rows, inputs, outputs), **group, **fields}
    return Call(kernel, record, overlaps=(by_channel(np.arange(rows), x, y),))


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
        spec = integer_spec(operands, self.clamp, single_product=True)
        if spec is None:
            return self.reference(*inputs)
        return (spec.output(spec.centred(inputs[0]) @ spec.weight.astype(spec.exact).T),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        return (dense_call(operands, self.clamp, kernel_spec(operands, self.clamp, single_product=True)),)

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        del outputs, dtype
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
        scaling = product_multiplier(operands.inputs[0], operands.inputs[1], y)
        sums = (a @ b).astype(np.int64)
        wide = operands.inputs[0].type.dtype is DType.INT16
        scaled = requantize_wide(sums, *scaling) if wide else requantize(sums, *scaling, operands.rounding)
        return (np.clip(scaled + only_quant(y)[1], *y.type.dtype.limits).astype(y.type.dtype.numpy),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        a, b = (tensor.type.shape for tensor in operands.inputs)
        record, overlaps = _matrices(a, b), _product_overlaps(a, b, operands.outputs[0].type)
        if operands.inputs[0].type.dtype is DType.FLOAT32:
            return (Call(Kernel("dense", "matmul_f32", "matmul_f32"), record, reads=(0, 1), overlaps=overlaps),)
        zeros = [only_quant(tensor)[1] for tensor in (*operands.inputs, *operands.outputs)]
        record |= self._scaling(operands) | dict(zip(("zero_a", "zero_b", "zero_y"), zeros, strict=True))
        return (Call(_product_kernel(*operands.inputs), record, reads=(0, 1), overlaps=overlaps),)

    def _scaling(self, operands: Operands) -> dict[str, Field]:
        """The fields that rescale a sum of products; int16 is summed and rescaled in 64 bits (TensorFlow Lite)."""
        multiplier, shift = product_multiplier(operands.inputs[0], operands.inputs[1], operands.outputs[0])
        wide = operands.inputs[0].type.dtype is DType.INT16
        widest, bits = (WIDEST_PRODUCT << 16, 47) if wide else (WIDEST_PRODUCT, 31)
        if operands.inputs[0].type.shape[-1] * widest >= 1 << bits or (wide and shift > LARGEST_SHIFT):
            raise InputError(f"{operands.outputs[0].name}: sums of so many products may not fit {bits + 1} bits")
        if wide:
            multiplier, shift = (int(value) for value in reduced_multiplier(multiplier, shift))
        return {"multiplier": multiplier, "shift": shift}

    def macs(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> int:
        return outputs[0].elements * inputs[0].shape[-1]


def _product_kernel(a: Tensor, b: Tensor) -> Kernel:
    wide = a.type.dtype is DType.INT16
    variant = (("type", a.type.dtype.c), ("factor", b.type.dtype.c), ("wide", wide), ("short", a.type.dtype.short))
    suffix = a.type.dtype.short if a.type.dtype is b.type.dtype else f"{a.type.dtype.short}_{b.type.dtype.short}"
    helpers = ("requantize_wide" if wide else "requantize", f"clamp_{a.type.dtype.short}")
    if a.type.dtype is b.type.dtype is DType.INT8 and b.type.shape[-1] >= pairs.QUAD:
        symbol, quads = f"matmul_quads_{suffix}", ("four_bytes", "int16_pairs", "smlad", "four_columns")
        return Kernel("dense", "matmul_int", symbol, (*variant, ("quads", True)), helpers, dsp_helpers=quads)
    return Kernel("dense", "matmul_int", f"matmul_{suffix}", (*variant, ("quads", False)), helpers)


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

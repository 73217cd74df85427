"""The integer form of an operator between Dequantize and Quantize: the operator, and its operands in integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from toolchain import fixedpoint
from toolchain.ir.graph import Node, Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.ops.base import QuantRule
from toolchain.ops.conv import Conv
from toolchain.ops.convert import Dequantize, Quantize
from toolchain.ops.joining import Concat
from toolchain.ops.linear import WIDEST
from toolchain.ops.pool import AvgPool
from toolchain.ops.resize import Resize
from toolchain.ops.softmax import LogSoftmax, Softmax

if TYPE_CHECKING:
    from toolchain.ir.types import Array
    from toolchain.ops.base import Op
    from toolchain.passes.draft import Draft

FINEST = 0.9
"""A softmax whose steps are finer than this part of its fixed ones keeps them, in float."""


class StaysFloatError(Exception):
    """Why an operator does not run on integers here."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The integer form of a node: `op` from `inputs` to a tensor of type `made`.

    `quantize` is the Quantize that then falls away, or stays as a rescaling where it asks for another grid; None
    where the output is no real quantity.
    """

    op: Op
    inputs: tuple[Tensor, ...]
    made: TensorType
    quantize: Node | None


def plan(draft: Draft, node: Node) -> Plan:
    """The integer form of a node. Raises StaysFloatError where there is none."""
    op = node.op
    if op.quant_rule is QuantRule.FLOAT:
        raise StaysFloatError("it has no integer form")
    if moves(op):
        raise StaysFloatError("it moves values between layers that run in float")
    inputs = tuple(_operand(draft, node, position) for position in range(len(node.inputs)))
    if op.weight is not None:
        inputs = _with_bias(draft, op, inputs)
    quantize = None if op.quant_rule is QuantRule.INDEX else _reader(draft, node)
    if quantize is None:
        made = draft.type(node.outputs[0])
    else:
        op, inputs, made = _output(draft, op, inputs, draft.type(quantize.outputs[0]))
    _check_types(op, inputs, made if quantize is not None else None)
    reason = op.has_integer_form(inputs, (Tensor(node.outputs[0], made),))
    if reason is not None:
        raise StaysFloatError(reason)
    return Plan(op, inputs, made, quantize)


def _check_types(op: Op, inputs: tuple[Tensor, ...], made: TensorType | None) -> None:
    """Raise StaysFloatError where int8 and int16 meet, or int16 and weights of nine bits."""
    parameters = {op.weight, op.bias}
    quantized = [tensor.type for position, tensor in enumerate(inputs) if position not in parameters]
    found = {kind.dtype.value for kind in (*quantized, *([made] if made else [])) if kind.quant is not None}
    if len(found) > 1:
        raise StaysFloatError(f"it has {' and '.join(sorted(found))} activations, expected one type")
    grids = {kind.quant for kind in (*quantized, *([made] if made else []))}
    if DType.INT16.value in found and isinstance(op, Concat) and len(grids) > 1:
        raise StaysFloatError("it joins int16 of different scales")
    if DType.INT16.value in found and op.weight is not None and inputs[op.weight].type.dtype is not DType.INT8:
        raise StaysFloatError("its weights do not fit int8 once their zero point is taken off")


def _operand(draft: Draft, node: Node, position: int) -> Tensor:
    """An input as the integer form reads it; a bias as it is."""
    tensor, op = draft.tensors[node.inputs[position]], node.op
    if tensor.type.dtype is not DType.FLOAT32 or (position == op.bias and tensor.data is not None):
        return tensor
    if tensor.data is None:
        source = integers(draft, tensor.name)
        if source is None:
            raise StaysFloatError(_unquantized(draft, tensor.name))
        return draft.tensors[source]
    if position == op.weight:
        return _weight(draft, op, tensor)
    beside = {draft.type(source).dtype for name in node.inputs if (source := integers(draft, name)) is not None}
    return _constant(draft, tensor, DType.INT16 if DType.INT16 in beside else DType.INT8)


def integers(draft: Draft, name: str) -> str | None:
    """The int8 tensor, or int16 tensor without zero point, that a float tensor was dequantized from."""
    producer = draft.producers.get(name)
    if producer is None or not isinstance(producer.op, Dequantize):
        return None
    return producer.inputs[0] if computable(draft.type(producer.inputs[0])) else None


def computable(kind: TensorType) -> bool:
    """Whether layers compute in integers of this type: int8, and int16 without a zero point."""
    symmetric = kind.quant is not None and kind.quant.zero_point == 0
    return kind.dtype is DType.INT8 or (kind.dtype is DType.INT16 and symmetric)


def moves(op: Op) -> bool:
    """Whether each output value is an input value, or a constant."""
    if op.quant_rule is not QuantRule.SAME_AS_INPUT or isinstance(op, AvgPool):
        return False
    return not isinstance(op, Resize) or op.mode == "nearest"


def _unquantized(draft: Draft, name: str) -> str:
    producer = draft.producers.get(name)
    if producer is not None and isinstance(producer.op, Dequantize):
        kind = draft.type(producer.inputs[0]).dtype.value
        return f"it reads {kind} activations, only int8 and symmetric int16 are computed in integers"
    return "the model does not quantize what it reads"


def _weight(draft: Draft, op: Op, tensor: Tensor) -> Tensor:
    """Weights less their zero point: int8, or int16 where that takes 9 bits."""
    quant = tensor.type.quant
    if quant is None:
        raise StaysFloatError("the model does not quantize its weights to int8")
    if quant.axis not in (None, op.channel_axis):
        raise StaysFloatError("its weight scales do not run over output channels")
    steps = _steps(tensor, quant)
    low, high = DType.INT8.limits
    dtype = DType.INT8 if np.all((low <= steps) & (steps <= high)) else DType.INT16
    data = steps.astype(dtype.numpy)
    kind = TensorType(data.shape, dtype, replace(quant, zero_point=0))
    return Tensor(draft.fresh(f"{tensor.name}.{dtype.value}"), kind, data)


def _steps(tensor: Tensor, quant: QuantParams) -> Array:
    """How many steps of its grid the values of a constant are from 0."""
    assert tensor.data is not None
    scales = np.asarray(quant.scale, np.float64)
    if quant.axis is not None:
        scales = scales.reshape([-1 if axis == quant.axis else 1 for axis in range(tensor.data.ndim)])
    return np.asarray(np.rint(tensor.data.astype(np.float64) / scales))


def _stored(draft: Draft, tensor: Tensor, quant: QuantParams, dtype: DType) -> Tensor:
    """A constant as the integers on its grid."""
    steps = _steps(tensor, quant) + quant.zero_point
    low, high = dtype.limits
    if dtype is DType.INT16 and quant.zero_point != 0:
        raise StaysFloatError(f"the constant {tensor.name} has a zero point beside int16")
    if steps.min(initial=0) < low or steps.max(initial=0) > high:
        raise StaysFloatError(f"the constant {tensor.name} does not fit {dtype.value}")
    data = steps.astype(dtype.numpy)
    return Tensor(draft.fresh(f"{tensor.name}.{dtype.value}"), TensorType(data.shape, dtype, quant), data)


def _constant(draft: Draft, tensor: Tensor, dtype: DType) -> Tensor:
    """A constant operand on its own grid, or one value on a grid made for it."""
    assert tensor.data is not None
    quant = tensor.type.quant
    if quant is None and np.unique(tensor.data).size == 1 and np.all(np.isfinite(tensor.data)):
        scale = float(np.float32(abs(float(tensor.data.flat[0])) / dtype.limits[1]))
        quant = QuantParams((scale or 1.0,))
    if quant is None or quant.axis is not None:
        raise StaysFloatError(f"the model does not quantize the constant {tensor.name} with one scale")
    return _stored(draft, tensor, quant, dtype)


def _with_bias(draft: Draft, op: Op, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inputs with the bias at the product of the scales: int32, or int64 where sums beside int16 need it."""
    assert op.weight is not None
    x, weight = inputs[0], inputs[op.weight]
    if op.bias is None or op.bias >= len(inputs) or inputs[op.bias].data is None:
        return inputs
    assert x.type.quant is not None
    assert weight.type.quant is not None
    scales = np.asarray(weight.type.quant.scale, np.float64) * x.type.quant.scale[0]
    steps = fixedpoint.round_half_away(np.asarray(inputs[op.bias].data, np.float64) / scales)
    sums = np.abs(np.asarray(weight.data, np.int64).reshape(len(steps), -1)).sum(axis=1)
    dtype = DType.INT32
    if np.max(sums * WIDEST[x.type.dtype] + np.abs(steps), initial=0) >= 1 << 31:
        if x.type.dtype is DType.INT8:
            raise StaysFloatError("sums of its products may not fit 32 bits")
        dtype = DType.INT64
    quant = QuantParams(tuple(float(scale) for scale in scales), 0, None if scales.size == 1 else 0)
    kind = TensorType(steps.shape, dtype, quant)
    bias = Tensor(draft.fresh(f"{inputs[op.bias].name}.{dtype.value}"), kind, steps.astype(dtype.numpy))
    return tuple(bias if position == op.bias else tensor for position, tensor in enumerate(inputs))


def _reader(draft: Draft, node: Node) -> Node:
    """The Quantize that alone reads the output."""
    name = node.outputs[0]
    reader = draft.only_reader(name) if len(node.outputs) == 1 else None
    if reader is None or not isinstance(reader.op, Quantize):
        quantized = any(isinstance(each.op, Quantize) for each in draft.readers(name))
        raise StaysFloatError(
            "its output is read in float, too" if quantized else "the model does not quantize its output"
        )
    if not computable(draft.type(reader.outputs[0])):
        raise StaysFloatError("its output is not quantized to int8 or symmetrically to int16")
    return reader


def _output(
    draft: Draft, op: Op, inputs: tuple[Tensor, ...], wanted: TensorType
) -> tuple[Op, tuple[Tensor, ...], TensorType]:
    """(operator, inputs, type of the output) where the model wants the output on a grid."""
    if op.quant_rule is QuantRule.SAME_AS_INPUT and inputs[0].type.quant != wanted.quant:
        if isinstance(op, AvgPool) and _counts_alike(op):
            return *_weighted_average(draft, op, inputs[0]), wanted
        return op, inputs, replace(wanted, quant=inputs[0].type.quant)
    if not isinstance(op, Softmax | LogSoftmax) or wanted.quant is None:
        return op, inputs, wanted
    fixed = op.fixed_quant(wanted.dtype)
    if wanted.quant.scale[0] < FINEST * fixed.scale[0]:
        raise StaysFloatError(
            f"its output has steps of {wanted.quant.scale[0]:.3g}, finer than {fixed.scale[0]:.3g}, its integer form's"
        )
    return op, inputs, replace(wanted, quant=fixed)


def _counts_alike(op: AvgPool) -> bool:
    """Whether all windows have one divisor."""
    return not np.any(op.padding) or op.counted == op.padding


def _weighted_average(draft: Draft, op: AvgPool, x: Tensor) -> tuple[Op, tuple[Tensor, ...]]:
    """An average as a depthwise convolution, which rounds once on its way to another grid."""
    assert x.type.quant is not None
    channels, size = x.type.shape[-1], prod(op.window)
    quant = QuantParams((1 / size,))
    weight = np.ones((channels, *op.window, 1), np.int8)
    bias = TensorType((channels,), DType.INT32, QuantParams((x.type.quant.scale[0] / size,)))
    one = (1,) * len(op.window)
    return Conv(op.stride, one, op.padding, channels, op.clamp), (
        x,
        Tensor(draft.fresh(f"{x.name}.ones"), TensorType(weight.shape, DType.INT8, quant), weight),
        Tensor(draft.fresh(f"{x.name}.zeros"), bias, np.zeros(channels, np.int32)),
    )

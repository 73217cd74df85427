"""Put what a quantized model computes between Dequantize and Quantize on integers.

The importers leave such a model as float operators between conversions, with weights that remember their grid, so
that layouts, folding and fusing are the same for all models. Then these rules, until none applies:
(1) Dequantize then Quantize is one rescaling, or nothing; (2) operators that move or select values go before a
Dequantize and after a Quantize; (3) an operator whose inputs come from Dequantize and whose output goes to Quantize
runs on the integers, if it has an integer form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isinf, prod
from typing import TYPE_CHECKING

import numpy as np

from toolchain import fixedpoint
from toolchain.ir.graph import Node, Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.ops.base import QuantRule
from toolchain.ops.conv import Conv
from toolchain.ops.convert import Dequantize, Quantize
from toolchain.ops.linear import WIDEST
from toolchain.ops.pool import AvgPool, MaxPool
from toolchain.ops.resize import Resize
from toolchain.ops.shape import Concat, Pad
from toolchain.ops.softmax import LogSoftmax, Softmax
from toolchain.passes.draft import Draft, rewrite

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array
    from toolchain.ops.base import Op

ON_GRID = 1e-6
"""Steps by which a value that a grid holds may miss it."""
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


def use_integers(graph: Graph) -> Graph:
    """The graph on the integers its own Quantize and Dequantize name; without such, no constant remembers a grid."""
    if not any(isinstance(node.op, Quantize | Dequantize) for node in graph.nodes):
        return _forgotten(graph)
    return rewrite(graph, _rule) if graph.conversions_annotate else graph


def float_layers(graph: Graph) -> tuple[tuple[str, str], ...]:
    """(origin, reason) of each layer of a quantized graph that computes in float, or begins to."""
    draft = Draft(graph)
    found: dict[str, str] = {}
    for node in graph.nodes:
        if isinstance(node.op, Quantize | Dequantize) or not _computes_in_float(draft, node):
            continue
        try:
            _plan(draft, node)
        except StaysFloatError as error:
            found.setdefault(node.origin, str(error))
        else:
            found.setdefault(node.origin, "the model computes it in float")
    return tuple(found.items())


def integer_ends(graph: Graph, dtype: DType = DType.INT8) -> Graph:
    """The graph whose inputs and outputs are of `dtype` where it starts with Quantize or ends with Dequantize."""
    draft = Draft(graph)
    for name in graph.inputs:
        readers = draft.readers(name)
        kinds = {draft.type(node.outputs[0]) for node in readers if isinstance(node.op, Quantize)}
        first = next(iter(kinds), None)
        plain = all(isinstance(node.op, Quantize) and node.outputs[0] not in draft.outputs for node in readers)
        if first is None or len(kinds) != 1 or not plain or name in draft.outputs or first.dtype is not dtype:
            continue
        draft.retype(name, first)
        for node in readers:
            draft.bypass(node, name)
    for name in graph.outputs:
        last = draft.producers.get(name)
        if last is not None and isinstance(last.op, Dequantize):
            kind = draft.type(last.inputs[0])
            if kind.dtype is dtype and draft.bypass(last):
                draft.retype(name, kind)
    return draft.graph()


def _forgotten(graph: Graph) -> Graph:
    """The graph whose float constants are no more than numbers."""
    marked = {
        name: replace(tensor, type=replace(tensor.type, quant=None))
        for name, tensor in graph.tensors.items()
        if tensor.type.quant is not None and tensor.type.dtype is DType.FLOAT32
    }
    return graph.with_(tensors={**graph.tensors, **marked}) if marked else graph


def _computes_in_float(draft: Draft, node: Node) -> bool:
    names = (*node.inputs, *node.outputs)
    return any(draft.data(name) is None and draft.is_float(name) for name in names) and not _moves(node.op)


def _rule(draft: Draft, node: Node) -> bool:
    if isinstance(node.op, Quantize):
        return _rescale(draft, node) or _before_move(draft, node) or _before_concat(draft, node)
    if isinstance(node.op, Dequantize) or not node.inputs:
        return False
    return _after_move(draft, node) or _on_integers(draft, node)


def _integers(draft: Draft, name: str) -> str | None:
    """The int8 tensor a float tensor was dequantized from."""
    producer = draft.producers.get(name)
    if producer is None or not isinstance(producer.op, Dequantize):
        return None
    return producer.inputs[0] if draft.type(producer.inputs[0]).dtype is DType.INT8 else None


def _rescale(draft: Draft, node: Node) -> bool:
    """Rule 1."""
    source = _integers(draft, node.inputs[0])
    kind = draft.type(node.outputs[0])
    if source is None or kind.dtype not in (DType.INT8, DType.UINT8):
        return False
    if draft.type(source) == kind:
        return draft.bypass(node, source)
    draft.replace(node, Node(node.op, (source,), node.outputs, node.origin))
    return True


def _moves(op: Op) -> bool:
    """Whether each output value is an input value, or a constant."""
    if op.quant_rule is not QuantRule.SAME_AS_INPUT or isinstance(op, AvgPool):
        return False
    return not isinstance(op, Resize) or op.mode == "nearest"


def _holds(op: Op, kind: TensorType) -> bool:
    """Whether the constants among the outputs of a move are on the grid."""
    values: tuple[float, ...] = ()
    if isinstance(op, Pad) and op.mode == "constant":
        values = (op.value,)
    elif isinstance(op, MaxPool) and op.clamp is not None:
        values = tuple(edge for edge in op.clamp if not isinf(edge))
    if kind.quant is None:
        return False
    low, high = kind.dtype.limits
    steps = [value / kind.quant.scale[0] + kind.quant.zero_point for value in values]
    return all(low <= step <= high and abs(step - round(step)) < ON_GRID for step in steps)


def _after_move(draft: Draft, node: Node) -> bool:
    """Rule 2: what moves dequantized values moves the integers."""
    if not (_moves(node.op) or isinstance(node.op, Concat)) or not draft.is_float(*node.outputs):
        return False
    sources = [source for name in node.inputs if (source := _integers(draft, name)) is not None]
    kinds = {(draft.type(name).dtype, draft.type(name).quant) for name in sources}
    if len(sources) != len(node.inputs) or len(kinds) != 1 or not _holds(node.op, draft.type(sources[0])):
        return False
    first = draft.type(sources[0])
    made = [draft.tensor(f"{name}.int8", replace(first, shape=draft.type(name).shape)) for name in node.outputs]
    draft.replace(node, Node(node.op, tuple(sources), tuple(made), node.origin))
    draft.add(*(Node(Dequantize(), (q,), (name,), node.origin) for q, name in zip(made, node.outputs, strict=True)))
    return True


def _before_move(draft: Draft, node: Node) -> bool:
    """Rule 2: what is moved and then quantized is quantized first."""
    before = draft.private_producer(node.inputs[0])
    if before is None or not _moves(before.op) or len(before.outputs) != 1 or len(before.inputs) != 1:
        return False
    source = draft.type(before.inputs[0])
    if source.dtype is not DType.FLOAT32 or draft.data(before.inputs[0]) is not None:
        return False
    made = draft.tensor(f"{node.outputs[0]}.first", replace(draft.type(node.outputs[0]), shape=source.shape))
    draft.replace(node, Node(node.op, before.inputs, (made,), node.origin))
    draft.replace(before, Node(before.op, (made,), node.outputs, before.origin))
    return True


def _before_concat(draft: Draft, node: Node) -> bool:
    """Rule 2: the float parts of what is joined and then quantized are quantized first."""
    before = draft.private_producer(node.inputs[0])
    kind = draft.type(node.outputs[0])
    if before is None or not isinstance(before.op, Concat) or kind.dtype is not DType.INT8:
        return False
    parts = [name for name in before.inputs if draft.data(name) is None and _integers(draft, name) is None]
    if not parts or any(draft.data(name) is not None for name in before.inputs):
        return False
    reals = {}
    for name in dict.fromkeys(parts):
        shape = draft.type(name).shape
        part = draft.tensor(f"{name}.int8", replace(kind, shape=shape))
        reals[name] = draft.tensor(f"{name}.real", TensorType(shape))
        draft.add(
            Node(Quantize(), (name,), (part,), node.origin), Node(Dequantize(), (part,), (reals[name],), node.origin)
        )
    inputs = tuple(reals.get(name, name) for name in before.inputs)
    draft.replace(before, Node(before.op, inputs, before.outputs, before.origin))
    return True


def _on_integers(draft: Draft, node: Node) -> bool:
    """Rule 3."""
    if not _computes_in_float(draft, node):
        return False
    try:
        plan = _plan(draft, node)
    except StaysFloatError:
        return False
    draft.tensors.update((tensor.name, tensor) for tensor in plan.inputs)
    inputs, outputs = tuple(tensor.name for tensor in plan.inputs), node.outputs
    if plan.quantize is not None:
        outputs = plan.quantize.outputs
        draft.drop(plan.quantize)
        if plan.made != draft.type(outputs[0]):
            made = draft.tensor(f"{outputs[0]}.made", plan.made)
            draft.add(Node(Quantize(), (made,), outputs, node.origin))
            outputs = (made,)
    draft.replace(node, Node(plan.op, inputs, outputs, node.origin))
    return True


def _plan(draft: Draft, node: Node) -> Plan:
    """The integer form of a node. Raises StaysFloatError where there is none."""
    op = node.op
    if op.quant_rule is QuantRule.FLOAT:
        raise StaysFloatError("it has no integer form")
    if _moves(op):
        raise StaysFloatError("it moves values between layers that run in float")
    inputs = tuple(_operand(draft, node, position) for position in range(len(node.inputs)))
    if op.weight is not None:
        inputs = _with_bias(draft, op, inputs)
    quantize = None if op.quant_rule is QuantRule.INDEX else _reader(draft, node)
    if quantize is None:
        made = draft.type(node.outputs[0])
    else:
        op, inputs, made = _output(draft, op, inputs, draft.type(quantize.outputs[0]))
    reason = op.has_integer_form(inputs, (Tensor(node.outputs[0], made),))
    if reason is not None:
        raise StaysFloatError(reason)
    return Plan(op, inputs, made, quantize)


def _operand(draft: Draft, node: Node, position: int) -> Tensor:
    """An input as the integer form reads it; a bias as it is."""
    tensor, op = draft.tensors[node.inputs[position]], node.op
    if tensor.type.dtype is not DType.FLOAT32 or (position == op.bias and tensor.data is not None):
        return tensor
    if tensor.data is None:
        source = _integers(draft, tensor.name)
        if source is None:
            raise StaysFloatError(_unquantized(draft, tensor.name))
        return draft.tensors[source]
    if position == op.weight:
        return _weight(draft, op, tensor)
    return _constant(draft, tensor)


def _unquantized(draft: Draft, name: str) -> str:
    producer = draft.producers.get(name)
    if producer is not None and isinstance(producer.op, Dequantize):
        return f"it reads {draft.type(producer.inputs[0]).dtype.value} activations, only int8 is computed in integers"
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


def _stored(draft: Draft, tensor: Tensor, quant: QuantParams) -> Tensor:
    """A constant as the int8 integers on its grid."""
    data = np.clip(_steps(tensor, quant) + quant.zero_point, *DType.INT8.limits).astype(np.int8)
    return Tensor(draft.fresh(f"{tensor.name}.int8"), TensorType(data.shape, DType.INT8, quant), data)


def _constant(draft: Draft, tensor: Tensor) -> Tensor:
    """A constant operand on its own grid, or one value on a grid made for it."""
    assert tensor.data is not None
    quant = tensor.type.quant
    if quant is None and np.unique(tensor.data).size == 1 and np.all(np.isfinite(tensor.data)):
        scale = float(np.float32(abs(float(tensor.data.flat[0])) / DType.INT8.limits[1]))
        quant = QuantParams((scale or 1.0,))
    if quant is None or quant.axis is not None:
        raise StaysFloatError(f"the model does not quantize the constant {tensor.name} with one scale")
    return _stored(draft, tensor, quant)


def _with_bias(draft: Draft, op: Op, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inputs with the bias in int32 at the product of the scales."""
    assert op.weight is not None
    x, weight = inputs[0], inputs[op.weight]
    if op.bias is None or op.bias >= len(inputs) or inputs[op.bias].data is None:
        return inputs
    assert x.type.quant is not None
    assert weight.type.quant is not None
    scales = np.asarray(weight.type.quant.scale, np.float64) * x.type.quant.scale[0]
    steps = fixedpoint.round_half_away(np.asarray(inputs[op.bias].data, np.float64) / scales)
    sums = np.abs(np.asarray(weight.data, np.int64).reshape(len(steps), -1)).sum(axis=1)
    if np.max(sums * WIDEST + np.abs(steps), initial=0) >= 1 << 31:
        raise StaysFloatError("sums of its products may not fit 32 bits")
    quant = QuantParams(tuple(float(scale) for scale in scales), 0, None if scales.size == 1 else 0)
    kind = TensorType(steps.shape, DType.INT32, quant)
    bias = Tensor(draft.fresh(f"{inputs[op.bias].name}.int32"), kind, steps.astype(np.int32))
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
    if draft.type(reader.outputs[0]).dtype is not DType.INT8:
        raise StaysFloatError("its output is not quantized to int8")
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
    fixed = op.fixed_quant(DType.INT8)
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

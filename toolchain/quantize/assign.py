"""Which nodes run on integers, of which type, and which parameters each activation gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from toolchain.ir.types import DType, QuantParams
from toolchain.ops.base import QuantRule
from toolchain.quantize.parameters import covering, quantized_constant, quantized_weights, with_params

if TYPE_CHECKING:
    from collections.abc import Iterable

    from toolchain.ir.graph import Graph, Node, Tensor
    from toolchain.quantize.methods import Range


Params = Mapping[DType, Mapping[str, QuantParams]]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Per type of integers the `params` of all activations, and the nodes that stay float with the reason."""

    params: Params
    float_nodes: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Choices:
    """What is decided before the numbers: the type of the ends, and what runs how (nodes by index).

    `per_channel`: all layers have one weight scale per output, else those of `channel_nodes`. `float_nodes`: nodes
    that shall run in float, with the reason. Integers are `dtype`, those of `wide_nodes` int16.
    """

    io: str = "float32"
    dtype: DType = DType.INT8
    per_channel: bool = False
    channel_nodes: frozenset[int] = frozenset()
    wide_nodes: frozenset[int] = frozenset()
    wide_layers: frozenset[int] = frozenset()
    """The layers for whose outputs nodes are wide."""
    float_nodes: Mapping[int, str] = field(default_factory=dict)

    @property
    def dtypes(self) -> tuple[DType, ...]:
        """The types of integers that occur."""
        return tuple({self.dtype, DType.INT16} if self.wide_nodes else {self.dtype})

    def of(self, index: int) -> DType:
        """The type of the integers that a node runs on."""
        return DType.INT16 if index in self.wide_nodes else self.dtype

    def by_channel(self, index: int) -> bool:
        """Whether a layer has one weight scale per output."""
        return self.per_channel or index in self.channel_nodes


def assign(graph: Graph, ranges: Mapping[str, Range], choices: Choices) -> Assignment:
    """Parameters for all float activations and the nodes without an integer form (by index).

    A node that falls back takes its tensors out of the sharing rules, so the assignment is repeated until no
    further node falls back.
    """
    float_nodes: dict[int, str] = dict(choices.float_nodes)
    while True:
        params = {dtype: _params(graph, ranges, float_nodes, choices, dtype) for dtype in choices.dtypes}
        found = _fallbacks(graph, params, float_nodes, choices)
        found = found or _stranded(graph, float_nodes, choices.io)
        if not found:
            return Assignment(params, float_nodes)
        float_nodes.update(found)


def is_real(tensor: Tensor) -> bool:
    """Whether the tensor holds float32 values."""
    return tensor.type.dtype is DType.FLOAT32


def touches_reals(graph: Graph, node: Node) -> bool:
    """Whether the node reads or writes a float tensor (others are passed on as they are)."""
    return any(is_real(tensor) for tensor in graph.operands((*node.inputs, *node.outputs)))


class Sharing:
    """Classes of activations with one set of parameters. `owners` are those that add their range to the class."""

    def __init__(self, graph: Graph, names: Iterable[str], dtype: DType) -> None:
        self.graph = graph
        self.dtype = dtype
        self.root = {name: name for name in names}
        self.owners = dict.fromkeys(self.root)
        self.fixed: dict[str, QuantParams] = {}
        self.readers = graph.consumers()

    def find(self, name: str) -> str:
        """The name that stands for the class of a tensor."""
        while self.root[name] != name:
            name = self.root[name]
        return name

    def apply(self, node: Node) -> None:
        """Follow the quantization rule of a node that runs on integers."""
        outputs = [name for name in node.outputs if name in self.root]
        rule = node.op.quant_rule
        if rule is QuantRule.SAME_AS_INPUT and node.inputs[0] in self.root:
            for name in outputs:
                self.owners.pop(name)
                self.root[name] = self.find(node.inputs[0])
        elif rule is QuantRule.SHARED:
            for name in filter(self._costs_nothing, node.inputs):
                self.root[self.find(name)] = self.find(outputs[0])
        elif rule is QuantRule.FIXED:
            self.fixed.update((name, node.op.fixed_quant(self.dtype)) for name in outputs)

    def _costs_nothing(self, name: str) -> bool:
        """Whether one node alone reads the tensor, and its parameters are free."""
        if name not in self.root or name in self.graph.outputs or self.find(name) in self.fixed:
            return False
        return len(self.readers[name]) == 1

    def params(self, ranges: Mapping[str, Range]) -> dict[str, QuantParams]:
        """Parameters of all activations: of each class those of the union of its owners' ranges."""
        covered: dict[str, Range] = {}
        for name in self.owners:
            low, high = covered.get(self.find(name), ranges[name])
            covered[self.find(name)] = min(low, ranges[name][0]), max(high, ranges[name][1])
        return {
            name: self.fixed.get(self.find(name)) or covering(self.dtype, *covered[self.find(name)])
            for name in self.root
        }


def _params(
    graph: Graph, ranges: Mapping[str, Range], float_nodes: Mapping[int, str], choices: Choices, dtype: DType
) -> dict[str, QuantParams]:
    sharing = Sharing(graph, ranges, dtype)
    for index, node in enumerate(graph.nodes):
        if index not in float_nodes and choices.of(index) is dtype and touches_reals(graph, node):
            sharing.apply(node)
    return sharing.params(ranges)


def _stranded(graph: Graph, float_nodes: Mapping[int, str], io: str) -> dict[int, str]:
    """Nodes that only move values between float neighbours: on integers they would cost two conversions."""
    floats = {id(graph.nodes[index]) for index in float_nodes}
    producers, readers = graph.producers(), graph.consumers()

    def in_float(node: Node) -> bool:
        before = producers.get(node.inputs[0])
        after = [reader for name in node.outputs for reader in readers[name]]
        ends = io != "float32" and any(name in graph.outputs for name in node.outputs)
        return id(before) in floats and not ends and all(id(reader) in floats for reader in after)

    return {
        index: "it moves values between layers that run in float"
        for index, node in enumerate(graph.nodes)
        if id(node) not in floats and node.op.quant_rule is QuantRule.SAME_AS_INPUT and in_float(node)
    }


def _fallbacks(graph: Graph, params: Params, known: Mapping[int, str], choices: Choices) -> dict[int, str]:
    found = {}
    for index, node in enumerate(graph.nodes):
        if index not in known and touches_reals(graph, node):
            dtype = choices.of(index)
            reason = _reason(graph, node, params[dtype], dtype, per_channel=choices.by_channel(index))
            if reason is not None:
                found[index] = reason
    return found


def _reason(
    graph: Graph, node: Node, params: Mapping[str, QuantParams], dtype: DType, *, per_channel: bool
) -> str | None:
    """Why the node does not run on integers, or None."""
    op = node.op
    if op.quant_rule is QuantRule.FLOAT:
        return op.has_integer_form(graph.operands(node.inputs), graph.operands(node.outputs)) or "no integer form"
    for position, role in ((op.weight, "weights"), (op.bias, "bias")):
        if position is not None and position < len(node.inputs) and graph.tensors[node.inputs[position]].data is None:
            return f"its {role} are computed, not constant"
    if op.quant_rule is not QuantRule.INDEX and not all(is_real(tensor) for tensor in graph.operands(node.outputs)):
        return "its output is not a real quantity"
    if op.weight is None and not any(name in params for name in node.inputs) and node.inputs:
        return "it reads no float activation"
    inputs = integer_inputs(graph, node, params, dtype, per_channel=per_channel)
    if op.quant_rule is QuantRule.SHARED:
        inputs = tuple(_rescaled(tensor, params[node.outputs[0]]) for tensor in inputs)
    outputs = tuple(as_integers(tensor, params, dtype) for tensor in graph.operands(node.outputs))
    return op.has_integer_form(inputs, outputs, dtype)


def _rescaled(tensor: Tensor, quant: QuantParams) -> Tensor:
    """The tensor as the node reads it: where parameters are shared, a Quantize before it sees to that."""
    if tensor.type.quant is None:
        return tensor
    return replace(tensor, type=replace(tensor.type, quant=quant))


def as_integers(tensor: Tensor, params: Mapping[str, QuantParams], dtype: DType) -> Tensor:
    """An activation with its integer type (integers and booleans as they are)."""
    if not is_real(tensor):
        return tensor
    return replace(tensor, type=replace(tensor.type, dtype=dtype, quant=params[tensor.name]))


def integer_inputs(
    graph: Graph, node: Node, params: Mapping[str, QuantParams], dtype: DType, *, per_channel: bool
) -> tuple[Tensor, ...]:
    """The node's inputs as its integer form reads them: activations, quantized weights, bias and constants."""
    op = node.op
    tensors = list(graph.operands(node.inputs))
    result = [as_integers(t, params, dtype) if t.data is None else t for t in tensors]
    if op.weight is not None:
        bias = tensors[op.bias] if op.bias is not None and op.bias < len(tensors) else None
        quant = result[0].type.quant
        assert quant is not None
        axis = op.channel_axis if per_channel else None
        weight, integers = quantized_weights(tensors[op.weight], bias, quant.scale[0], axis, node.origin, dtype)
        result[op.weight] = weight
        if integers is not None and op.bias is not None:
            result[op.bias] = integers
    return tuple(_constant(node, position, tensor, params, dtype) for position, tensor in enumerate(result))


def _constant(node: Node, position: int, tensor: Tensor, params: Mapping[str, QuantParams], dtype: DType) -> Tensor:
    if tensor.data is None or not is_real(tensor) or position in (node.op.weight, node.op.bias):
        return tensor
    shared = params.get(node.outputs[0]) if node.op.quant_rule is QuantRule.SHARED else None
    if shared is None:
        return quantized_constant(tensor, tensor.name, dtype)
    return with_params(tensor, tensor.name, shared, dtype)

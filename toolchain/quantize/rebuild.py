"""The graph in integers: Quantize or Dequantize stand where integers and floats, or integers of two types, meet."""

from __future__ import annotations

from dataclasses import replace

from toolchain.ir.graph import Graph, Node, Tensor, unused_name
from toolchain.ir.types import DType, QuantParams
from toolchain.ops.base import QuantRule
from toolchain.ops.convert import Dequantize, Quantize
from toolchain.quantize.assign import Assignment, Choices, integer_inputs, is_real, touches_reals

REALS = DType.FLOAT32


class Rebuild:
    """Keeps, per activation, its forms by type; each conversion is made once, when first needed."""

    def __init__(self, graph: Graph, assignment: Assignment, choices: Choices) -> None:
        self.source = graph
        self.assignment = assignment
        self.choices = choices
        self.ends = DType(choices.io)
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.names = set(graph.tensors)
        self.first: dict[str, str] = {}
        self.forms: dict[DType, dict[str, str]] = {dtype: {} for dtype in (REALS, DType.INT8, DType.INT16)}

    def graph(self) -> Graph:
        """The quantized graph. Ends have the type of the choices' `io`."""
        for name in self.source.inputs:
            self._declare(name, self.ends)
        for index, node in enumerate(self.source.nodes):
            if index in self.assignment.float_nodes or not touches_reals(self.source, node):
                self._float_node(node)
            else:
                self._integer_node(node, self.choices.of(index), per_channel=self.choices.by_channel(index))
        for name in self.source.outputs:
            if is_real(self.source.tensors[name]):
                self._form(name, self.ends)
        used = {name for node in self.nodes for name in (*node.inputs, *node.outputs)}
        used.update(self.source.inputs, self.source.outputs)
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        return self.source.with_(nodes=tuple(self.nodes), tensors=tensors)

    def integer_forms(self) -> dict[str, str]:
        """{activation: the tensor of its first integer form}."""
        return {name: made for name, made in self.first.items() if made in self.tensors}

    def _declare(self, name: str, dtype: DType) -> str:
        """Add an activation in one form. Graph inputs and outputs keep their name in the form of the ends."""
        tensor = self.source.tensors[name]
        if not is_real(tensor):
            self.tensors[name] = tensor
            return name
        outside = name in self.source.inputs or name in self.source.outputs
        return self._make(name, dtype, own=not outside or dtype is self.ends)

    def _make(self, name: str, dtype: DType, *, own: bool) -> str:
        kind = self.source.tensors[name].type
        made = name if own else self._fresh(f"{name}.{dtype.value}")
        if dtype is not REALS:
            kind = replace(kind, dtype=dtype, quant=self.assignment.params[dtype][name])
            self.first.setdefault(name, made)
        self.tensors[made] = Tensor(made, kind)
        self.forms[dtype][name] = made
        return made

    def _fresh(self, hint: str) -> str:
        name = unused_name(hint, self.names)
        self.names.add(name)
        return name

    def _form(self, name: str, dtype: DType) -> str:
        """The activation in one form, converted when it only exists in others: from the one that says most."""
        if name not in self.forms[dtype]:
            before = next(self.forms[d][name] for d in (REALS, DType.INT16, DType.INT8) if name in self.forms[d])
            kept = name in self.source.outputs and dtype is self.ends and name not in self.tensors
            made = self._make(name, dtype, own=kept)
            producer = self.source.producers().get(name)
            origin = producer.origin if producer else self.source.port(name).name
            self.nodes.append(Node(Dequantize() if dtype is REALS else Quantize(), (before,), (made,), origin))
        return self.forms[dtype][name]

    def _float_node(self, node: Node) -> None:
        inputs = [self._float_input(name) for name in node.inputs]
        outputs = tuple(self._declare(name, REALS) for name in node.outputs)
        self.nodes.append(Node(node.op, tuple(inputs), outputs, node.origin))

    def _float_input(self, name: str) -> str:
        tensor = self.source.tensors[name]
        if tensor.data is not None:
            self.tensors[name] = tensor
            return name
        return self._form(name, REALS) if is_real(tensor) else name

    def _integer_node(self, node: Node, dtype: DType, *, per_channel: bool) -> None:
        params = self.assignment.params[dtype]
        tensors = integer_inputs(self.source, node, params, dtype, per_channel=per_channel)
        inputs = [self._integer_input(node, tensor, dtype) for tensor in tensors]
        outputs = tuple(self._declare(name, dtype) for name in node.outputs)
        self.nodes.append(Node(node.op, tuple(inputs), outputs, node.origin))

    def _integer_input(self, node: Node, tensor: Tensor, dtype: DType) -> str:
        """The input in its integer form; where parameters are shared, rescaled to those of the output."""
        if tensor.data is not None:
            real = is_real(self.source.tensors[tensor.name])
            name = self._fresh(f"{tensor.name}.{tensor.type.dtype.value}") if real else tensor.name
            self.tensors[name] = replace(tensor, name=name)
            return name
        if not is_real(self.source.tensors[tensor.name]):
            return tensor.name
        name = self._form(tensor.name, dtype)
        wanted = self.assignment.params[dtype].get(node.outputs[0])
        if node.op.quant_rule is QuantRule.SHARED and wanted is not None:
            return self._rescaled(node, name, wanted)
        return name

    def _rescaled(self, node: Node, name: str, wanted: QuantParams) -> str:
        kind = self.tensors[name].type
        if kind.quant == wanted:
            return name
        made = self._fresh(f"{name}.rescaled")
        self.tensors[made] = Tensor(made, replace(kind, quant=wanted))
        self.nodes.append(Node(Quantize(), (name,), (made,), node.origin))
        return made

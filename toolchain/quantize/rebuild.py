"""The graph in integers: int8 tensors, and Quantize or Dequantize where integers and floats meet."""

from __future__ import annotations

from dataclasses import replace

from toolchain.ir.graph import Graph, Node, Tensor
from toolchain.ir.types import DType, QuantParams
from toolchain.ops.base import QuantRule
from toolchain.ops.convert import Dequantize, Quantize
from toolchain.quantize.assign import Assignment, Choices, integer_inputs, is_real, touches_reals


class Rebuild:
    """Keeps, per activation, its float and its int8 form; each conversion is made once, when first needed."""

    def __init__(self, graph: Graph, assignment: Assignment, choices: Choices) -> None:
        self.source = graph
        self.assignment = assignment
        self.choices = choices
        self.io = choices.io
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.names = set(graph.tensors)
        self.float_form: dict[str, str] = {}
        self.int8_form: dict[str, str] = {}

    def graph(self) -> Graph:
        """The quantized graph. Ends are int8 when the choices' `io` is "int8", and real when it is "float32"."""
        for name in self.source.inputs:
            self._declare(name, integer=self.io == "int8")
        for index, node in enumerate(self.source.nodes):
            if index in self.assignment.float_nodes or not touches_reals(self.source, node):
                self._float_node(node)
            else:
                self._integer_node(node, per_channel=self.choices.by_channel(index))
        for name in self.source.outputs:
            self._finish(name)
        used = {name for node in self.nodes for name in (*node.inputs, *node.outputs)}
        used.update(self.source.inputs, self.source.outputs)
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        return self.source.with_(nodes=tuple(self.nodes), tensors=tensors)

    def _declare(self, name: str, *, integer: bool) -> str:
        """Add an activation in one form. Graph inputs and outputs keep their name in the form `io` asks for."""
        tensor = self.source.tensors[name]
        if not is_real(tensor):
            self.tensors[name] = tensor
            return name
        outside = name in self.source.inputs or name in self.source.outputs
        own = not outside or integer == (self.io == "int8")
        made = name if own else self._fresh(f"{name}.{'int8' if integer else 'float32'}")
        kind = replace(tensor.type, dtype=DType.INT8, quant=self.assignment.params[name]) if integer else tensor.type
        self.tensors[made] = Tensor(made, kind)
        (self.int8_form if integer else self.float_form)[name] = made
        return made

    def _fresh(self, hint: str) -> str:
        name, count = hint, 0
        while name in self.names:
            count += 1
            name = f"{hint}.{count}"
        self.names.add(name)
        return name

    def _form(self, name: str, *, integer: bool) -> str:
        """The activation in one form, converted when it only exists in the other."""
        forms, others = (self.int8_form, self.float_form) if integer else (self.float_form, self.int8_form)
        if name not in forms:
            made = self._declared_conversion(name, integer=integer)
            producer = self.source.producers().get(name)
            origin = producer.origin if producer else self.source.port(name).name
            self.nodes.append(Node(Quantize() if integer else Dequantize(), (others[name],), (made,), origin))
        return forms[name]

    def _declared_conversion(self, name: str, *, integer: bool) -> str:
        """Like `_declare`, under a new name unless the name is kept for this form of a graph output."""
        kept = name in self.source.outputs and integer == (self.io == "int8") and name not in self.tensors
        if kept:
            return self._declare(name, integer=integer)
        tensor = self.source.tensors[name]
        made = self._fresh(f"{name}.{'int8' if integer else 'float32'}")
        kind = replace(tensor.type, dtype=DType.INT8, quant=self.assignment.params[name]) if integer else tensor.type
        self.tensors[made] = Tensor(made, kind)
        (self.int8_form if integer else self.float_form)[name] = made
        return made

    def _finish(self, name: str) -> None:
        if is_real(self.source.tensors[name]):
            self._form(name, integer=self.io == "int8")

    def _float_node(self, node: Node) -> None:
        inputs = [self._float_input(name) for name in node.inputs]
        outputs = tuple(self._declare(name, integer=False) for name in node.outputs)
        self.nodes.append(Node(node.op, tuple(inputs), outputs, node.origin))

    def _float_input(self, name: str) -> str:
        tensor = self.source.tensors[name]
        if tensor.data is not None:
            self.tensors[name] = tensor
            return name
        return self._form(name, integer=False) if is_real(tensor) else name

    def _integer_node(self, node: Node, *, per_channel: bool) -> None:
        tensors = integer_inputs(self.source, node, self.assignment.params, per_channel=per_channel)
        inputs = [self._integer_input(node, tensor) for tensor in tensors]
        outputs = tuple(self._declare(name, integer=True) for name in node.outputs)
        self.nodes.append(Node(node.op, tuple(inputs), outputs, node.origin))

    def _integer_input(self, node: Node, tensor: Tensor) -> str:
        """The input in its integer form; where parameters are shared, rescaled to those of the output."""
        if tensor.data is not None:
            name = self._fresh(f"{tensor.name}.int8") if is_real(self.source.tensors[tensor.name]) else tensor.name
            self.tensors[name] = replace(tensor, name=name)
            return name
        if not is_real(self.source.tensors[tensor.name]):
            return tensor.name
        name = self._form(tensor.name, integer=True)
        wanted = self.assignment.params.get(node.outputs[0])
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

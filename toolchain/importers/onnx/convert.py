"""From a ModelProto to a Graph: nodes in order, each through its handler or onnx's own definition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from toolchain.errors import InputError
from toolchain.importers.builder import LARGEST_TENSOR, GraphBuilder, one_line
from toolchain.importers.layer import NoCFormError
from toolchain.importers.onnx import layers
from toolchain.importers.onnx.functions import expanded, folded
from toolchain.importers.onnx.inputs import declared_type
from toolchain.importers.onnx.layer import HANDLERS, Layer
from toolchain.importers.onnx.layers.quantized import (
    COMPUTED,
    CONTRIBUTED,
    MOVES,
    QUANTIZED,
    as_unsigned,
    is_quantized,
    on_reals,
)
from toolchain.importers.shapes import shape_overrides
from toolchain.ir.graph import Graph, Port
from toolchain.ir.types import DType
from toolchain.ops.elementwise import Unary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from toolchain.ir.types import Array

Scope = dict[str, "str | None"]
"""ONNX value name -> tensor name; None is the result of a layer without a C form."""

CONTROL = {"If", "Loop", "Scan", "SequenceMap"}
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
MALFORMED = (ValueError, IndexError, KeyError, TypeError, OverflowError, ZeroDivisionError)

assert layers  # imported for the handlers it registers


def convert(model: onnx.ModelProto, subject: str, input_shape: Sequence[tuple[str, tuple[int, ...]]] = ()) -> Graph:
    """Return the Graph of a model. Raises InputError and UnsupportedError."""
    return _Conversion(model, subject).run(input_shape)


class _Conversion:
    """The state of one import: the graph under construction and the names in scope."""

    def __init__(self, model: onnx.ModelProto, subject: str) -> None:
        self.model = model
        self.builder = GraphBuilder(subject)
        self.opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}

    def run(self, input_shape: Sequence[tuple[str, tuple[int, ...]]]) -> Graph:
        graph = self.model.graph
        scope: Scope = {}
        weights = {tensor.name for tensor in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        free = [value for value in graph.input if value.name not in weights]
        overrides = shape_overrides(self.builder.subject, [value.name for value in free], input_shape)
        for value in free:
            tensor_type = declared_type(self.builder, value, overrides.get(value.name))
            scope[value.name] = self.builder.input(value.name, tensor_type)
        self.initializers(graph, scope)
        self.nodes(graph.node, scope)
        return self.finish(graph, scope)

    def finish(self, graph: onnx.GraphProto, scope: Scope) -> Graph:
        """Name the outputs as the model does; each is a tensor of its own."""
        ends: list[str] = []
        ports = {name: Port(name) for name in self.builder.inputs}
        for value in graph.output:
            if value.name not in scope:
                raise self.builder.error(value.name, "an output no layer computes, expected the result of a layer")
            name = scope[value.name]
            if name is None:
                continue
            if self.builder.value(name) is not None:
                self.builder.problem(f"{one_line(value.name)}: an output that depends on no input; drop it")
                continue
            if name in self.builder.unsigned and self.builder.type(name).dtype is DType.INT16:
                self.builder.problem(f"{one_line(value.name)}: a quantized output of type uint16; dequantize it")
                continue
            if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
                name = as_unsigned(self.builder, name, value.name)
            if name in ends or name in self.builder.inputs:
                name = self.builder.add(Unary("identity"), [name], origin=value.name)[0]
            self.builder.wish(name, value.name)
            ports[name] = Port(value.name)
            ends.append(name)
        return self.builder.finish(ends, ports).with_(conversions_annotate=True)

    def initializers(self, graph: onnx.GraphProto, scope: Scope) -> None:
        """Add the weights of a graph as constants."""
        if graph.sparse_initializer:
            self.builder.problem(f"{graph.sparse_initializer[0].values.name}: a sparse weight, expected a dense one")
        for tensor in graph.initializer:
            scope[tensor.name] = self.builder.constant(tensor.name, self.array(tensor))

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The values of a TensorProto."""
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except MALFORMED as error:
            text = f"its data does not fit shape {list(tensor.dims)}: {error}"
            raise self.builder.error(tensor.name, text) from None

    def nodes(self, nodes: Iterable[onnx.NodeProto], scope: Scope, prefix: str = "") -> None:
        """Convert nodes in an order in which every value exists before it is read."""
        for node in self.ordered(list(nodes), scope):
            origin = prefix or node.name or next((name for name in node.output if name), node.op_type)
            self.node(node, scope, one_line(origin))

    def ordered(self, nodes: list[onnx.NodeProto], scope: Scope) -> list[onnx.NodeProto]:
        """The nodes in execution order. Raises InputError for cycles and for values nobody computes."""
        known, waiting = set(scope), nodes
        done: list[onnx.NodeProto] = []
        made = {name for node in nodes for name in node.output if name}
        while waiting:
            ready, later = [], []
            for node in waiting:
                if all(name in known for name in _reads(node, made)):
                    known.update(node.output)
                    ready.append(node)
                else:
                    later.append(node)
            if not ready:
                raise self.builder.error(later[0].name or later[0].op_type, self.stuck(later[0], known, made))
            done, waiting = done + ready, later
        return done

    def stuck(self, node: onnx.NodeProto, known: set[str], made: set[str]) -> str:
        """Why a node never gets its inputs."""
        missing = [name for name in _reads(node, made) if name not in known]
        orphan = [name for name in missing if name not in made]
        if orphan:
            return f"reads {orphan[0]!r}, which no layer computes; expected an input, a weight or a layer's output"
        return f"waits for {missing[0]!r}, which waits for this layer; expected a graph without cycles"

    def node(self, node: onnx.NodeProto, scope: Scope, origin: str) -> None:
        """Convert one node, or remember why it cannot be."""
        try:
            results = self.results(node, scope, origin)
        except NoCFormError as error:
            self.builder.problem(f"{origin}: {node.op_type}: {one_line(str(error))}")
            results = ()
        except InputError:
            raise
        except MALFORMED as error:
            raise self.builder.error(f"{origin} ({node.op_type})", str(error)) from error
        scope |= dict.fromkeys((name for name in node.output if name), None)
        for wanted, name in zip(node.output, results, strict=False):
            if wanted:
                scope[wanted] = name
                if name not in self.builder.inputs and self.builder.value(name) is None:
                    self.builder.wish(name, wanted)

    def results(self, node: onnx.NodeProto, scope: Scope, origin: str) -> tuple[str, ...]:
        """The tensors that are the node's outputs; () when its inputs are unknown already."""
        domain = node.domain or "ai.onnx"
        opset = self.opsets.get(domain, onnx.defs.onnx_opset_version())
        inputs = [scope[name] if name else "" for name in node.input]
        if node.op_type in CONTROL:
            return self.control(node, scope, origin)
        ours = domain == "ai.onnx" or (domain == "com.microsoft" and node.op_type in CONTRIBUTED)
        handler = HANDLERS.get(node.op_type) if ours else None
        if None in inputs:
            if handler is None and not _has_body(node, domain, opset):
                raise NoCFormError("no such operator here")
            return ()
        names = tuple(name or "" for name in inputs)
        values = [self.builder.value(name) if name else None for name in names]
        known = all(value is not None for value, name in zip(values, names, strict=True) if name)
        if known and domain == "ai.onnx" and node.op_type not in RANDOM | COMPUTED:
            return self.fold(node, names, values, opset, origin)
        if node.op_type not in QUANTIZED and any(name and is_quantized(self.builder, name) for name in names):
            return on_reals(self.layer(node, names, opset, origin))
        if handler is None:
            return self.composite(node, names, domain, opset, origin)
        result = handler(self.layer(node, names, opset, origin))
        return (result,) if isinstance(result, str) else result

    def layer(self, node: onnx.NodeProto, inputs: tuple[str, ...], opset: int, origin: str) -> Layer:
        """The node as handlers see it."""
        attributes = {attribute.name: _plain(attribute) for attribute in node.attribute}
        return Layer(self.builder, node.op_type, origin, inputs, opset, attributes, tuple(node.output))

    def fold(
        self, node: onnx.NodeProto, inputs: tuple[str, ...], values: list[Array | None], opset: int, origin: str
    ) -> tuple[str, ...]:
        """Compute a node without run-time inputs by onnx's reference implementation."""
        arrays = folded(node, values, opset, limit=LARGEST_TENSOR)
        names = [name or origin for name in node.output]
        moved = inputs[0] if node.op_type in MOVES and inputs else ""
        return tuple(
            self.builder.constant(name, array, self.builder.grid(moved, array))
            for name, array in zip(names, arrays, strict=False)
        )

    def composite(
        self, node: onnx.NodeProto, inputs: tuple[str, ...], domain: str, opset: int, origin: str
    ) -> tuple[str, ...]:
        """Expand an operator by the function body onnx defines for it."""
        types = [self.builder.type(name) if name else None for name in inputs]
        body = expanded(node, types, domain, opset)
        if body is None:
            where = "" if domain == "ai.onnx" else f" of domain {domain}"
            raise NoCFormError(f"no such operator{where} here")
        scope: Scope = {**dict.fromkeys(body.inputs, ""), **dict(zip(body.inputs, inputs, strict=False))}
        saved = self.opsets
        self.opsets = self.opsets | body.opsets
        self.nodes(body.nodes, scope, origin)
        self.opsets = saved
        results = [scope.get(name) for name in body.outputs]
        if any(name is None and wanted for name, wanted in zip(results, node.output, strict=False)):
            return ()
        return tuple(name or "" for name in results)

    def control(self, node: onnx.NodeProto, scope: Scope, origin: str) -> tuple[str, ...]:
        """An If whose condition is known at import is the branch it takes."""
        condition = scope[node.input[0]] if node.op_type == "If" and node.input else None
        value = self.builder.value(condition) if condition else None
        if value is None or value.size != 1:
            raise NoCFormError("control flow that depends on the data has no C form")
        wanted = "then_branch" if bool(value.reshape(())) else "else_branch"
        branch = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
        inner = dict(scope)
        self.initializers(branch, inner)
        self.nodes(branch.node, inner, origin)
        results = [inner[value.name] for value in branch.output]
        return tuple(name for name in results if name is not None) if None not in results else ()


def _reads(node: onnx.NodeProto, made: set[str]) -> list[str]:
    """The values a node needs, those of its branches included when this graph computes them."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.HasField("g"):
            names += [name for inner in attribute.g.node for name in _reads(inner, made) if name in made]
    return names


def _has_body(node: onnx.NodeProto, domain: str, opset: int) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _plain(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode(errors="replace") if isinstance(value, bytes) else value

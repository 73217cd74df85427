"""From a read network to a Graph: operators in order, each through its handler."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import InputError
from toolchain.importers.builder import GraphBuilder, one_line
from toolchain.importers.layer import NoCFormError
from toolchain.importers.shapes import shape_overrides
from toolchain.importers.tflite import layers
from toolchain.importers.tflite.inputs import closed_shape
from toolchain.importers.tflite.layer import HANDLERS, Layer, real_values
from toolchain.importers.tflite.tracing import Traces
from toolchain.importers.tflite.types import (
    QUANTIZED,
    as_declared,
    constant_data,
    element_type,
    outside_type,
    quantization,
)
from toolchain.importers.tflite.variables import HANDLES, Variables, cleared, shared_name, state_type
from toolchain.ir.graph import Graph, Port
from toolchain.ir.types import DType, TensorType
from toolchain.ops.convert import Quantize
from toolchain.ops.shape import Copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolchain.importers.tflite.reading import Network, Operator, Stored

MALFORMED = (ValueError, IndexError, KeyError, TypeError, OverflowError, ZeroDivisionError, AttributeError)

assert layers  # imported for the handlers it registers


def convert(network: Network, subject: str, input_shape: Sequence[tuple[str, tuple[int, ...]]] = ()) -> Graph:
    """Return the Graph of a network. Raises InputError and UnsupportedError."""
    return _Conversion(network, subject).run(input_shape)


class _Conversion:
    """The state of one import: the graph under construction and the tensors known so far.

    `known` maps a tensor's index to its name in the graph; None is the result of a layer without a C form.
    """

    def __init__(self, network: Network, subject: str) -> None:
        self.network = network
        self.builder = GraphBuilder(subject)
        self.known: dict[int, str | None] = {}
        self.ports: dict[str, Port] = {}
        self.traces = Traces()
        self.variables = Variables(self.builder)
        self.handles: dict[int, str] = {}
        self.once = False

    def run(self, input_shape: Sequence[tuple[str, tuple[int, ...]]]) -> Graph:
        names = [self.port_name(index, self.network.input_names) for index in self.network.inputs]
        given = shape_overrides(self.builder.subject, names, input_shape)
        for index, name in zip(self.network.inputs, names, strict=True):
            self.known[index] = self.input(self.network.tensors[index], name, given.get(name))
        for operator in self.network.operators:
            self.operator(operator)
        self.variables.finish()
        for read, write in self.traces.updates.items():
            self.builder.keep(read, write)
        return self.finish()

    def port_name(self, index: int, signature: dict[int, str]) -> str:
        """The name users know an input or output by: the signature's, else the tensor's."""
        return signature.get(index) or self.network.tensors[index].name or f"tensor_{index}"

    def input(self, tensor: Stored, name: str, given: tuple[int, ...] | None) -> str:
        """Declare an input. uint8 stays outside; inside its integers are int8."""
        shape = closed_shape(self.builder, name, tensor, given)
        try:
            outside = outside_type(tensor, shape)
            inside = TensorType(shape, element_type(tensor), quantization(tensor))
        except (NoCFormError, ValueError) as error:
            raise self.builder.error(name, str(error)) from None
        made = self.builder.input(label(tensor.name) or name, outside)
        self.ports[made] = Port(name)
        if outside == inside:
            return made
        return self.builder.add(Quantize(), [made], origin=name, types=[inside])[0]

    def finish(self) -> Graph:
        """Name the outputs as the model does; each is a tensor of its own."""
        ends: list[str] = []
        for index in self.network.outputs:
            tensor, name = self.network.tensors[index], self.port_name(index, self.network.output_names)
            found = self.known.get(index, "")
            if found is None:
                continue
            if not found:
                if tensor.data is None:
                    raise self.builder.error(name, "an output no layer computes, expected the result of a layer")
                self.builder.problem(f"{one_line(name)}: an output that depends on no input; drop it")
                continue
            end = self.output(found, tensor, name, taken=found in ends)
            if end is not None:
                self.ports[end] = Port(name)
                ends.append(end)
        return self.builder.finish(ends, self.ports)

    def output(self, name: str, tensor: Stored, port: str, *, taken: bool) -> str | None:
        """The tensor that is an output, with uint8 restored; None for a constant."""
        if self.builder.value(name) is not None:
            self.builder.problem(f"{one_line(port)}: an output that depends on no input; drop it")
            return None
        kind = self.builder.type(name)
        if tensor.kind == "UINT8" and kind.quant is not None:
            name = self.builder.add(Quantize(), [name], origin=port, types=[outside_type(tensor, kind.shape)])[0]
        elif taken or name in self.builder.inputs:
            name = self.builder.add(Copy(), [name], origin=port, types=[kind])[0]
        self.builder.wish(name, label(tensor.name) or port)
        return name

    def operator(self, operator: Operator) -> None:
        """Convert one operator, or remember why it cannot be."""
        origin = self.origin(operator)
        try:
            results = self.results(operator, origin)
        except NoCFormError as error:
            self.builder.problem(f"{origin}: {operator.kind}: {one_line(str(error))}")
            results = ()
        except InputError:
            raise
        except MALFORMED as error:
            raise self.builder.error(f"{origin} ({operator.kind})", str(error)) from error
        self.known |= dict.fromkeys(operator.outputs, None)
        for index, name in zip(operator.outputs, results, strict=False):
            self.known[index] = name
            if name not in self.builder.inputs and self.builder.value(name) is None:
                self.builder.wish(name, label(self.network.tensors[index].name))

    def origin(self, operator: Operator) -> str:
        """The name users know a layer by: that of its first output."""
        names = [label(self.network.tensors[index].name) for index in operator.outputs]
        return next((name for name in names if name), operator.kind.lower())

    def results(self, operator: Operator, origin: str) -> tuple[str, ...]:
        """The tensors that are the operator's outputs; () when its inputs are unknown already."""
        if operator.kind in HANDLES:
            return self.variable(operator, origin)
        handler = None if operator.custom else HANDLERS.get(operator.kind)
        if handler is None:
            raise NoCFormError("no such operator here" if not operator.custom else "a custom operator has no C form")
        outputs = [self.network.tensors[index] for index in operator.outputs]
        if any(tensor.variable for tensor in outputs):
            raise NoCFormError("it keeps state between runs")
        found = [self.operand(index) for index in operator.inputs]
        if None in found:
            return ()
        names = tuple(name or "" for name in found)
        declared = tuple(as_declared(tensor) for tensor in outputs)
        if not declared:
            raise ValueError("no outputs")
        if declared[0].dtype is DType.FLOAT32 and operator.kind != "DEQUANTIZE":
            names = self.dequantized(names)
        inner = tuple(quantization(self.network.tensors[index]) for index in operator.intermediates)
        layer = Layer(self.builder, operator.kind, origin, names, operator.options, declared, self.traces, inner)
        first = next((self.network.tensors[index] for index in operator.inputs if index >= 0), None)
        layer = replace(layer, unsigned=first is not None and first.kind == "UINT8" and first.scheme is not None)
        result = handler(layer)
        results = (result,) if isinstance(result, str) else result
        return tuple(self.quantized(name, kind, origin) for name, kind in zip(results, declared, strict=False))

    def variable(self, operator: Operator, origin: str) -> tuple[str, ...]:
        """Operators on variables leave nothing in the graph but states."""
        if operator.kind == "CALL_ONCE":
            self.initialise(self.network.others[int(operator.options["InitSubgraphIndex"])])
            return ()
        if operator.kind == "VAR_HANDLE":
            self.handles[operator.outputs[0]] = shared_name(operator)
            return ()
        name = self.handles.get(operator.inputs[0])
        if name is None:
            raise NoCFormError("a variable that is not named by a VAR_HANDLE before it")
        if operator.kind == "READ_VARIABLE":
            return (self.variables.read(name, self.network.tensors[operator.outputs[0]], origin),)
        value = self.operand(operator.inputs[1])
        if value is not None:
            self.variables.assign(name, value, once=self.once)
        return ()

    def initialise(self, network: Network) -> None:
        """Follow a subgraph that runs once, before the first run."""
        other = _Conversion(network, self.builder.subject)
        other.builder, other.variables, other.once = self.builder, self.variables, True
        for operator in network.operators:
            other.operator(operator)

    def quantized(self, name: str, declared: TensorType, origin: str) -> str:
        """A result computed on real numbers, as the integers the file declares."""
        found = self.builder.type(name)
        if declared.quant is None or found.dtype is not DType.FLOAT32 or self.builder.value(name) is not None:
            return name
        return self.builder.add(Quantize(), [name], origin=origin, types=[replace(declared, shape=found.shape)])[0]

    def operand(self, index: int) -> str | None:
        """The tensor an operator reads: "" when omitted, None when unknown."""
        if index < 0:
            return ""
        if index not in self.known:
            self.known[index] = self.constant(self.network.tensors[index])
        return self.known[index]

    def constant(self, tensor: Stored) -> str:
        """Add a constant of the file."""
        name = label(tensor.name) or "constant"
        if tensor.sparse:
            raise NoCFormError(f"{name} is sparse, expected a dense tensor")
        if tensor.variable:
            kind = state_type(tensor)
            return self.builder.state(name, kind, cleared(kind))
        if tensor.kind not in QUANTIZED:
            element_type(tensor)
        data = constant_data(tensor)
        if data is None:
            raise ValueError(
                f"reads {name!r}, which no layer computes; expected an input, a weight or a layer's output"
            )
        return self.builder.constant(name, data, quantization(tensor))

    def dequantized(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Operands of a float operator: integer weights become the reals they stand for."""
        kinds = [self.builder.type(name) for name in names if name and self.builder.value(name) is None]
        if not kinds or any(kind.quant is not None for kind in kinds):
            return names
        return tuple(self.real(name) if name else "" for name in names)

    def real(self, name: str) -> str:
        """The float constant behind a quantized one; other tensors as they are."""
        kind, value = self.builder.type(name), self.builder.value(name)
        if value is None or kind.quant is None:
            return name
        return self.builder.constant(name, np.asarray(real_values(value, kind.quant)))


def label(name: str) -> str:
    """A tensor's name, short: converters join the names of all layers they merged by semicolons."""
    return one_line(name.split(";", maxsplit=1)[0])

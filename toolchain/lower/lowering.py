"""From nodes to kernel calls: names, shared constants, aliases of views, copies of outputs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from toolchain.config import Options, Rounding
from toolchain.errors import InputError
from toolchain.ir.graph import Graph, State, Tensor
from toolchain.ir.types import Array, DType
from toolchain.lower.names import check_model_name, record_name
from toolchain.lower.program import NULL, Buffer, ByBody, PortSpec, Program, Ref, StateSpec, Step, Value
from toolchain.ops.base import OPERATORS, Bodies, Body, Call, Constant, Field, Kernel, Op, Operands, Plain


def lower(graph: Graph, options: Options) -> Program:
    """Return the program of `graph`, its memory not yet planned.

    Raises InputError for a model name that C does not take, and what the operators raise about their layer.
    """
    name = check_model_name(options.name)
    work = _Lowering(graph, options.rounding)
    work.inputs()
    for index, node in enumerate(graph.nodes):
        if node.op.view:
            work.alias(node.outputs[0], node.inputs[0])
        else:
            work.node(node.op, graph.operands(node.inputs), graph.operands(node.outputs), node.origin, index)
    outputs = tuple(work.output(index, tensor) for index, tensor in enumerate(graph.outputs))
    states = work.states()
    return Program(
        name=name,
        kernels=tuple(work.kernels.values()),
        steps=tuple(work.steps),
        constants=work.constants,
        buffers=work.buffers,
        inputs=tuple(_port(graph, i, tensor, work.refs[tensor]) for i, tensor in enumerate(graph.inputs)),
        outputs=outputs,
        rounding=options.rounding,
        preserve_input=options.preserve_input,
        states=states,
    )


def _port(graph: Graph, index: int, tensor: str, buffer: Ref) -> PortSpec:
    outside = graph.port(tensor)
    return PortSpec(index, outside.name, buffer, graph.tensors[tensor].type, outside.permutation)


@dataclass
class _Lowering:
    """What grows while the nodes are walked. `refs` says where a tensor's value is."""

    graph: Graph
    rounding: Rounding
    refs: dict[str, Ref] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    _by_content: dict[tuple[str, int, int], list[str]] = field(default_factory=dict)
    _taken: set[Ref] = field(default_factory=set)

    def inputs(self) -> None:
        """Give every graph input its buffer."""
        for index, name in enumerate(self.graph.inputs):
            self.refs[name] = self._buffer(f"input{index}", self.graph.tensors[name])
            self._taken.add(self.refs[name])
        for index, state in enumerate(self.graph.states):
            self.refs[state.read] = self._buffer(f"state{index}", self.graph.tensors[state.read])
            self._taken.add(self.refs[state.read])

    def states(self) -> tuple[StateSpec, ...]:
        """Copy the new values of states over the old ones, where no kernel has written them there."""
        homes = {self.refs[state.read] for state in self.graph.states}
        sources = [self.graph.tensors[state.write] for state in self.graph.states]
        for index, state in enumerate(self.graph.states):
            if self.refs.get(state.write) in homes - {self.refs[state.read]}:
                self._copy(state.write, f"state {index}")
                sources[index] = Tensor(f"{state.write}:state {index}", sources[index].type)
        for state, source in zip(self.graph.states, sources, strict=True):
            if self.refs.get(source.name) != self.refs[state.read]:
                target = self.graph.tensors[state.read]
                self.node(OPERATORS["Copy"](), (source,), (target,), "the next state", len(self.graph.nodes))
        return tuple(self._state(index, state) for index, state in enumerate(self.graph.states))

    def _state(self, index: int, state: State) -> StateSpec:
        fill = set(np.ascontiguousarray(state.initial).tobytes())
        if len(fill) <= 1:
            return StateSpec(self.refs[state.read], fill.pop() if fill else 0)
        return StateSpec(self.refs[state.read], 0, self._constant(f"state{index}_initial", state.initial))

    def _updated(self, op: Op, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        """Let a kernel that may do so write the new value of a state over the old one, where nothing else reads it."""
        for output, source in op.updates:
            names = outputs[output].name, inputs[source].name
            states = [state for state in self.graph.states if (state.write, state.read) == names]
            readers = sum(node.inputs.count(names[1]) for node in self.graph.nodes)
            if states and readers == 1:
                self.refs[names[0]] = self.refs[names[1]]

    def alias(self, output: str, source: str) -> None:
        """Let `output` be the memory of `source`."""
        tensor = self.graph.tensors[source]
        if source not in self.refs and tensor.data is not None:
            self.refs[source] = self._constant(f"constant{len(self.constants)}", tensor.data)
        self.refs[output] = self.refs[source]

    def node(self, op: Op, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], origin: str, index: int) -> None:
        """Append the calls of one operator."""
        self._updated(op, inputs, outputs)
        largest = max((tensor.type.bytes for tensor in self.graph.tensors.values() if tensor.data is None), default=0)
        room = largest - sum(tensor.type.bytes for tensor in (*inputs, *outputs) if tensor.data is None)
        for call in op.lower(Operands(inputs, outputs, self.rounding, max(room, 0))):
            self._call(call, inputs, outputs, origin, index)

    def output(self, index: int, name: str) -> PortSpec:
        """Return the port of a graph output; one that is an input, a constant or another output gets a copy."""
        ref = self.refs.get(name)
        if ref is None or ref not in self.buffers or ref in self._taken:
            ref = self._copy(name, f"output {index}")
        self._taken.add(ref)
        return _port(self.graph, index, name, ref)

    def _copy(self, name: str, role: str) -> Ref:
        source = self.graph.tensors[name]
        target = Tensor(f"{name}:{role}", source.type)
        origin = f"{self.graph.port(name).name} as {role}"
        self.node(OPERATORS["Copy"](), (source,), (target,), origin, len(self.graph.nodes))
        return self.refs[target.name]

    def _call(
        self, call: Call, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], origin: str, node: int
    ) -> None:
        self._kernel(call.kernel)
        name = record_name(call.kernel.macro, call.kernel.symbol, len(self.steps))
        written = tuple(outputs[i] for i in call.writes)
        step = Step(
            kernel=call.kernel,
            record_name=name,
            record={key: self._field(f"{name}_{key.replace('.', '_')}", value) for key, value in call.record.items()},
            reads=tuple(self._read(f"{name}_input{i}", inputs[i]) for i in call.reads),
            writes=tuple(self._write(name, position, tensor) for position, tensor in enumerate(written)),
            scratch=self._scratch(name, call.scratch),
            overlaps=call.overlaps,
            origin=origin,
            node=node,
            tensors=tuple(tensor.name for tensor in written),
        )
        self.steps.append(step)

    def _kernel(self, kernel: Kernel) -> None:
        known = self.kernels.setdefault(kernel.symbol, kernel)
        if known != kernel:
            raise ValueError(f"{kernel.symbol}: two kernels of one name, {known} and {kernel}")

    def _field(self, name: str, value: Field) -> Value | ByBody:
        if not isinstance(value, Bodies):
            return self._value(name, value)
        return {body: self._body_value(name, value, body) for body in Body}

    def _body_value(self, name: str, field: Bodies, body: Body) -> Value | None:
        value = field.of(body)
        if value is None:
            return None
        return self._value(name if body is Body.PORTABLE else f"{name}_{body.value}", value)

    def _value(self, name: str, value: Plain) -> Value:
        return self._constant(name, value.data) if isinstance(value, Constant) else value

    def _read(self, name: str, tensor: Tensor) -> Ref:
        if tensor.name in self.refs:
            return self.refs[tensor.name]
        if tensor.data is None:
            raise ValueError(f"{tensor.name}: read before it is written")
        return self._constant(name, tensor.data)

    def _write(self, record: str, position: int, tensor: Tensor) -> Ref:
        if tensor.name not in self.refs:
            self.refs[tensor.name] = self._buffer(record if position == 0 else f"{record}_{position}", tensor)
        return self.refs[tensor.name]

    def _buffer(self, name: str, tensor: Tensor) -> Ref:
        if tensor.type.elements < 1:
            raise InputError(f"{tensor.name}: found shape {tensor.type.shape}, expected at least one element")
        self.buffers[name] = Buffer(name, tensor.type.dtype, tensor.type.elements)
        return name

    def _scratch(self, record: str, size: int | None) -> Ref | None:
        if not size:
            return None if size is None else NULL
        name = f"{record}_scratch"
        self.buffers[name] = Buffer(name, DType.INT8, size)
        return name

    def _constant(self, name: str, data: Array) -> Ref:
        """Return the C name of an array with these elements, adding it when no equal one is there."""
        array = np.ascontiguousarray(data).reshape(data.shape)
        key = (array.dtype.name, array.nbytes, zlib.crc32(array.tobytes()))
        for known in self._by_content.setdefault(key, []):
            if self.constants[known].tobytes() == array.tobytes():
                return known
        self._by_content[key].append(name)
        self.constants[name] = array
        return name

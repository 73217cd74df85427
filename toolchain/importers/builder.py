"""Builds a Graph node by node: infers types, folds constants, collects what has no C form."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import InputError, UnsupportedError
from toolchain.ir.graph import Graph, Node, Port, State, Tensor
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.ops.base import QuantRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from toolchain.ops.base import Op

LARGEST_TENSOR = 2**31 - 1
"""Elements: the generated C counts in int32_t."""

_NEAREST = {
    "float16": "float32",
    "float64": "float32",
    "bfloat16": "float32",
    "int4": "int8",
    "uint4": "uint8",
    "uint16": "int32",
    "uint32": "int64",
    "uint64": "int64",
}
OFF_GRID = 1e-3
"""Steps by which float32 may miss a grid its values were computed on."""


def canonical(array: Array) -> Array:
    """The array in the IR's element type nearest to its own. Raises TypeError where there is none."""
    name = _NEAREST.get(array.dtype.name, array.dtype.name)
    if name not in {dtype.value for dtype in DType}:
        raise TypeError(f"element type {array.dtype.name} is not supported")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array.astype(name, copy=False)).reshape(array.shape)


class GraphBuilder:
    """Grows a Graph in execution order. `subject` (the model's file name) begins every error."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.inputs: list[str] = []
        self.problems: list[str] = []
        self.states: dict[str, State] = {}
        self.four_bit: set[str] = set()
        self.unsigned: set[str] = set()
        self._counts: dict[str, int] = {}
        self._wishes: dict[str, str] = {}

    def input(self, name: str, tensor_type: TensorType) -> str:
        """Declare a graph input; returns its tensor name."""
        if any(extent < 1 for extent in tensor_type.shape):
            raise self.error(name, f"input shape {tensor_type.shape}, expected extents of 1 or more")
        self._check_size(name, tensor_type)
        self.inputs.append(self._remember(Tensor(self.unique(name), tensor_type)))
        return self.inputs[-1]

    def state(self, name: str, tensor_type: TensorType, initial: Array) -> str:
        """Declare what is kept from run to run; returns the name of its value at the start of a run."""
        made = self._remember(Tensor(self.unique(name), tensor_type))
        self.states[made] = State(made, made, np.asarray(initial, tensor_type.dtype.numpy).reshape(tensor_type.shape))
        return made

    def keep(self, read: str, write: str) -> None:
        """Let `write` be what the state `read` holds at the start of the next run."""
        self.states[read] = replace(self.states[read], write=write)

    def constant(self, name: str, array: Array, quant: QuantParams | None = None) -> str:
        """Add a constant; returns its tensor name. Raises InputError for NaN and unknown element types.

        The name of a constant that lies on a grid hands that grid on, if the values are on it.
        """
        try:
            data = canonical(np.asarray(array))
        except TypeError as error:
            raise self.error(name, str(error)) from None
        if data.dtype.kind == "f" and np.isnan(data).any():
            raise self.error(name, "the weights contain NaN, expected finite numbers; was the training stable?")
        added = self._add_constant(name, data, quant or self.grid(name, data))
        if np.asarray(array).dtype.name in {"int4", "uint4"}:
            self.four_bit.add(added)
        return added

    def grid(self, name: str, data: Array) -> QuantParams | None:
        """The grid of a named float constant, as far as `data`, made from it, lies on it."""
        known = self.tensors.get(name)
        if known is None or known.data is None or known.type.dtype is not DType.FLOAT32 or known.type.quant is None:
            return None
        return carried(known.type.quant, data)

    def add(
        self,
        op: Op,
        inputs: Sequence[str],
        *,
        origin: str,
        names: Sequence[str] | None = None,
        types: Sequence[TensorType] | None = None,
    ) -> tuple[str, ...]:
        """Apply an operator; returns the names of its outputs.

        `names` are wished names of the outputs (made unique); the origin when not given. `types` replaces the
        inferred types, for quantized models; its shapes must equal the inferred ones. A node whose inputs are
        all unquantized constants is computed here and now.
        """
        operands = [self.tensors[name] for name in inputs]
        types = self._infer(op, operands, origin, types)
        wished = names if names is not None else [origin] * len(types)
        if operands and all(_foldable(tensor) for tensor in operands) and all(t.quant is None for t in types):
            return self._fold(op, operands, origin, wished)
        outputs = tuple(
            self._remember(Tensor(self.unique(name), output_type))
            for name, output_type in zip(wished, types, strict=True)
        )
        self.nodes.append(Node(op, tuple(inputs), outputs, origin))
        return outputs

    def problem(self, text: str) -> None:
        """Remember a layer without a C form; `finish` reports all of them."""
        if text not in self.problems:
            self.problems.append(text)

    def error(self, origin: str, text: str) -> InputError:
        """An error about one layer or tensor, on one line."""
        return InputError(f"{self.subject}: {one_line(origin)}: {one_line(text)}")

    def type(self, name: str) -> TensorType:
        """The type of a tensor."""
        return self.tensors[name].type

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self.tensors[name].type.shape

    def value(self, name: str) -> Array | None:
        """The data of a constant, or None for a tensor computed at run time."""
        return self.tensors[name].data

    def unique(self, name: str) -> str:
        """A tensor name not in use yet: the name itself or the name with a number."""
        candidate = name
        while not candidate or candidate in self.tensors:
            self._counts[name] = self._counts.get(name, 0) + 1
            candidate = f"{name}_{self._counts[name]}"
        return candidate

    def wish(self, name: str, wished: str) -> None:
        """Ask for another name of a tensor in the finished graph; granted where it is free."""
        self._wishes[name] = wished

    def finish(self, outputs: Iterable[str], ports: Mapping[str, Port] | None = None) -> Graph:
        """The finished graph, without dead nodes. Raises UnsupportedError naming every problem."""
        if self.problems:
            raise UnsupportedError(self.subject, self.problems)
        ends = tuple(outputs)
        if not ends:
            raise InputError(f"{self.subject}: the model has no outputs, expected at least one")
        states = [state for state in self.states.values() if state.write != state.read]
        nodes = _live(self.nodes, (*ends, *(state.write for state in states)))
        kept = (*(state.read for state in self.states.values()), *(state.write for state in states))
        used = {*self.inputs, *ends, *kept, *(name for node in nodes for name in (*node.inputs, *node.outputs))}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        new = self._granted(tensors)
        return Graph(
            tuple(
                Node(node.op, tuple(new[i] for i in node.inputs), tuple(new[o] for o in node.outputs), node.origin)
                for node in nodes
            ),
            {new[name]: replace(tensor, name=new[name]) for name, tensor in tensors.items()},
            tuple(new[name] for name in self.inputs),
            tuple(new[name] for name in ends),
            {new[name]: port for name, port in (ports or {}).items()},
            states=tuple(State(new[each.read], new[each.write], each.initial) for each in self.states.values()),
        )

    def _granted(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Old name -> new name of every live tensor."""
        taken = set(tensors)
        new = {name: name for name in tensors}
        for name in tensors:
            wished = self._wishes.get(name, name)
            if wished and wished not in taken:
                taken.add(wished)
                new[name] = wished
        return new

    def _remember(self, tensor: Tensor) -> str:
        self.tensors[tensor.name] = tensor
        return tensor.name

    def _add_constant(self, name: str, data: Array, quant: QuantParams | None = None) -> str:
        unique = self.unique(name)
        self.wish(unique, name)
        self.tensors[unique] = Tensor(unique, TensorType(data.shape, DType(data.dtype.name), quant), data)
        return unique

    def _infer(
        self, op: Op, operands: Sequence[Tensor], origin: str, types: Sequence[TensorType] | None
    ) -> tuple[TensorType, ...]:
        try:
            inferred = op.infer(*(tensor.type for tensor in operands))
        except ValueError as error:
            raise self.error(origin, str(error)) from error
        for output_type in inferred:
            self._check_size(origin, output_type)
        if types is None:
            return inferred
        found, expected = [t.shape for t in types], [t.shape for t in inferred]
        if found != expected:
            raise self.error(origin, f"output shape {found}, expected {expected} from its inputs")
        return tuple(types)

    def _check_size(self, origin: str, tensor_type: TensorType) -> None:
        if any(extent < 0 for extent in tensor_type.shape):
            raise self.error(origin, f"impossible shape {tensor_type.shape}")
        if tensor_type.elements > LARGEST_TENSOR:
            raise self.error(origin, f"shape {tensor_type.shape} has more than {LARGEST_TENSOR} elements")

    def _fold(self, op: Op, operands: Sequence[Tensor], origin: str, names: Sequence[str]) -> tuple[str, ...]:
        try:
            with np.errstate(all="ignore"):
                values = op.reference(*(np.asarray(tensor.data) for tensor in operands))
        except ValueError as error:
            raise self.error(origin, str(error)) from error
        moves = op.quant_rule is QuantRule.SAME_AS_INPUT
        results = [canonical(np.asarray(value)) for value in values]
        grids = [self.grid(operands[0].name, data) if moves else None for data in results]
        return tuple(
            self._add_constant(name, data, grid) for name, data, grid in zip(names, results, grids, strict=True)
        )


def one_line(text: str | bytes) -> str:
    """The text without line breaks and control characters, so that an error stays on its line.

    Bytes are what protobuf gives for a damaged string.
    """
    text = text if isinstance(text, str) else text.decode(errors="replace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def carried(quant: QuantParams, data: Array) -> QuantParams | None:
    """The parameters of float values made by moving values on a grid; None where they left it.

    Scales per channel are looked for along each axis, repeated where the axis holds groups of channels.
    """
    if data.dtype.kind != "f":
        return None
    count = len(quant.scale)
    if quant.axis is None:
        return quant if _on_grid(data, np.asarray(quant.scale, np.float64)) else None
    for axis, extent in enumerate(data.shape):
        if extent % count == 0 and extent:
            scales = quant.scale * (extent // count)
            if _on_grid(np.moveaxis(data, axis, -1), np.asarray(scales, np.float64)):
                return QuantParams(scales, quant.zero_point, axis)
    return None


def _on_grid(data: Array, scales: Array) -> bool:
    steps = data.astype(np.float64) / scales
    return bool(np.all(np.abs(steps - np.rint(steps)) < OFF_GRID))


def _foldable(tensor: Tensor) -> bool:
    return tensor.data is not None and (tensor.type.quant is None or tensor.type.dtype is DType.FLOAT32)


def _live(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    needed = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]

"""Tensors, nodes and graphs. A pass returns a new graph; nothing is changed in place."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from toolchain.ir.types import Array, TensorType

if TYPE_CHECKING:
    from toolchain.ops.base import Op


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named value; `data` is set for constants."""

    name: str
    type: TensorType
    data: Array | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One operator applied to named tensors. `origin` is the user's own name for the layer."""

    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class Port:
    """How a graph input or output looks outside: the framework's name, shape and the layout the C has.

    `permutation` maps the framework's axes to the C's: c = transpose(framework, permutation).
    """

    name: str
    permutation: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a network keeps from one run to the next: `read` at its start, `write` at its end, at first `initial`."""

    read: str
    write: str
    initial: Array


@dataclass(frozen=True, slots=True)
class Graph:
    """A network: nodes in execution order over `tensors`, with named inputs and outputs, and perhaps states.

    `conversions_annotate`: an operator between Dequantize and Quantize is meant to run on integers (ONNX), and not
    a float operator the model asks for (TensorFlow Lite).
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ports: Mapping[str, Port] = field(default_factory=dict)
    conversions_annotate: bool = False
    states: tuple[State, ...] = ()

    @property
    def starts(self) -> tuple[str, ...]:
        """Tensors that hold something before the first node runs: inputs, and states as they were left."""
        return (*self.inputs, *(state.read for state in self.states))

    @property
    def ends(self) -> tuple[str, ...]:
        """Tensors whose values are wanted after the last node: outputs, and states as they will be found."""
        return (*self.outputs, *(state.write for state in self.states))

    def operands(self, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        """The tensors behind names."""
        return tuple(self.tensors[name] for name in names)

    def consumers(self) -> dict[str, list[Node]]:
        """For each tensor the nodes that read it (once per node)."""
        readers: dict[str, list[Node]] = {name: [] for name in self.tensors}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers[name].append(node)
        return readers

    def producers(self) -> dict[str, Node]:
        """For each computed tensor the node that writes it."""
        return {name: node for node in self.nodes for name in node.outputs}

    def with_(self, **changes: object) -> Graph:
        """A copy with some fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def port(self, name: str) -> Port:
        """The outside view of a graph input or output."""
        return self.ports.get(name, Port(name))


def unused_name(hint: str, taken: Container[str], separator: str = ".") -> str:
    """The name itself or, where it is taken, with the first number that is free behind it.

    >>> unused_name("x", {"x", "x.1"}), unused_name("y", {"x"})
    ('x.2', 'y')
    """
    name, count = hint, 0
    while name in taken:
        count += 1
        name = f"{hint}{separator}{count}"
    return name

"""The working copy on which one pass edits a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir.graph import Graph, Node, Port, Tensor, unused_name
from toolchain.ir.types import Array, DType, TensorType

if TYPE_CHECKING:
    from toolchain.ops.base import Op


class Draft:
    """A graph under edit: nodes may be added and dropped in any order, `graph()` sorts what is left."""

    def __init__(self, graph: Graph) -> None:
        self.source = graph
        self.tensors = dict(graph.tensors)
        self.outputs = graph.ends
        self.changed = False
        self.producers: dict[str, Node] = {}
        self._readers: dict[str, dict[int, Node]] = {}
        self._nodes: dict[int, Node] = {}
        self._place: dict[int, float] = {}
        for place, node in enumerate(graph.nodes):
            self._link(node, place)

    @property
    def nodes(self) -> list[Node]:
        """The nodes, where they stood in the source; new ones at the end."""
        return sorted(self._nodes.values(), key=lambda node: self._place[id(node)])

    def holds(self, node: Node) -> bool:
        """Whether the node (this very one) is still there."""
        return self._nodes.get(id(node)) is node

    def _link(self, node: Node, place: float) -> None:
        self._nodes[id(node)] = node
        self._place[id(node)] = place
        for name in node.outputs:
            self.producers[name] = node
        for name in node.inputs:
            self._readers.setdefault(name, {})[id(node)] = node

    def _unlink(self, node: Node) -> float:
        del self._nodes[id(node)]
        for name in node.outputs:
            if self.producers.get(name) is node:
                del self.producers[name]
        for name in node.inputs:
            self._readers[name].pop(id(node), None)
        return self._place.pop(id(node))

    def readers(self, name: str) -> list[Node]:
        """The nodes that read a tensor, once each."""
        return list(self._readers.get(name, {}).values())

    def type(self, name: str) -> TensorType:
        """The type of a tensor."""
        return self.tensors[name].type

    def data(self, name: str) -> Array | None:
        """The values of a constant, None for a computed tensor."""
        return self.tensors[name].data

    def is_float(self, *names: str) -> bool:
        """Whether all the tensors are float32."""
        return all(self.type(name).dtype is DType.FLOAT32 for name in names)

    def only_reader(self, name: str) -> Node | None:
        """The node that alone reads a tensor which is not a graph output."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def private_producer(self, name: str) -> Node | None:
        """The node that computes a tensor which nothing but one node reads."""
        return self.producers.get(name) if self.only_reader(name) else None

    def fresh(self, hint: str) -> str:
        """An unused tensor name."""
        return unused_name(hint, self.tensors)

    def constant(self, hint: str, data: Array, like: TensorType | None = None) -> str:
        """Add a constant (float32, or the type of `like`) and return its name."""
        base = like or TensorType((), DType.FLOAT32)
        array = np.ascontiguousarray(data, base.dtype.numpy)
        name = self.fresh(hint)
        self.tensors[name] = Tensor(name, TensorType(array.shape, base.dtype, base.quant), array)
        return name

    def tensor(self, hint: str, kind: TensorType) -> str:
        """Add a computed tensor and return its name."""
        name = self.fresh(hint)
        self.tensors[name] = Tensor(name, kind)
        return name

    def retype(self, name: str, kind: TensorType) -> None:
        """Give a computed tensor another type."""
        self.tensors[name] = Tensor(name, kind)

    def apply(self, op: Op, inputs: Iterable[str], origin: str) -> str:
        """Add a node with one output and return the output's name; the element type is that of input 0."""
        names = tuple(inputs)
        shape = op.infer(*(self.type(name) for name in names))[0].shape
        first = self.type(names[0])
        output = self.tensor(f"{names[0]}.{type(op).__name__.lower()}", TensorType(shape, first.dtype, first.quant))
        self.add(Node(op, names, (output,), origin))
        return output

    def add(self, *nodes: Node) -> None:
        """Add nodes."""
        self.changed = True
        for node in nodes:
            self._link(node, inf)

    def drop(self, *nodes: Node) -> None:
        """Remove nodes (their outputs must be written by others, or unread)."""
        self.changed = True
        for node in nodes:
            self._unlink(node)

    def replace(self, old: Node, new: Node) -> None:
        """Put a node in the place of another."""
        self.changed = True
        self._link(new, self._unlink(old))

    def bypass(self, node: Node, source: str | None = None) -> bool:
        """Drop a node whose output equals `source` (input 0). False when both are outside names of the graph."""
        source = source or node.inputs[0]
        output = node.outputs[0]
        if output not in self.outputs:
            self.drop(node)
            self._rename(output, source)
            return True
        if source in self.outputs or source not in self.producers:
            return False
        self.drop(node)
        self._rename(source, output)
        return True

    def _rename(self, old: str, new: str) -> None:
        def renamed(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(new if name == old else name for name in names)

        touched = self.readers(old)
        if old in self.producers:
            touched.append(self.producers[old])
        for node in touched:
            self.replace(node, Node(node.op, renamed(node.inputs), renamed(node.outputs), node.origin))

    def graph(self, ports: dict[str, Port] | None = None) -> Graph:
        """The edited graph, sorted and without unread tensors; the source itself when nothing changed."""
        if not self.changed:
            return self.source
        nodes = ordered(self.nodes)
        used = {name for node in nodes for name in (*node.inputs, *node.outputs)}
        used |= set(self.source.starts) | set(self.outputs)
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        return self.source.with_(nodes=nodes, tensors=tensors, ports=self.source.ports if ports is None else ports)


def ordered(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes sorted so that each stands after what it reads; earlier ones first where that is free."""
    pending = list(nodes)
    producers = {name: node for node in pending for name in node.outputs}
    done: set[int] = set()
    result: list[Node] = []
    for root in pending:
        stack = [root]
        while stack:
            node = stack[-1]
            needed = (producers[name] for name in node.inputs if name in producers)
            missing = [before for before in needed if id(before) not in done]
            if missing and id(node) not in done:
                stack.extend(missing)
                continue
            stack.pop()
            if id(node) not in done:
                done.add(id(node))
                result.append(node)
    return tuple(result)


Rule = Callable[[Draft, Node], bool]


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Apply a rule to each node until it holds nowhere; the rule edits the draft and says whether it did."""
    draft = Draft(graph)
    again = True
    while again:
        again = False
        for node in draft.nodes:
            if draft.holds(node) and rule(draft, node):
                again = True
    return draft.graph()

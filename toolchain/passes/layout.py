"""Choose how each tensor is stored, so that few Transposes remain.

Importers of channels-first frameworks stand a Transpose on both sides of each spatial operator. Here every computed
tensor gets a layout; a Transpose between a tensor stored as it asks and one stored as it makes vanishes. Tensors
joined by operators that run in any order (`layout_rules.UNIFORM`) form a region with one layout. Regions take, one
after another, the layout that moves the fewest elements, alone or together with the regions behind Reshape, Reduce
and Transpose, until no change helps. Only then is the graph rebuilt, and only if it moves less than before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir.graph import Graph, Node, Port, Tensor, unused_name
from toolchain.ir.types import TensorType
from toolchain.ops.dense import Dense
from toolchain.ops.shape import Reshape, Transpose
from toolchain.passes.dead import drop_dead_nodes
from toolchain.passes.draft import Draft, ordered
from toolchain.passes.layout_rules import Adapted, Site, axis_groups, moves_freely, suggestions, ways
from toolchain.passes.permutation import (
    Permutation,
    channels_last,
    identity,
    moved_axes,
    permuted,
    same_order,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Layout = dict[str, Permutation]
MOVE = 8
"""What a Transpose costs besides its elements."""
RENAME = 1
"""What a Transpose costs that moves nothing but axes of length one: it is a view, yet better avoided."""
SWEEPS = 10


def assign_layouts(graph: Graph, input_layout: str) -> Graph:
    """The graph with fewer and smaller Transposes.

    Under "nhwc" inputs and outputs of rank 3 and 4 may become channels-last themselves, which their Port records;
    under "nchw" they stay as the framework has them.
    """
    if not any(isinstance(node.op, Transpose) for node in graph.nodes):
        return graph
    search = Search(graph, input_layout)
    if not search.improve():
        return graph
    return drop_dead_nodes(Rebuild(search).graph())


class Search:
    """The current layout of every computed tensor, and what it costs."""

    def __init__(self, graph: Graph, input_layout: str) -> None:
        self.source = graph
        self.tensors = graph.tensors
        self.readers = graph.consumers()
        self.producers = graph.producers()
        self.free = {name for name in (*graph.inputs, *graph.outputs) if _may_turn(graph, name, input_layout)}
        self.pinned = {*graph.starts, *graph.ends} - self.free
        self.layout = {name: identity(len(t.type.shape)) for name, t in self.tensors.items() if t.data is None}
        self.flattens = {id(node) for node in graph.nodes if self._feeds_only_dense(node)}
        self.regions = self._regions()
        self.region_of = {name: region for region in self.regions for name in region}

    def _feeds_only_dense(self, node: Node) -> bool:
        """Whether a Reshape is read by Dense layers alone: then its last axis may be in any order."""
        if not isinstance(node.op, Reshape) or node.outputs[0] in self.source.ends:
            return False
        readers = self.readers[node.outputs[0]]
        weights = [self.tensors[reader.inputs[1]] for reader in readers if isinstance(reader.op, Dense)]
        return len(weights) == len(readers) > 0 and all(weight.data is not None for weight in weights)

    def _regions(self) -> list[tuple[str, ...]]:
        root = {name: name for name in self.layout}

        def find(name: str) -> str:
            while root[name] != name:
                name = root[name]
            return name

        for node in self.source.nodes:
            if moves_freely(node.op):
                rank = len(self.layout[node.outputs[0]])
                names = [n for n in (*node.outputs, *node.inputs) if n in self.layout and n not in self.pinned]
                names = [n for n in names if len(self.layout[n]) == rank]
                for name in names[1:]:
                    root[find(name)] = find(names[0])
        regions: dict[str, list[str]] = {}
        for name in self.layout:
            if name not in self.pinned:
                regions.setdefault(find(name), []).append(name)
        return [tuple(names) for names in regions.values()]

    def site(self, node: Node, layout: Mapping[str, Permutation]) -> Site:
        """The node with the types and layouts of its tensors."""

        def stored(names: tuple[str, ...]) -> tuple[Permutation, ...]:
            return tuple(layout.get(n) or identity(len(self.tensors[n].type.shape)) for n in names)

        types = {name: self.tensors[name].type for name in (*node.inputs, *node.outputs)}
        return Site(
            node,
            tuple(types[name] for name in node.inputs),
            tuple(types[name] for name in node.outputs),
            stored(node.inputs),
            stored(node.outputs),
        )

    def adapted(self, node: Node, layout: Mapping[str, Permutation]) -> Adapted:
        """How the node runs under a layout: the way that moves the least."""
        site = self.site(node, layout)
        if id(node) in self.flattens and flattened(site) is not None:
            return Adapted(node.op, site.stored_inputs, site.stored_outputs)
        return min(ways(site), key=lambda way: self._moves(way, site))

    def _moves(self, adapted: Adapted, site: Site) -> int:
        pairs = [
            *zip(site.node.inputs, adapted.needs, site.stored_inputs, strict=True),
            *zip(site.node.outputs, adapted.makes, site.stored_outputs, strict=True),
        ]
        cost = sum(
            _weight(self.tensors[name].type, need, stored)
            for name, need, stored in pairs
            if self.tensors[name].data is None
        )
        if isinstance(adapted.op, Transpose):
            shape = permuted(site.inputs[0].shape, adapted.needs[0])
            kind = TensorType(shape)
            cost += _weight(kind, adapted.op.permutation, identity(len(shape)))
        return cost

    def cost(self, nodes: Iterable[Node], layout: Mapping[str, Permutation]) -> int:
        """Elements moved by nodes under a layout."""
        return sum(self._moves(self.adapted(node, layout), self.site(node, layout)) for node in nodes)

    def improve(self) -> bool:
        """Change layouts until nothing helps; whether the whole moves less than at first."""
        before = self.cost(self.source.nodes, self.layout)
        for _ in range(SWEEPS if before else 0):
            if not sum(self._improve_region(region) for region in self.regions):
                break
        return self.cost(self.source.nodes, self.layout) < before

    def _improve_region(self, region: tuple[str, ...]) -> bool:
        best, gain = None, 0
        for candidate in self._candidates(region):
            for change in self._proposals(region, candidate):
                nodes = self._around(change)
                won = self.cost(nodes, self.layout) - self.cost(nodes, {**self.layout, **change})
                if won > gain:
                    best, gain = change, won
        if best:
            self.layout.update(best)
        return best is not None

    def _around(self, names: Iterable[str]) -> list[Node]:
        nodes: dict[int, Node] = {}
        for name in names:
            nodes.update((id(node), node) for node in self.readers[name])
            if name in self.producers:
                nodes[id(self.producers[name])] = self.producers[name]
        return list(nodes.values())

    def _candidates(self, region: tuple[str, ...]) -> set[Permutation]:
        """Layouts under which some node at the region's border moves nothing."""
        found = {identity(len(self.layout[region[0]]))}
        members = set(region)
        for node in self._around(region):
            site = self.site(node, self.layout)
            others = {*node.inputs, *node.outputs} - members
            found.update(layout for name, layout in suggestions(site, others).items() if name in members)
        return {layout for layout in found if layout != self.layout[region[0]] and self._allowed(region, layout)}

    def _allowed(self, region: Iterable[str], layout: Permutation) -> bool:
        return layout in (identity(len(layout)), channels_last(len(layout))) or not self.free.intersection(region)

    def _proposals(self, region: tuple[str, ...], layout: Permutation) -> Iterator[Layout]:
        alone = dict.fromkeys(region, layout)
        yield alone
        for through_transposes in (False, True):
            yield self._spread(alone, through_transposes=through_transposes)

    def _spread(self, start: Layout, *, through_transposes: bool) -> Layout:
        """A change carried on to the regions that follow without a move."""
        change = dict(start)
        pending = list(start)
        while pending:
            name = pending.pop()
            for node in self._around((name,)):
                if isinstance(node.op, Transpose) and not through_transposes:
                    continue
                site = self.site(node, {**self.layout, **change})
                for other, layout in suggestions(site, set(change)).items():
                    region = self.region_of.get(other)
                    if region is None or other in change or not self._allowed(region, layout):
                        continue
                    change.update(dict.fromkeys(region, layout))
                    pending.extend(region)
        return change


def _may_turn(graph: Graph, name: str, input_layout: str) -> bool:
    rank = len(graph.tensors[name].type.shape)
    both = name in graph.inputs and name in graph.outputs
    return input_layout == "nhwc" and rank in (3, 4) and graph.port(name).permutation is None and not both


def _weight(kind: TensorType, first: Permutation, second: Permutation) -> int:
    if first == second:
        return 0
    return RENAME if same_order(first, second, kind.shape) else kind.elements + MOVE


def flattened(site: Site) -> Permutation | None:
    """The order in which the stored axes run within the last axis after a Reshape, as axes of the input.

    None when the layout also moves other axes, or moves nothing.
    """
    source, target, layout = site.inputs[0].shape, site.outputs[0].shape, site.stored_inputs[0]
    groups = axis_groups(source, target)
    if not groups or groups[-1][1] != (len(target) - 1,) or target[-1] == 1:
        return None
    order, last = moved_axes(layout, source), groups[-1][0]
    head, tail = order[: -len(last)], order[-len(last) :]
    if head != tuple(sorted(head)) or set(tail) != set(last) or tail == last:
        return None
    return tail if site.stored_outputs[0] == identity(len(target)) else None


class Rebuild:
    """Writes the graph whose tensors are stored as a search has found best."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.source = search.source
        self.layout = search.layout
        self.tensors = dict(self.source.tensors)
        self.nodes: list[Node] = []
        self.moved: dict[tuple[str, Permutation], str] = {}
        self.columns: dict[str, tuple[Site, Permutation]] = {}

    def graph(self) -> Graph:
        """The rebuilt graph."""
        for name, layout in self.layout.items():
            self.tensors[name] = Tensor(name, _stored(self.source.tensors[name].type, layout))
        for node in self.source.nodes:
            self._node(node)
        draft = Draft(self.source.with_(nodes=ordered(self.nodes), tensors=self.tensors, ports=self._ports()))
        return draft.graph()

    def _ports(self) -> dict[str, Port]:
        ports = dict(self.source.ports)
        for name in self.search.free:
            if self.layout[name] != identity(len(self.layout[name])):
                ports[name] = replace(self.source.port(name), permutation=self.layout[name])
        return ports

    def _node(self, node: Node) -> None:
        site = self.search.site(node, self.layout)
        adapted = self.search.adapted(node, self.layout)
        inputs = [self._input(name, need, node) for name, need in zip(node.inputs, adapted.needs, strict=True)]
        if id(node) in self.search.flattens and (order := flattened(site)) is not None:
            self.columns[node.outputs[0]] = (site, order)
        if isinstance(node.op, Dense) and node.inputs[0] in self.columns:
            inputs[1] = self._reordered_columns(node.inputs[1], *self.columns[node.inputs[0]])
        outputs = [self._output(name, make, node) for name, make in zip(node.outputs, adapted.makes, strict=True)]
        self.nodes.append(Node(adapted.op, tuple(inputs), tuple(outputs), node.origin))

    def _input(self, name: str, need: Permutation, node: Node) -> str:
        """The tensor in the layout that is needed."""
        stored = self.layout.get(name, identity(len(need)))
        if stored == need or self.tensors[name].type.elements == 1 == len(need):
            return name
        key = (name, need)
        if key not in self.moved:
            logical = self.source.tensors[name]
            self.moved[key] = made = unused_name(f"{name}.moved", self.tensors)
            kind = _stored(logical.type, need)
            if logical.data is not None:
                self.tensors[made] = Tensor(made, kind, np.ascontiguousarray(logical.data.transpose(need)))
            else:
                self.tensors[made] = Tensor(made, kind)
                self.nodes.append(_move(name, made, stored, need, node.origin))
        return self.moved[key]

    def _output(self, name: str, make: Permutation, node: Node) -> str:
        """The name to write to; a move to where the tensor is stored follows when that is elsewhere."""
        stored = self.layout[name]
        if stored == make:
            return name
        made = unused_name(f"{name}.made", self.tensors)
        self.tensors[made] = Tensor(made, _stored(self.source.tensors[name].type, make))
        self.nodes.append(_move(made, name, make, stored, node.origin))
        return made

    def _reordered_columns(self, name: str, site: Site, order: Permutation) -> str:
        weight = self.source.tensors[name]
        assert weight.data is not None
        axes = sorted(order)
        sizes = [site.inputs[0].shape[axis] for axis in axes]
        split = weight.data.reshape(weight.data.shape[0], *sizes)
        moved = split.transpose(0, *(1 + axes.index(axis) for axis in order)).reshape(weight.data.shape)
        made = unused_name(f"{name}.columns", self.tensors)
        self.tensors[made] = Tensor(made, weight.type, np.ascontiguousarray(moved))
        return made


def _stored(kind: TensorType, layout: Permutation) -> TensorType:
    quant = kind.quant
    if quant is not None and quant.axis is not None:
        quant = replace(quant, axis=layout.index(quant.axis))
    return replace(kind, shape=permuted(kind.shape, layout), quant=quant)


def _move(source: str, target: str, stored: Permutation, wanted: Permutation, origin: str) -> Node:
    return Node(Transpose(tuple(stored.index(axis) for axis in wanted)), (source,), (target,), origin)

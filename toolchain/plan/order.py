"""The order of a graph's nodes: among all that compute the same, one that needs little memory at once."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolchain.config import Options
from toolchain.ir.graph import Graph
from toolchain.lower.lowering import lower
from toolchain.lower.program import Program, Step
from toolchain.plan.bound import shared_bytes
from toolchain.plan.lifetimes import kept, stated_overlaps
from toolchain.plan.planner import plan

WIDTH = 200
"""Sets of finished nodes looked at per length: every one in graphs with a few branches, else the best ones."""


def arrange(graph: Graph, options: Options) -> Graph:
    """Return the graph with its nodes in the order that needs the smallest arena, its own where none needs less."""
    work = _Work(graph, lower(graph, options))
    if work.is_chain:
        return graph
    order = work.best_order()
    if order == tuple(range(len(graph.nodes))):
        return graph
    other = graph.with_(nodes=tuple(graph.nodes[index] for index in order))
    return other if _arena(other, options) < _arena(graph, options) else graph


def _arena(graph: Graph, options: Options) -> int:
    return plan(lower(graph, options)).arena_bytes


@dataclass(frozen=True, slots=True)
class _State:
    """Some finished nodes: the order they ran in, the most bytes used so far, and what is alive now."""

    order: tuple[int, ...]
    peak: int
    alive: frozenset[str]


class _Work:
    """What each node needs before it, and what running it costs. Sets of nodes are bits of an integer."""

    def __init__(self, graph: Graph, program: Program) -> None:
        self.count = len(graph.nodes)
        self.sizes = {name: buffer.bytes for name, buffer in program.buffers.items()}
        self.steps: list[list[Step]] = [[] for _ in range(self.count)]
        for step in program.steps:
            if step.node < self.count:
                self.steps[step.node].append(step)
        self.kept = {
            *kept(program),
            *(name for step in program.steps if step.node >= self.count for name in step.reads),
        }
        self.readers = {name: self._nodes(name, "reads") for name in self.sizes}
        self.inputs = frozenset(program.starts)
        self.before = [self._before(graph, index) for index in range(self.count)]

    def _nodes(self, name: str, role: str) -> int:
        """The nodes that read or write a buffer."""
        return sum(1 << i for i, steps in enumerate(self.steps) if any(name in getattr(s, role) for s in steps))

    def _before(self, graph: Graph, index: int) -> int:
        """The nodes that must come earlier: makers of the inputs, and earlier users of memory this one writes."""
        producers = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
        needed = [1 << producers[name] for name in graph.nodes[index].inputs if name in producers]
        written = {name for step in self.steps[index] for name in step.writes}
        used = [self.readers[name] | self._nodes(name, "writes") for name in written]
        return functools.reduce(operator.or_, needed, 0) | functools.reduce(operator.or_, used, 0) & ((1 << index) - 1)

    @property
    def is_chain(self) -> bool:
        """Whether only one order is possible."""
        return all(self.before[i] >> (i - 1) & 1 for i in range(1, self.count))

    def best_order(self) -> tuple[int, ...]:
        """The order with the lowest peak; the earliest in the graph's own order among equals."""
        states: dict[int, _State] = {0: _State((), 0, self.inputs)}
        for _ in range(self.count):
            following: dict[int, _State] = {}
            for done, state in states.items():
                for node in self._ready(done):
                    after = self._run(state, done, node)
                    known = following.get(done | 1 << node)
                    if known is None or (after.peak, after.order) < (known.peak, known.order):
                        following[done | 1 << node] = after
            states = dict(sorted(following.items(), key=self._merit)[:WIDTH])
        (state,) = states.values()
        return state.order

    def _merit(self, item: tuple[int, _State]) -> tuple[int, int, tuple[int, ...]]:
        state = item[1]
        return state.peak, sum(self.sizes[name] for name in state.alive), state.order

    def _ready(self, done: int) -> Iterator[int]:
        return (i for i, before in enumerate(self.before) if not done >> i & 1 and before & ~done == 0)

    def _run(self, state: _State, done: int, node: int) -> _State:
        alive, peak = set(state.alive), state.peak
        for position, step in enumerate(self.steps[node]):
            later = {name for other in self.steps[node][position + 1 :] for name in other.reads}
            dying = {name for name in step.reads if name in alive and self._last(name, done | 1 << node)} - later
            peak = max(peak, self._used(step, alive, dying))
            alive = (alive | set(step.writes)) - dying
        return _State((*state.order, node), peak, frozenset(alive))

    def _last(self, name: str, done: int) -> bool:
        """Whether nothing that is not done reads the buffer."""
        return name not in self.kept and self.readers[name] & ~done == 0

    def _used(self, step: Step, alive: set[str], dying: set[str]) -> int:
        """Bytes in use during a step."""
        scratch = {step.scratch} & self.sizes.keys()
        used = sum(self.sizes[str(name)] for name in {*alive, *step.writes, *scratch})
        return used - _saved(step, alive, dying, self.sizes)


def _saved(step: Step, alive: set[str], dying: set[str], sizes: Mapping[str, int]) -> int:
    """Bytes that the output shares with what dies."""
    written = step.writes[0]
    if written in alive:
        return 0
    overlaps = {name: stated for name, stated in stated_overlaps(step) if name in dying}
    saved = sum(shared_bytes(sizes[written], sizes[name], stated) for name, stated in overlaps.items())
    return min(saved, sizes[written])

"""Mixed precision: the fewest layers leave per-tensor int8 until a bar is met.

Each layer's sensitivity is what the outputs gain when it alone moves. Moves are made in that order, first to weight
scales per channel, which cost a few bytes, then to an output of 16 bits, then to float; how many it takes is found by
halving.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from toolchain.errors import CheckFailedError
from toolchain.ir.types import DType
from toolchain.quantize.account import constant_bytes
from toolchain.quantize.integers import Integers, Trial, integers
from toolchain.quantize.layers import is_integer_layer

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph
    from toolchain.quantize.assign import Choices
    from toolchain.quantize.methods import Range

FLOAT_SHARE = 0.5
"""At most this share of the layers with weights may move to float: beyond it a float export is the honest answer."""
REASON = "it needs float to meet the bar"
CHANNELS, WIDE, FLOAT = "scales per channel", "16-bit output", "float"


@dataclass(frozen=True, slots=True)
class Goal:
    """A bar: `measure` returns a figure of a quantized graph (higher is better), which must reach `bar`.

    `failure(before, best)`: what is said when int8 gives the figure `before` and no mixture more than `best`.
    """

    name: str
    unit: str
    bar: float
    measure: Callable[[Graph], float]
    failure: Callable[[float, float], str]

    def met(self, figure: float) -> bool:
        """Whether a figure reaches the bar."""
        return figure >= self.bar - 1e-9


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What the outputs gain, in dB, when one layer alone is moved."""

    origin: str
    move: str
    gain: float


@dataclass(frozen=True, slots=True)
class Mixed:
    """The bar, the figure before and after, the layers that moved (origin, to what), and the bytes of constants."""

    goal: str
    unit: str
    bar: float
    before: float
    after: float
    moves: tuple[tuple[str, str], ...]
    bytes_before: int
    bytes_after: int
    sensitivity: tuple[Sensitivity, ...]


class Search:
    """Moves layers of one float graph. `finish` makes the quantized graph of some choices, with all techniques."""

    def __init__(
        self,
        graph: Graph,
        ranges: Mapping[str, Range],
        trial: Trial,
        goal: Goal,
        finish: Callable[[Choices], Integers],
        progress: Callable[[int, int], None],
    ) -> None:
        self.graph = graph
        self.ranges = ranges
        self.trial = trial
        self.goal = goal
        self.finish = finish
        self.progress = progress
        self.sensitivity: list[Sensitivity] = []

    def run(self, choices: Choices, made: Integers) -> tuple[Integers, Mixed]:
        """The quantized graph that meets the bar with the fewest moves. Raises CheckFailedError when none does."""
        before = after = self.goal.measure(made.graph)
        layers, start, base, best = _layers(made), made, choices, before
        for move in (CHANNELS, WIDE, FLOAT):
            if self.goal.met(after):
                break
            ranked = self._ranked(layers, base, move)
            most = int(FLOAT_SHARE * len(layers)) if move is FLOAT else len(ranked)
            made, base, after = self._fewest(base, ranked[:most], move, (made, after))
            best = max(best, after)
        if not self.goal.met(after):
            advice = "add calibration samples, lower the bar, or export float32"
            raise CheckFailedError(f"{self.goal.failure(before, best)}; {advice}")
        made, base, after = self._pruned(choices, base, (made, after))
        sizes = constant_bytes(start.graph), constant_bytes(made.graph)
        moves = tuple(_moves(self.graph, choices, base))
        found = tuple(self.sensitivity)
        return made, Mixed(self.goal.name, self.goal.unit, self.goal.bar, before, after, moves, *sizes, found)

    def _pruned(self, first: Choices, base: Choices, found: tuple[Integers, float]) -> tuple[Integers, Choices, float]:
        """Without the kinds of moves that later ones have made needless."""
        made, after = found
        kinds: list[dict[str, frozenset[int]]] = [{"channel_nodes": first.channel_nodes}]
        if base.float_nodes != first.float_nodes:
            kinds.insert(0, {"wide_nodes": first.wide_nodes, "wide_layers": first.wide_layers})
        for kind in kinds if base != first else []:
            choices = replace(base, **kind)  # type: ignore[arg-type]
            if choices in (base, first):
                continue
            other = self.finish(choices)
            figure = self.goal.measure(other.graph)
            if self.goal.met(figure):
                made, base, after = other, choices, figure
        return made, base, after

    def _ranked(self, layers: Sequence[int], base: Choices, move: str) -> list[int]:
        """The layers by what moving one alone gains, those that gain nothing left out."""
        level = self.trial.decibels(integers(self.graph, self.ranges, base).graph)
        gains = {}
        for done, index in enumerate(layers):
            self.progress(done + 1, len(layers))
            if move is FLOAT or not _has(base, index, move):
                made = integers(self.graph, self.ranges, _moved(self.graph, base, [index], move))
                gains[index] = self.trial.decibels(made.graph) - level
        ranked = sorted(gains, key=lambda index: (-gains[index], index))
        self.sensitivity += [Sensitivity(self.graph.nodes[i].origin, move, round(gains[i], 3)) for i in ranked]
        return [index for index in ranked if gains[index] > 0]

    def _fewest(
        self, base: Choices, ranked: Sequence[int], move: str, start: tuple[Integers, float]
    ) -> tuple[Integers, Choices, float]:
        """The shortest head of `ranked` that meets the bar, found by halving; all of it when none does."""
        if not ranked:
            return start[0], base, start[1]

        def attempt(count: int) -> tuple[Integers, Choices, float]:
            choices = _moved(self.graph, base, ranked[:count], move)
            made = self.finish(choices)
            return made, choices, self.goal.measure(made.graph)

        low, high = 0, len(ranked)
        best = attempt(high)
        if not self.goal.met(best[2]):
            return best
        while high - low > 1:
            middle = (low + high) // 2
            found = attempt(middle)
            if self.goal.met(found[2]):
                high, best = middle, found
            else:
                low = middle
        return best


def _layers(made: Integers) -> list[int]:
    """The nodes of the float graph that became integer layers with weights."""
    weighted = {node.outputs[0] for node in made.graph.nodes if is_integer_layer(made.graph, node)}
    return [index for index, node in enumerate(made.source.nodes) if made.forms.get(node.outputs[0]) in weighted]


def _has(choices: Choices, index: int, move: str) -> bool:
    if move is CHANNELS:
        return choices.by_channel(index)
    return choices.of(index) is DType.INT16


def _moved(graph: Graph, base: Choices, layers: Sequence[int], move: str) -> Choices:
    if move is CHANNELS:
        return replace(base, channel_nodes=base.channel_nodes | set(layers))
    if move is WIDE:
        wide = {index for layer in layers for index in _with_readers(graph, layer)}
        return replace(base, wide_nodes=base.wide_nodes | wide, wide_layers=base.wide_layers | set(layers))
    return replace(base, float_nodes={**base.float_nodes, **dict.fromkeys(layers, REASON)})


def _with_readers(graph: Graph, layer: int) -> set[int]:
    """The layer and all nodes up to the next layers with weights: between them the values keep 16 bits."""
    places = {id(node): index for index, node in enumerate(graph.nodes)}
    readers, found, pending = graph.consumers(), {layer}, [layer]
    while pending:
        for name in graph.nodes[pending.pop()].outputs:
            for reader in readers[name]:
                index = places[id(reader)]
                if index not in found:
                    found.add(index)
                    pending += [] if reader.op.weight is not None else [index]
    return found


def _moves(graph: Graph, first: Choices, last: Choices) -> list[tuple[str, str]]:
    found = []
    for index, node in enumerate(graph.nodes):
        if index in last.float_nodes and index not in first.float_nodes:
            found.append((node.origin, FLOAT))
            continue
        if index in last.channel_nodes - first.channel_nodes:
            found.append((node.origin, CHANNELS))
        if index in last.wide_layers:
            found.append((node.origin, WIDE))
    return found


def noise_goal(bar: float, measure: Callable[[Graph], float]) -> Goal:
    """A signal-to-noise ratio in dB that the outputs must reach."""

    def failure(before: float, best: float) -> str:
        return (
            f"min_sqnr: int8 gives {before:.2f} dB, mixed precision with half of the layers in float at most "
            f"{best:.2f}, expected {bar:.2f} or more"
        )

    return Goal("min_sqnr", "dB", bar, measure, failure)

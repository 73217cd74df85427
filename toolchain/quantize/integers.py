"""One attempt at a quantized graph, and its measure on trial samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolchain.quantize.assign import Assignment, Choices, assign
from toolchain.quantize.noise import CEILING, ratio, runs, score_tensors, spread
from toolchain.quantize.rebuild import Rebuild

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.config import Rounding
    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array, TensorType
    from toolchain.quantize.methods import Range

TRIAL_MACS = 400_000_000
"""Multiply-accumulates that one measurement may take."""
FEWEST, MOST = 2, 24


@dataclass(frozen=True, slots=True, eq=False)
class Integers:
    """A float graph and the quantized one made of it; `forms`: {activation: its integer form}."""

    source: Graph
    graph: Graph
    forms: Mapping[str, str]
    assignment: Assignment

    def form(self, name: str) -> str:
        """The tensor of the quantized graph that holds an activation: its integer form where it has one."""
        return self.forms.get(name, name)


def integers(graph: Graph, ranges: Mapping[str, Range], choices: Choices) -> Integers:
    """The graph quantized under ranges and choices."""
    assignment = assign(graph, ranges, choices)
    rebuild = Rebuild(graph, assignment, choices)
    made = rebuild.graph()
    return Integers(
        graph, made, {key: name for key, name in rebuild.integer_forms().items() if name in made.tensors}, assignment
    )


class Trial:
    """What the original graph computes on a few samples, to measure quantized ones against."""

    def __init__(self, graph: Graph, samples: Mapping[str, Array], rounding: Rounding) -> None:
        self.samples = spread(samples, trial_count(graph))
        self.rounding = rounding
        self.names = score_tensors(graph)
        self.wanted = runs(graph, self.samples, self.names, rounding)

    def decibels(self, graph: Graph) -> float:
        """The signal-to-noise ratio of a graph's outputs (before softmax and the like)."""
        if not self.names:
            return CEILING
        return ratio(self.wanted, runs(graph, self.samples, self.names, self.rounding))


def macs(graph: Graph) -> int:
    """Multiply-accumulates of one run."""

    def types(names: tuple[str, ...]) -> tuple[TensorType, ...]:
        return tuple(tensor.type for tensor in graph.operands(names))

    return sum(node.op.macs(types(node.inputs), types(node.outputs)) for node in graph.nodes)


def trial_count(graph: Graph, budget: int = TRIAL_MACS, most: int = MOST) -> int:
    """How many samples a measurement takes: fewer for bigger graphs."""
    return max(FEWEST, min(most, budget // max(macs(graph), 1)))

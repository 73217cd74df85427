"""The float graph made easier to quantize: equalization and bias absorption, each kept where it measurably helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolchain import interpret
from toolchain.ir.types import DType
from toolchain.quantize.absorb import absorb_bias
from toolchain.quantize.channels import channel_extents
from toolchain.quantize.equalize import BALANCES, equalize
from toolchain.quantize.integers import Trial, integers, trial_count
from toolchain.quantize.noise import spread
from toolchain.quantize.report import Technique

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array
    from toolchain.quantize.assign import Choices

GAIN = 0.05
"""A technique must gain this much, in dB, to be kept."""
EXTENT_MACS = 8_000_000_000
"""Multiply-accumulates that the extents of all channels may take to observe."""
Extents = dict[str, tuple["Array", "Array"]]
Step = "Callable[[int, int], None]"


class Prepare:
    """Tries techniques one after another on a graph, and remembers what each changed."""

    def __init__(self, graph: Graph, samples: Mapping[str, Array], choices: Choices, trial: Trial) -> None:
        self.graph = graph
        self.samples = spread(samples, trial_count(graph, EXTENT_MACS, 256))
        self.choices = choices
        self.trial = trial
        self.techniques: list[Technique] = []
        self.extents = extents(graph, self.samples)
        self.level = self._decibels(graph, self.extents)

    def _decibels(self, graph: Graph, seen: Extents) -> float:
        """The measure with the extremes of the samples as ranges."""
        ranges = {name: (float(low.min()), float(high.max())) for name, (low, high) in seen.items()}
        return self.trial.decibels(integers(graph, ranges, self.choices).graph)

    def equalize(self, progress: Callable[[int, int], None]) -> None:
        """The balance that measures best, or none."""
        best, details, before = self.graph, "no factor to move", self.level
        seen, level = self.extents, self.level - 1
        for index, balance in enumerate(BALANCES):
            progress(index, len(BALANCES))
            graph, count = equalize(self.graph, self.extents, balance)
            if not count:
                break
            found = extents(graph, self.samples)
            measured = self._decibels(graph, found)
            if measured > level:
                best, seen, level = graph, found, measured
                details = f"{count} channel factors, balance of {balance.name}"
        self._note("equalization", details, before, level, best, seen)

    def absorb(self) -> None:
        """Absorb biases once more; keep it where it helps."""
        graph, origins = absorb_bias(self.graph, self.extents)
        if not origins:
            self._note("bias absorption", "no bias to absorb", self.level, self.level, graph, self.extents)
            return
        seen = extents(graph, self.samples)
        detail = f"{len(origins)} layers: {', '.join(origins)}"
        self._note("bias absorption", detail, self.level, self._decibels(graph, seen), graph, seen)

    def _note(self, name: str, detail: str, before: float, after: float, graph: Graph, seen: Extents) -> None:
        kept = after > before + GAIN
        self.techniques.append(
            Technique(name, detail, before, max(after, before) if graph is self.graph else after, kept)
        )
        if kept:
            self.graph, self.extents, self.level = graph, seen, after


def extents(graph: Graph, samples: Mapping[str, Array]) -> Extents:
    """{float activation: (lowest, highest value per channel)} over samples."""
    found: Extents = {}
    for name, tensor in graph.tensors.items():
        if tensor.data is None and tensor.type.dtype is DType.FLOAT32:
            count = tensor.type.shape[-1] if tensor.type.shape else 1
            found[name] = (np.full(count, np.inf, np.float32), np.full(count, -np.inf, np.float32))
    for index in range(len(samples[graph.inputs[0]])):
        channel_extents(interpret.run(graph, {n: samples[n][index] for n in graph.inputs}, keep=True), found)
    return found

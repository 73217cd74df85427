"""A calibration method for each tensor, chosen by the error it causes at the outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolchain.config import CalibrationMethod
from toolchain.quantize.integers import Trial, integers
from toolchain.quantize.methods import METHODS, Range, calibrated_range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from toolchain.ir.graph import Graph
    from toolchain.quantize.assign import Choices
    from toolchain.quantize.observe import Observer

TRIALS = 60
"""Measurements at most; each takes no more than Trial allows."""
NEAR = 0.02
"""Ranges that differ by less than this share are one."""
GAIN = 0.01
"""What another method must gain at a tensor, in dB."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The range of each tensor, the method it is from, and the outputs' ratio in dB before and after the choice."""

    ranges: Mapping[str, Range]
    methods: Mapping[str, CalibrationMethod]
    before: float
    after: float


def choose_ranges(
    graph: Graph,
    observers: Mapping[str, Observer],
    choices: Choices,
    trial: Trial,
    progress: Callable[[int, int], None],
) -> Chosen:
    """The best method for all tensors, then, where methods disagree most, the best for each tensor."""
    options = {method: {name: calibrated_range(seen, method) for name, seen in observers.items()} for method in METHODS}

    def measure(ranges: Mapping[str, Range]) -> float:
        return trial.decibels(integers(graph, ranges, choices).graph)

    levels = {method: measure(ranges) for method, ranges in options.items()}
    first = max(levels, key=lambda method: levels[method])
    ranges, methods, level = dict(options[first]), dict.fromkeys(observers, first), levels[first]
    candidates = _candidates(options, first)[: TRIALS - len(levels)]
    for done, (name, method) in enumerate(candidates):
        progress(done + 1, len(candidates))
        attempt = {**ranges, name: options[method][name]}
        measured = measure(attempt)
        if measured > level + GAIN:
            ranges, level = attempt, measured
            methods[name] = method
    return Chosen(ranges, methods, levels[CalibrationMethod.MINMAX], level)


def _candidates(
    options: Mapping[CalibrationMethod, Mapping[str, Range]], first: CalibrationMethod
) -> list[tuple[str, CalibrationMethod]]:
    """(tensor, method) by how far the method's range is from the first one's; near ones left out."""
    found: list[tuple[float, str, CalibrationMethod]] = []
    for name, own in options[first].items():
        seen = [own]
        for method, ranges in options.items():
            distance = min(_distance(ranges[name], other) for other in seen)
            if distance > NEAR:
                seen.append(ranges[name])
                found.append((_distance(ranges[name], own), name, method))
    return [(name, method) for _, name, method in sorted(found, key=lambda each: (-each[0], each[1]))]


def _distance(a: Range, b: Range) -> float:
    """How much of the wider of two ranges the other leaves out."""
    width = max(a[1], b[1], 0.0) - min(a[0], b[0], 0.0)
    return (abs(a[0] - b[0]) + abs(a[1] - b[1])) / width if width else 0.0

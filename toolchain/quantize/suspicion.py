"""Calibration samples that look wrong: too few, constant, alike, or on another scale than the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array
    from toolchain.quantize.observe import Observer

FEW_SAMPLES = 8
OUTLYING = 20.0
"""A sample that reaches so many times further than the middle one stands out."""
HARDLY = 0.01
"""Outputs whose spread over the samples is below this share of their size hardly differ."""
APART = 4.0
"""Factor between the spread of two sets of samples above which one is on another scale."""


def suspicions(
    graph: Graph,
    samples: Mapping[str, Array],
    observers: Mapping[str, Observer],
    outputs: Sequence[Sequence[Array]],
) -> list[str]:
    """One line per thing the user should look at. `outputs`: per trial sample the values at the graph's ends."""
    count = len(samples[graph.inputs[0]])
    found = []
    if count < FEW_SAMPLES:
        found.append(f"{count} calibration sample(s): ranges from so few may clip real inputs; use 100 or more")
    for name in graph.inputs:
        found += _of_input(graph.port(name).name, np.asarray(samples[name], np.float64).reshape(count, -1))
    found += _constant(graph, observers)
    if len(outputs) > 1 and not found:
        found += _alike(outputs)
    return found


def _of_input(label: str, rows: Array) -> list[str]:
    found = []
    if len(rows) > 1 and np.all(rows == rows[0]):
        found.append(f"{label}: all {len(rows)} calibration samples are the same; use different inputs")
    reach = np.abs(rows).max(axis=1, initial=0.0)
    middle, worst = float(np.median(reach)), int(reach.argmax())
    if middle > 0 and reach[worst] > OUTLYING * middle:
        found.append(
            f"{label}: sample {worst} reaches {reach[worst]:.4g}, half of the samples stay below {middle:.4g}; "
            "is it scaled like the others?"
        )
    return found


def _constant(graph: Graph, observers: Mapping[str, Observer]) -> list[str]:
    producers = graph.producers()
    found = []
    for name, seen in observers.items():
        if seen.low == seen.high:
            label = producers[name].origin if name in producers else graph.port(name).name
            found.append(f"{label}: is {seen.low:g} for every sample; its range is a guess")
    return found


def _alike(outputs: Sequence[Sequence[Array]]) -> list[str]:
    for values in zip(*outputs, strict=True):
        stacked = np.stack([np.asarray(value, np.float64).ravel() for value in values])
        size = float(np.sqrt(np.mean(np.square(stacked))))
        if float(stacked.std(axis=0).max(initial=0.0)) < HARDLY * size:
            return ["the outputs hardly differ between calibration samples; are the samples scaled as in training?"]
    return []


def scale_mismatch(graph: Graph, calibration: Mapping[str, Array], evaluation: Mapping[str, Array]) -> list[str]:
    """A line per input whose calibration samples spread on another scale than the evaluation's."""
    found = []
    for name in graph.inputs:
        ours, theirs = (float(np.std(np.asarray(batch[name], np.float64))) for batch in (calibration, evaluation))
        if min(ours, theirs) > 0 and max(ours, theirs) > APART * min(ours, theirs):
            found.append(
                f"{graph.port(name).name}: calibration samples spread {ours:.4g}, evaluation samples {theirs:.4g} "
                "(standard deviation); one of them is scaled wrongly"
            )
    return found

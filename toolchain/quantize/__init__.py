"""Post-training quantization: a float graph and samples become a graph on int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.quantize.assign import Assignment, assign
from toolchain.quantize.methods import Range, calibrated_range
from toolchain.quantize.observe import Observer, Progress, observe
from toolchain.quantize.rebuild import rebuild
from toolchain.quantize.report import QuantizationReport, TensorRange, inherited

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.config import Options
    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array

FEW_SAMPLES = 8

__all__ = ["QuantizationReport", "TensorRange", "inherited", "quantize"]


def quantize(
    graph: Graph, samples: Mapping[str, Array], options: Options, progress: Progress | None = None
) -> tuple[Graph, QuantizationReport]:
    """The graph on int8 and what was decided. `samples`: {graph input: array (samples, *tensor shape)}.

    `progress(done, total)` is called after each sample. Raises InputError for samples that cannot be used.
    """
    observers = observe(graph, samples, progress)
    method = options.calibration_method
    ranges: dict[str, Range] = {name: calibrated_range(seen, method) for name, seen in observers.items()}
    io = options.io or "float32"
    assignment = assign(graph, ranges, io=io, per_channel=options.per_channel)
    result = rebuild(graph, assignment, io=io, per_channel=options.per_channel)
    count = len(samples[graph.inputs[0]])
    return result, _report(graph, options, observers, assignment, count)


def _report(
    graph: Graph, options: Options, observers: Mapping[str, Observer], assignment: Assignment, count: int
) -> QuantizationReport:
    tensors = tuple(
        TensorRange(name, (seen.low, seen.high), assignment.ranges[name], params.scale[0], params.zero_point)
        for name, seen in observers.items()
        for params in (assignment.params[name],)
    )
    fallbacks = tuple((graph.nodes[index].origin, reason) for index, reason in sorted(assignment.float_nodes.items()))
    warnings = tuple(_warnings(graph, observers, count))
    return QuantizationReport(options.calibration_method.value, count, tensors, fallbacks, warnings)


def _warnings(graph: Graph, observers: Mapping[str, Observer], count: int) -> list[str]:
    found = []
    if count < FEW_SAMPLES:
        found.append(f"{count} calibration sample(s): ranges from so few may clip real inputs; use 100 or more")
    producers = graph.producers()
    for name, seen in observers.items():
        if seen.low == seen.high:
            label = producers[name].origin if name in producers else graph.port(name).name
            found.append(f"{label}: is {seen.low:g} for every sample; its range is a guess")
    return found

"""Post-training quantization: a float graph and samples become a graph on int8."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from toolchain.quantize.assign import Assignment, Choices
from toolchain.quantize.correct import correct_biases
from toolchain.quantize.integers import Integers, Trial, integers, trial_count
from toolchain.quantize.methods import Range, calibrated_range
from toolchain.quantize.noise import spread
from toolchain.quantize.observe import Observer, check_samples, observe
from toolchain.quantize.prepare import Prepare
from toolchain.quantize.report import QuantizationReport, Technique, TensorRange, inherited

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.config import Options
    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array

FEW_SAMPLES = 8
CORRECTION_MACS = 2_000_000_000
"""Multiply-accumulates that the samples of bias correction may take."""
CORRECTION_BYTES = 1 << 28
Progress = Callable[[str, int, int], None]
"""Called with a stage, how much of it is done, and how much there is."""

__all__ = ["QuantizationReport", "TensorRange", "inherited", "quantize"]


def quantize(
    graph: Graph, samples: Mapping[str, Array], options: Options, progress: Progress | None = None
) -> tuple[Graph, QuantizationReport]:
    """The graph on int8 and what was decided. `samples`: {graph input: array (samples, *tensor shape)}.

    Raises InputError for samples that cannot be used.
    """
    progress = progress or _silent
    count = check_samples(graph, samples)
    choices = Choices(options.io or "float32", options.per_channel)
    trial = Trial(graph, samples, options.rounding)
    source, techniques = prepared(graph, samples, options, choices, trial, progress)
    observers = observe(source, samples, functools.partial(progress, "calibrate"))
    method = options.calibration_method
    ranges: dict[str, Range] = {name: calibrated_range(seen, method) for name, seen in observers.items()}
    made = integers(source, ranges, choices)
    result, corrected = biased(made, samples, options, trial, progress)
    return result, _report(source, options, observers, made.assignment, count, (*techniques, *corrected))


def _silent(stage: str, done: int, total: int) -> None:
    del stage, done, total


def wanted(choice: bool | None, options: Options) -> bool:
    """Whether a technique is asked for: by default where weights have one scale per tensor."""
    return not options.per_channel if choice is None else choice


def prepared(
    graph: Graph,
    samples: Mapping[str, Array],
    options: Options,
    choices: Choices,
    trial: Trial,
    progress: Progress,
) -> tuple[Graph, tuple[Technique, ...]]:
    """The float graph after equalization and bias absorption, as far as they are asked for and help."""
    if not (wanted(options.equalize, options) or wanted(options.absorb_bias, options)):
        return graph, ()
    prepare = Prepare(graph, samples, choices, trial)
    if wanted(options.equalize, options):
        prepare.equalize(functools.partial(progress, "equalize"))
    if wanted(options.absorb_bias, options):
        prepare.absorb()
    return prepare.graph, tuple(prepare.techniques)


def biased(
    made: Integers, samples: Mapping[str, Array], options: Options, trial: Trial, progress: Progress
) -> tuple[Graph, tuple[Technique, ...]]:
    """The quantized graph with corrected biases, where that is asked for and helps."""
    if not wanted(options.bias_correction, options):
        return made.graph, ()
    progress("correct biases", 0, 0)
    size = sum(tensor.type.bytes for tensor in made.source.tensors.values() if tensor.data is None)
    most = max(2, min(128, CORRECTION_BYTES // max(size, 1)))
    few = spread(samples, trial_count(made.source, CORRECTION_MACS, most))
    result, layers = correct_biases(made.source, made.graph, made.forms, few, options.rounding)
    before, after = trial.decibels(made.graph), trial.decibels(result)
    kept = layers > 0 and after > before
    note = Technique("bias correction", f"{layers} layers", before, after, kept)
    return result if kept else made.graph, (note,)


def _report(
    graph: Graph,
    options: Options,
    observers: Mapping[str, Observer],
    assignment: Assignment,
    count: int,
    techniques: tuple[Technique, ...],
) -> QuantizationReport:
    tensors = tuple(
        TensorRange(name, (seen.low, seen.high), assignment.ranges[name], params.scale[0], params.zero_point)
        for name, seen in observers.items()
        for params in (assignment.params[name],)
    )
    fallbacks = tuple((graph.nodes[index].origin, reason) for index, reason in sorted(assignment.float_nodes.items()))
    warnings = tuple(_warnings(graph, observers, count))
    return QuantizationReport(options.calibration_method.value, count, tensors, fallbacks, warnings, techniques)


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

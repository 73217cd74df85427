"""Post-training quantization: a float graph and samples become a graph on int8."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from toolchain.config import CalibrationMethod
from toolchain.ir.types import DType
from toolchain.quantize.account import account
from toolchain.quantize.assign import Choices
from toolchain.quantize.auto import choose_ranges
from toolchain.quantize.correct import correct_biases
from toolchain.quantize.feedback import round_weights
from toolchain.quantize.integers import Integers, Trial, integers, trial_count
from toolchain.quantize.methods import Range, calibrated_range
from toolchain.quantize.mixed import Goal, Search, noise_goal
from toolchain.quantize.noise import spread
from toolchain.quantize.observe import Observer, check_samples, observe
from toolchain.quantize.prepare import Prepare
from toolchain.quantize.report import QuantizationReport, Technique, TensorRange, inherited, tensor_range
from toolchain.quantize.suspicion import scale_mismatch, suspicions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.config import Options
    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array

ACTIVATIONS = {"int8": DType.INT8, "int16x8": DType.INT16}
"""The type of activations in each mode."""
ACCOUNTED = 8
"""Trial samples that the account of all layers is made on."""
LAYER_MACS = 1_000_000_000
"""Multiply-accumulates of the samples on which layers are changed one after another."""
LAYER_BYTES = 1 << 28
"""Memory of their activations."""
Progress = Callable[[str, int, int], None]
"""Called with a stage, how much of it is done, and how much there is (0: unknown)."""

__all__ = ["Goal", "Progress", "QuantizationReport", "TensorRange", "inherited", "quantize", "scale_mismatch"]


def quantize(
    graph: Graph,
    samples: Mapping[str, Array],
    options: Options,
    progress: Progress | None = None,
    goal: Goal | None = None,
) -> tuple[Graph, QuantizationReport]:
    """The graph on integers and what was decided. `samples`: {graph input: array (samples, *tensor shape)}.

    With a goal (`min_sqnr` is one) layers move to more precision until it is met. Raises InputError for samples that
    cannot be used, CheckFailedError for a goal that cannot be met.
    """
    progress = progress or _silent
    count = check_samples(graph, samples)
    choices = Choices(options.io or "float32", ACTIVATIONS[options.quantize], options.per_channel)
    trial = Trial(graph, samples, options.rounding)
    source, techniques = prepared(graph, samples, options, choices, trial, progress)
    observers = observe(source, samples, functools.partial(progress, "calibrate"))
    ranges, chosen = calibrated(source, observers, options, choices, trial, progress)
    made, changed = improved(integers(source, ranges, choices), samples, options, trial, progress)
    mixed = None
    if goal is None and options.min_sqnr is not None:
        goal = noise_goal(options.min_sqnr, trial.decibels)
    if goal is not None:

        def finish(attempt: Choices) -> Integers:
            return improved(integers(source, ranges, attempt), samples, options, trial, _silent)[0]

        search = Search(source, ranges, trial, goal, finish, functools.partial(progress, "measure sensitivity"))
        made, mixed = search.run(choices, made)
    rows = account(made, spread(trial.samples, ACCOUNTED), options.rounding)
    warnings = suspicions(source, samples, observers, trial.wanted)
    found = _report(made, options.calibration_method.value, observers, count, warnings)
    return made.graph, replace(found, techniques=(*techniques, *chosen, *changed), layers=rows, mixed=mixed)


def _silent(stage: str, done: int, total: int) -> None:
    del stage, done, total


def prepared(
    graph: Graph,
    samples: Mapping[str, Array],
    options: Options,
    choices: Choices,
    trial: Trial,
    progress: Progress,
) -> tuple[Graph, tuple[Technique, ...]]:
    """The float graph after equalization and bias absorption, as far as they are asked for and help."""
    if not (options.equalize or options.absorb_bias):
        return graph, ()
    prepare = Prepare(graph, samples, choices, trial)
    if options.equalize:
        prepare.equalize(functools.partial(progress, "equalize"))
    if options.absorb_bias:
        prepare.absorb()
    return prepare.graph, tuple(prepare.techniques)


def calibrated(
    graph: Graph,
    observers: Mapping[str, Observer],
    options: Options,
    choices: Choices,
    trial: Trial,
    progress: Progress,
) -> tuple[Mapping[str, Range], tuple[Technique, ...]]:
    """The range of each activation by the method that is asked for."""
    method = options.calibration_method
    if method is not CalibrationMethod.AUTO:
        return {name: calibrated_range(seen, method) for name, seen in observers.items()}, ()
    chosen = choose_ranges(graph, observers, choices, trial, functools.partial(progress, "choose ranges"))
    counts = Counter(method.value for method in chosen.methods.values())
    detail = ", ".join(f"{name} for {number} tensors" for name, number in counts.most_common())
    kept = chosen.after > chosen.before
    return chosen.ranges, (Technique("automatic ranges", detail, chosen.before, chosen.after, kept),)


def improved(
    made: Integers, samples: Mapping[str, Array], options: Options, trial: Trial, progress: Progress
) -> tuple[Integers, tuple[Technique, ...]]:
    """Weights rounded anew and biases corrected, where that is asked for and helps."""
    changes: list[tuple[str, Callable[[Integers, Mapping[str, Array]], tuple[Graph, int]]]] = []
    if options.optimize_weights:
        step = functools.partial(progress, "optimize weights")
        changes.append(("weight rounding", lambda now, few: round_weights(now, few, options.rounding, step)))
    if options.bias_correction:
        progress("correct biases", 0, 0)
        changes.append(("bias correction", lambda now, few: correct_biases(now, few, options.rounding)))
    notes = []
    few = layer_samples(made.source, samples) if changes else samples
    for name, change in changes:
        graph, layers = change(made, few)
        before, after = trial.decibels(made.graph), trial.decibels(graph)
        kept = layers > 0 and after > before
        notes.append(Technique(name, f"{layers} layers", before, after, kept))
        made = replace(made, graph=graph) if kept else made
    return made, tuple(notes)


def layer_samples(graph: Graph, samples: Mapping[str, Array]) -> dict[str, Array]:
    """As many samples as changes of layers may take in time and memory."""
    size = sum(tensor.type.bytes for tensor in graph.tensors.values() if tensor.data is None)
    most = max(2, min(128, LAYER_BYTES // max(size, 1)))
    return spread(samples, trial_count(graph, LAYER_MACS, most))


def _report(
    made: Integers, method: str, observers: Mapping[str, Observer], count: int, warnings: list[str]
) -> QuantizationReport:
    assignment = made.assignment
    tensors = tuple(
        tensor_range(name, (seen.low, seen.high), made.graph.tensors[made.forms[name]].type)
        for name, seen in observers.items()
        if name in made.forms
    )
    nodes = made.source.nodes
    fallbacks = tuple((nodes[index].origin, reason) for index, reason in sorted(assignment.float_nodes.items()))
    return QuantizationReport(method, count, tensors, fallbacks, tuple(warnings))

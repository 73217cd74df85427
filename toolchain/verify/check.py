"""One model against all its references: the rows of parity.json."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain import interpret, samples
from toolchain.config import Rounding
from toolchain.errors import InlayError, InputError
from toolchain.ir.graph import Graph, Node
from toolchain.ir.types import Array
from toolchain.lower.program import Program
from toolchain.samples import Feeds, Samples
from toolchain.verify import compare
from toolchain.verify.accuracy import Accuracy, class_labels, percent_right
from toolchain.verify.compare import OutputParity
from toolchain.verify.harness import CompiledModel, Interface, copy_sources
from toolchain.verify.oracles import Oracle, find_oracle

EVALUATION_MACS = 20_000_000_000
"""Multiply-accumulates up to which numpy evaluates a graph on labelled samples, beside the C."""
Emit = Callable[..., dict[str, str]]
"""toolchain.emit.emit, here for C that traces its steps."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared: the source model and its float graph, the final graph and its program."""

    model: Any
    floats: Graph
    graph: Graph
    program: Program


def interface(graph: Graph, name: str) -> Interface:
    """The C interface of a graph."""
    return Interface(
        name,
        tuple((each, graph.tensors[each].type) for each in graph.inputs),
        tuple((each, graph.tensors[each].type) for each in graph.outputs),
        bool(graph.states),
    )


def is_integer(graph: Graph) -> bool:
    """Whether any activation is quantized."""
    return any(tensor.type.quant is not None for tensor in graph.tensors.values())


def trial_batch(graph: Graph, calibration: Samples | None) -> Feeds:
    """Samples to compare on: seeded noise, and the first calibration samples where there are some."""
    count = _sample_count(graph)
    noise = samples.synthetic(graph, count)
    if calibration is None:
        return noise
    real = samples.head(samples.feeds(graph, calibration), count)
    return {name: np.concatenate([real[name], noise[name]]) for name in graph.inputs}


def _sample_count(graph: Graph) -> int:
    """Fewer samples for bigger models: numpy is the slow side."""
    macs = sum(_macs(graph, node) for node in graph.nodes)
    return 16 if macs < 5_000_000 else 4 if macs < 100_000_000 else 2


def _macs(graph: Graph, node: Node) -> int:
    inputs, outputs = graph.operands(node.inputs), graph.operands(node.outputs)
    return node.op.macs(tuple(tensor.type for tensor in inputs), tuple(tensor.type for tensor in outputs))


def parity(subject: Subject, compiled: CompiledModel, calibration: Samples | None, emit: Emit) -> dict[str, Any]:
    """Compare the C with numpy and with the framework. Raises CheckFailedError naming the first layer that differs."""
    floats, graph = subject.floats, subject.graph
    batch = trial_batch(graph, calibration)
    found = compiled.run(batch)
    expected = compare.interpret_batch(graph, batch, subject.program.rounding)
    rows = compare.compare(graph, found, expected, "numpy")
    oracle = find_oracle(subject.model)
    theirs = compare.oracle_batch(graph, oracle, batch) if oracle and _comparable(graph, floats, oracle) else None
    if oracle and theirs is not None:
        rows += _against(oracle, graph, batch, found, theirs)
    if not all(row.passed for row in rows):
        sample = _worst_sample(graph, batch, found, expected)
        compare.require(rows, f"{compiled.interface.name}.c", culprit(graph, subject.program, compiled, sample, emit))
    document = _document(rows, compiled)
    if is_integer(graph) and not is_integer(floats):
        document["signal_to_noise_db"] = _noise(floats, graph, oracle, calibration, compiled)
    return document


def _against(oracle: Oracle, graph: Graph, batch: Feeds, found: Feeds, theirs: Feeds) -> tuple[OutputParity, ...]:
    """The C against the framework. Where an exact one rounds fully connected layers once, numpy answers for the C."""
    rows = compare.compare(graph, found, theirs, oracle.name)
    if not oracle.exact or all(row.passed for row in rows):
        return rows
    name = f"{oracle.name} (by numpy, rounding fully connected layers once as they do)"
    emulated = compare.compare(graph, compare.interpret_batch(graph, batch, Rounding.LITERT), theirs, name)
    return emulated if all(row.passed for row in emulated) else rows


def _comparable(graph: Graph, floats: Graph, oracle: Oracle) -> bool:
    """The framework's numbers are the C's when nothing was quantized here and its integers are exact."""
    return not is_integer(graph) or (graph is floats and oracle.exact)


def _noise(
    floats: Graph, graph: Graph, oracle: Oracle | None, calibration: Samples | None, compiled: CompiledModel
) -> dict[str, float]:
    """The C's distance from the float model on calibration samples, in dB."""
    if calibration is None:
        return {}
    count = _sample_count(graph)
    found = compiled.run(samples.head(samples.feeds(graph, calibration), count))
    wanted, _ = reference_outputs(floats, oracle, samples.head(samples.feeds(floats, calibration), count))
    return compare.real_error(graph, found, dict(zip(graph.outputs, wanted.values(), strict=True)))


def reference_outputs(floats: Graph, oracle: Oracle | None, batch: Feeds) -> tuple[Feeds, str]:
    """Outputs of the model as it was given, by its framework where that is there, else by numpy; and which it was."""
    theirs = compare.oracle_batch(floats, oracle, batch) if oracle else None
    if oracle is not None and theirs is not None:
        return theirs, oracle.name
    return compare.interpret_batch(floats, batch), "numpy"


def recheck(graph: Graph, program: Program, compiled: CompiledModel, batch: Feeds | None, emit: Emit) -> dict[str, Any]:
    """Compare an exported folder with the archived graph."""
    ready = batch or samples.synthetic(graph, _sample_count(graph))
    found = compiled.run(ready)
    expected = compare.interpret_batch(graph, ready, program.rounding)
    rows = compare.compare(graph, found, expected, "numpy")
    if not all(row.passed for row in rows):
        sample = _worst_sample(graph, ready, found, expected)
        compare.require(rows, f"{compiled.interface.name}.c", culprit(graph, program, compiled, sample, emit))
    return _document(rows, compiled)


def _document(rows: Sequence[OutputParity], compiled: CompiledModel) -> dict[str, Any]:
    return {
        "compiler": Path(compiled.compiler[0]).name,
        "parity": [{**dataclasses.asdict(row), "passed": row.passed} for row in rows],
    }


def _worst_sample(graph: Graph, batch: Feeds, found: Feeds, expected: Feeds) -> Feeds:
    """The sample whose outputs are furthest from numpy's."""
    distances = [
        compare.difference(found[name], expected[name]).reshape(len(found[name]), -1).max(axis=1)
        for name in graph.outputs
    ]
    at = int(np.max(distances, axis=0).argmax())
    return {key: array[at : at + 1] for key, array in batch.items()}


def culprit(graph: Graph, program: Program, compiled: CompiledModel, sample: Feeds, emit: Emit) -> str | None:
    """The first layer that differs, found with C that reports every step. None when it cannot be told."""
    with tempfile.TemporaryDirectory(prefix="inlay-trace-") as scratch:
        folder = Path(scratch)
        copy_sources(emit(program, trace=True), folder)
        try:
            with CompiledModel(folder, compiled.interface, cc=" ".join(compiled.compiler), trace=True) as traced:
                records = traced.trace(sample)
        except InlayError:
            return None
    first = {name: array[0] for name, array in sample.items()}
    values = interpret.run(graph, first, keep=True, rounding=program.rounding)
    written = [step.tensors for step in program.steps]
    return compare.first_difference(graph, records, written, values)


def labelled(graph: Graph, evaluation: Samples) -> tuple[Feeds, Array]:
    """The evaluation's samples and class labels. Raises InputError for labels that do not fit."""
    batch = samples.feeds(graph, evaluation)
    count = len(next(iter(batch.values())))
    marks = samples.labels(evaluation)
    rows = len(marks) if marks is not None and marks.ndim and len(marks) % count == 0 else count
    scores, left = divmod(count * graph.tensors[graph.outputs[0]].type.elements, rows)
    if left:
        raise InputError(f"{evaluation.source}: found {rows} labels for {count} samples, expected one for each score")
    return batch, class_labels(marks, rows, scores, evaluation.source)


def accuracy(subject: Subject, compiled: CompiledModel, evaluation: Samples) -> Accuracy:
    """Accuracy of the source model and of the C on labelled samples."""
    floats, graph = subject.floats, subject.graph
    batch, labels = labelled(floats, evaluation)
    theirs, reference = reference_outputs(floats, find_oracle(subject.model), batch)
    ours = compiled.run(samples.feeds(graph, evaluation))
    scores = {
        "model": samples.dequantize_array(theirs[floats.outputs[0]], floats.tensors[floats.outputs[0]].type),
        "c": samples.dequantize_array(ours[graph.outputs[0]], graph.tensors[graph.outputs[0]].type),
    }
    percent = {key: percent_right(array, labels, evaluation.source) for key, array in scores.items()}
    python = python_accuracy(graph, evaluation, subject.program.rounding) if _is_quick(graph, len(labels)) else None
    return Accuracy(percent["model"], percent["c"], len(labels), reference, python)


def _is_quick(graph: Graph, count: int) -> bool:
    return count * sum(_macs(graph, node) for node in graph.nodes) <= EVALUATION_MACS


def python_accuracy(graph: Graph, evaluation: Samples, rounding: Rounding = Rounding.TFLM) -> float:
    """Percent of right answers by the numpy meaning of a graph."""
    batch, labels = labelled(graph, evaluation)
    found = compare.interpret_batch(graph, batch, rounding)[graph.outputs[0]]
    scores = samples.dequantize_array(found, graph.tensors[graph.outputs[0]].type)
    return percent_right(scores, labels, evaluation.source)


def model_accuracy(model: Any, floats: Graph, evaluation: Samples) -> float:
    """Percent of right answers by the model as it was given."""
    batch, labels = labelled(floats, evaluation)
    theirs, _ = reference_outputs(floats, find_oracle(model), batch)
    return percent_right(theirs[floats.outputs[0]], labels, evaluation.source)

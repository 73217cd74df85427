"""A family's cases against LiteRT's reference kernels: the imported graph, the canonical graph, and its C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.conformance.family import Draw, Family
from tests.conformance.programs import Job, run_all
from tests.importers.lite import Lite
from toolchain.importers.tflite import load
from toolchain.passes import float_layers, optimize
from toolchain.samples import to_c, to_framework
from toolchain.verify.compare import interpret_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array

SAMPLES = 3


@dataclass(frozen=True)
class Trial:
    """One case: the canonical graph with samples, and what its outputs must be within `steps`."""

    name: str
    job: Job
    expected: list[Array]
    steps: int
    excepted: bool


def check(
    family: Family,
    folder: Path,
    *,
    count: int | None = None,
    compiler: Sequence[str] = ("gcc",),
    runner: Sequence[str] = (),
) -> None:
    """Assert that every case gives the reference kernels' integers, in numpy and in C; the real ones if excepted."""
    problems: list[str] = []
    cases = range(family.count if count is None else count)
    trials = [trial for index in cases if (trial := prepared(family, index, problems)) is not None]
    outputs = run_all([trial.job for trial in trials], folder, compiler=compiler, runner=runner)
    for trial, found in zip(trials, outputs, strict=True):
        problems += differences(f"{trial.name} C", outside(trial.job.graph, found), trial.expected, trial.steps)
    if family.exception and not any(trial.excepted for trial in trials):
        problems.append(f"{family.name}: no exception any more: {family.exception}")
    assert not problems, "\n".join(problems)


def prepared(family: Family, index: int, problems: list[str]) -> Trial | None:
    """Build a case, run the reference kernels and numpy on it."""
    draw, name = Draw(family.name, index), f"{family.name}-{index}"
    content = family.build(draw)
    reference = Lite(content)
    values = [inputs_of(family, draw, reference) for _ in range(SAMPLES)]
    expected = stacked([reference.run(sample) for sample in values])
    try:
        imported = load(content, subject=name)
        graph = optimize(imported)
    except Exception as error:  # noqa: BLE001 - every failing case is reported
        problems.append(f"{name}: {type(error).__name__}: {error}")
        return None
    steps, excepted = family.steps if family.exception else 0, False
    if family.real is not None:
        real = stacked([real_outputs(family.real, reference, sample) for sample in values])
        excepted = bool(differences(name, expected, real, steps))
        expected = real
    if not family.floats:
        problems += [f"{name}: {origin} runs in float: {reason}" for origin, reason in float_layers(graph)]
    for kind, each in (("imported", imported), ("numpy", graph)):
        found = outside(each, interpret_batch(each, batch_of(each, values), family.rounding))
        excepted |= bool(family.exception and differences(name, found, expected, 0))
        problems += differences(f"{name} {kind}", found, expected, steps)
    return Trial(name, Job(graph, batch_of(graph, values), family.rounding), expected, steps, excepted)


def inputs_of(family: Family, draw: Draw, reference: Lite) -> list[Array]:
    return reference.random(draw.rng) if family.samples is None else family.samples(draw, reference.inputs)


def stacked(rows: list[list[Array]]) -> list[Array]:
    """One array per input or output, samples first."""
    return [np.stack(column) for column in zip(*rows, strict=True)]


def real_outputs(function: Callable[..., Any], reference: Lite, values: list[Array]) -> list[Array]:
    """The function of the real numbers behind the inputs, on the grid of the only output."""
    reals = [
        (value.astype(np.float64) - zero) * scale
        for value, (scale, zero) in zip(values, (d["quantization"] for d in reference.inputs), strict=True)
    ]
    (out,) = reference.outputs
    scale, zero = out["quantization"]
    with np.errstate(all="ignore"):
        steps = np.rint(function(*reals) / scale) + zero
    info = np.iinfo(out["dtype"])
    return [np.clip(steps, info.min, info.max).astype(out["dtype"])]


def batch_of(graph: Graph, values: list[list[Array]]) -> dict[str, Array]:
    """The samples by input, in the C's layout."""
    return {name: to_c(graph, name, column) for name, column in zip(graph.inputs, stacked(values), strict=True)}


def outside(graph: Graph, found: dict[str, Array]) -> list[Array]:
    """The outputs in order, as the framework lays them out."""
    return [to_framework(graph, name, found[name]) for name in graph.outputs]


def differences(name: str, found: list[Array], expected: list[Array], steps: int) -> list[str]:
    """One line per output that is not as expected."""
    lines = []
    for number, (have, want) in enumerate(zip(found, expected, strict=True)):
        if (have.shape, have.dtype) != (want.shape, want.dtype):
            lines.append(f"{name}: output {number} is {have.dtype}{have.shape}, expected {want.dtype}{want.shape}")
            continue
        apart = np.abs(have.astype(np.float64) - want.astype(np.float64))
        if apart.max(initial=0) > steps:
            lines.append(
                f"{name}: output {number} differs in {np.count_nonzero(apart)} of {apart.size}, most {apart.max():g}"
            )
    return lines

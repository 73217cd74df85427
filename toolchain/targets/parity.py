"""An exported folder on an emulated core, against numpy and against the host's build of the same C."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from toolchain import emit, interpret, samples
from toolchain.errors import InlayError
from toolchain.ir.graph import Graph
from toolchain.lower.program import Program
from toolchain.samples import Feeds
from toolchain.targets.cores import Target, find_target
from toolchain.targets.emulator import run_image
from toolchain.targets.image import Build, build_image
from toolchain.verify import check, compare
from toolchain.verify.harness import CompiledModel, copy_sources, has_compiler, pack, trace_records, unpack

SAMPLES = 4
"""Noise samples compared when the caller gives none: emulation is slow."""


def verify_target(folder: Path, graph: Graph, program: Program, name: str, batch: Feeds | None) -> dict[str, Any]:
    """The rows of parity for a target. Raises CheckFailedError naming the first layer that differs."""
    target = find_target(name)
    ready = batch or samples.synthetic(graph, SAMPLES)
    found, compiler = outputs(folder, graph, program.name, target, ready)
    expected = compare.interpret_batch(graph, ready, program.rounding)
    rows = compare.compare(graph, found, expected, "numpy")
    if has_compiler():
        with CompiledModel(folder, check.interface(graph, program.name)) as host:
            rows += compare.compare(graph, found, host.run(ready), "host")
    if not all(row.passed for row in rows):
        first = {key: array[:1] for key, array in ready.items()}
        layer = differing_layer(graph, program, target, first)
        compare.require(rows, f"{program.name}.c on {target.name}", layer)
    return {
        "target": target.name,
        "machine": target.board,
        "compiler": compiler,
        "parity": [{**dataclasses.asdict(row), "passed": row.passed} for row in rows],
    }


def outputs(folder: Path, graph: Graph, name: str, target: Target, batch: Feeds) -> tuple[Feeds, str]:
    """What the C computes on the core, and the compiler's name."""
    ends = check.interface(graph, name)
    records = pack(ends.inputs, batch)
    with tempfile.TemporaryDirectory(prefix="inlay-target-") as scratch:
        image = build_image(folder / f"{name}.c", folder, ends, target, Path(scratch), Build())
        run = run_image(image, records)
    return unpack(ends.outputs, run.output, len(records)), Path(image.compiler[0]).name


def differing_layer(graph: Graph, program: Program, target: Target, sample: Feeds) -> str | None:
    """The first layer whose output on the core is not numpy's; None when it cannot be told."""
    ends = check.interface(graph, program.name)
    with tempfile.TemporaryDirectory(prefix="inlay-trace-") as scratch:
        folder = Path(scratch)
        copy_sources(emit.emit(program, trace=True), folder)
        try:
            source = folder / f"{program.name}.c"
            image = build_image(source, folder, ends, target, folder, Build(mode="dump"))
            records = trace_records(run_image(image, pack(ends.inputs, sample)).output)
        except InlayError:
            return None
    first = {key: array[0] for key, array in sample.items()}
    values = interpret.run(graph, first, keep=True, rounding=program.rounding)
    return compare.first_difference(graph, records, [step.tensors for step in program.steps], values)

"""What an export must pass: parity of the built C, budgets of memory, the accuracy it may lose."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from toolchain import emit
from toolchain.config import Options
from toolchain.errors import CheckFailedError, InputError
from toolchain.options import Build, Data
from toolchain.quantize import Progress
from toolchain.report import facts
from toolchain.samples import Samples
from toolchain.verify import check
from toolchain.verify.check import Subject
from toolchain.verify.compiler import Footprint, footprint
from toolchain.verify.harness import CompiledModel


def verified(
    subject: Subject, folder: Path, options: Options, data: Data, build: Build, progress: Progress
) -> dict[str, Any]:
    """Parity, footprint and accuracy as parity.json has them. Raises CheckFailedError for the first that fails."""
    document: dict[str, Any] = {"verified": options.verify}
    builds = options.verify or data.evaluation is not None
    if builds:
        progress("verify", 0, 0)
        document |= compared(subject, folder, options, data, build)
    if builds or options.max_flash is not None or options.max_stack is not None:
        progress("measure", 0, 0)
        document["footprint"] = measured(folder, options)
    return document


def compared(subject: Subject, folder: Path, options: Options, data: Data, build: Build) -> dict[str, Any]:
    """Parity and, with evaluation samples, accuracy of the built C."""
    document: dict[str, Any] = {}
    ends = check.interface(subject.graph, options.name)
    with CompiledModel(folder, ends, cc=build.cc, sanitize=build.sanitize) as compiled:
        if options.verify:
            document |= check.parity(subject, compiled, data.calibration, emit.emit)
        if data.evaluation is not None:
            document["accuracy"] = evaluated(subject, compiled, data.evaluation, options)
    return document


def evaluated(subject: Subject, compiled: CompiledModel, evaluation: Samples, options: Options) -> dict[str, Any]:
    """Accuracy of the source model and of the C on the same labelled samples, checked against the allowed drop."""
    accuracy = check.accuracy(subject, compiled, evaluation)
    limit = options.max_accuracy_drop
    if limit is not None and accuracy.drop > limit + 1e-9:
        raise CheckFailedError(
            f"{options.name}: the C loses {accuracy.drop:.2f} points of accuracy ({accuracy.model:.2f} % to "
            f"{accuracy.c:.2f} %), allowed {limit:g} (max_accuracy_drop); try per_channel or more calibration samples"
        )
    return {**facts.plain(accuracy), "drop": accuracy.drop}


def measured(folder: Path, options: Options) -> dict[str, Any] | None:
    """Flash and stack of the compiled model, checked against the budgets."""
    with tempfile.TemporaryDirectory(prefix="inlay-size-") as scratch:
        size: Footprint = footprint(folder, options.name, Path(scratch))
    check_budget(f"flash ({size.compiler})", size.flash, options.max_flash, "max_flash")
    if size.stack is None and options.max_stack is not None:
        raise InputError(f"{options.name}: max_stack needs gcc 10 or newer, {size.compiler} does not report stack use")
    check_budget(f"stack ({size.compiler})", size.stack or 0, options.max_stack, "max_stack")
    return facts.plain(size)  # type: ignore[no-any-return]


def check_budget(what: str, found: int, limit: int | None, flag: str) -> None:
    """Raise CheckFailedError when `found` bytes exceed the limit."""
    if limit is not None and found > limit:
        raise CheckFailedError(f"{what}: {found} bytes, allowed {limit} ({flag}); {found - limit} too many")

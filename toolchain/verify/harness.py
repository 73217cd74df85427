"""The compiled model as a Python callable: a small C main around NAME.h, run as a child process."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolchain.emit.environment import environment
from toolchain.errors import CheckFailedError, InputError
from toolchain.ir.types import Array, TensorType
from toolchain.verify.compiler import SANITIZE_FLAGS, STANDARD_FLAGS, compile_c, find_compiler

CHUNK_BYTES = 1 << 26
"""Input and output bytes handed to one child process."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What a caller of the C must know: its name and the tensors at its ends, in the C's layout."""

    name: str
    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    keeps_state: bool = False

    @property
    def input_bytes(self) -> int:
        """Size of one input record."""
        return sum(kind.bytes for _, kind in self.inputs)

    @property
    def output_bytes(self) -> int:
        """Size of one output record."""
        return sum(kind.bytes for _, kind in self.outputs)


def main_source(interface: Interface, *, trace: bool = False) -> str:
    """The text of the harness's main.c."""
    return (
        environment()
        .get_template("harness.c.j2")
        .render(
            name=interface.name,
            prefix=interface.name.upper(),
            inputs=interface.inputs,
            outputs=interface.outputs,
            trace=trace,
        )
    )


class CompiledModel:
    """NAME.c built with a main that reads records from stdin. Use as a context manager, or call `close`."""

    def __init__(
        self,
        folder: Path,
        interface: Interface,
        *,
        cc: str | None = None,
        sanitize: bool = False,
        trace: bool = False,
        timeout: float = 600.0,
    ) -> None:
        self.interface = interface
        self.timeout = timeout
        self._trace = trace
        self.compiler = find_compiler(cc)
        self._scratch = Path(tempfile.mkdtemp(prefix="inlay-build-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        self.program = self._scratch / "model"
        try:
            self._build(folder.resolve(), sanitize=sanitize)
        except BaseException:
            self.close()
            raise

    def _build(self, folder: Path, *, sanitize: bool) -> None:
        (self._scratch / "main.c").write_text(main_source(self.interface, trace=self._trace))
        flags = [*STANDARD_FLAGS, *(SANITIZE_FLAGS if sanitize else ()), "-I", str(folder)]
        sources = ["main.c", str(folder / f"{self.interface.name}.c")]
        compile_c(self.compiler, [*flags, *sources, "-o", str(self.program), "-lm"], self._scratch)

    def __enter__(self) -> CompiledModel:  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the built program."""
        self._remove()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs for a batch of samples: arrays of shape (samples, *tensor shape), in the C's layout and types.

        The samples of a model with states are the steps of one sequence, which begins with a reset.
        """
        records = pack(self.interface.inputs, feeds)
        step = max(1, CHUNK_BYTES // max(1, self.interface.input_bytes + self.interface.output_bytes))
        step = len(records) if self.interface.keeps_state else step
        raw = [self._call(records[first : first + step]) for first in range(0, len(records), step)]
        return unpack(self.interface.outputs, b"".join(raw), len(records))

    def trace(self, feeds: Mapping[str, Array]) -> list[tuple[int, bytes]]:
        """(step, bytes written) in the order of execution, for one sample. Needs `trace=True`."""
        raw = self._child(pack(self.interface.inputs, feeds)[:1].tobytes())
        return trace_records(raw)

    def _call(self, records: Array) -> bytes:
        raw = self._child(records.tobytes())
        expected = len(records) * self.interface.output_bytes
        if len(raw) != expected:
            raise CheckFailedError(f"{self.interface.name}.c: wrote {len(raw)} output bytes, expected {expected}")
        return raw

    def _child(self, data: bytes) -> bytes:
        name = f"{self.interface.name}.c"
        try:
            done = subprocess.run(
                [str(self.program)], input=data, capture_output=True, timeout=self.timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise CheckFailedError(f"{name}: no answer within {self.timeout:g} s") from None
        if done.returncode != 0:
            raise CheckFailedError(f"{name}: stopped with {_reason(done.returncode, done.stderr)}")
        return done.stdout


def _reason(status: int, stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").splitlines()
    said = next((line.strip() for line in lines if "ERROR" in line or "runtime error" in line), "")
    cause = f"signal {-status}" if status < 0 else f"status {status}"
    return f"{cause}: {said}" if said else cause


def trace_records(raw: bytes) -> list[tuple[int, bytes]]:
    """(step, bytes written) of what a traced harness wrote."""
    records, at = [], 0
    while at + 8 <= len(raw):
        step, size = np.frombuffer(raw, "<u4", 2, at)
        records.append((int(step), raw[at + 8 : at + 8 + int(size)]))
        at += 8 + int(size)
    return records


def pack(ends: Sequence[tuple[str, TensorType]], arrays: Mapping[str, Array]) -> Array:
    """One row of bytes per sample: the little-endian tensors behind each other."""
    columns = []
    for name, kind in ends:
        array = np.ascontiguousarray(arrays[name], dtype=kind.dtype.numpy.newbyteorder("<"))
        if array.size % kind.elements:
            raise InputError(f"{name}: found shape {array.shape}, expected (samples, {kind.shape})")
        columns.append(array.reshape(-1, kind.elements).view(np.uint8).reshape(-1, kind.bytes))
    return np.ascontiguousarray(np.concatenate(columns, axis=1))


def unpack(ends: Sequence[tuple[str, TensorType]], raw: bytes, samples: int) -> dict[str, Array]:
    """The inverse of `pack`: {name: (samples, *shape)}."""
    rows = np.frombuffer(raw, np.uint8).reshape(samples, -1)
    arrays: dict[str, Array] = {}
    at = 0
    for name, kind in ends:
        column = np.ascontiguousarray(rows[:, at : at + kind.bytes])
        arrays[name] = column.view(kind.dtype.numpy.newbyteorder("<")).reshape(samples, *kind.shape)
        at += kind.bytes
    return arrays


def copy_sources(files: Mapping[str, str], folder: Path) -> None:
    """Write generated texts into a folder."""
    for path, text in files.items():
        (folder / path).write_text(text)


def has_compiler() -> bool:
    """Whether a C compiler can be run."""
    try:
        return shutil.which(find_compiler()[0]) is not None
    except InputError:
        return False

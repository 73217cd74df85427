"""Programs run on an emulated core: records in, outputs and clock readings out, instructions counted."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolchain.errors import CheckFailedError, InlayError, InputError
from toolchain.ir.types import Array
from toolchain.targets.image import Image
from toolchain.targets.symbols import address_of
from toolchain.templating import TEMPLATES
from toolchain.verify.compiler import compile_c, find_compiler

TIMEOUT = 1800.0
"""Seconds an emulated program may take."""
FAULT = 99


@dataclass(frozen=True, slots=True)
class Counted:
    """How often one instruction was executed, and how often it was not followed by the next one."""

    executed: int
    taken: int


Stretch = Mapping[int, Counted]
"""Executed instructions by address, between two marks."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a program left: raw outputs, stack bytes (0 on the host), the clock at each mark, and counts where made."""

    output: bytes
    stack: int
    clock: tuple[int, ...]
    stretches: tuple[Stretch, ...] = ()


def run_image(image: Image, records: Array, *, clocked: bool = False, counter: Path | None = None) -> Run:
    """Run on records, one row of bytes per sample. `clocked` ties the clock to executed instructions."""
    (image.folder / "in.bin").write_bytes(records.tobytes())
    for stale in ("out.bin", "facts.bin", "counts.txt"):
        (image.folder / stale).unlink(missing_ok=True)
    command = [str(image.elf)] if image.target.platform == "host" else emulator_command(image, clocked, counter)
    status, said = _call(command, image)
    if status != 0 or not (image.folder / "facts.bin").is_file():
        raise CheckFailedError(f"{_subject(image)}: {_reason(status, said)}")
    facts = np.frombuffer((image.folder / "facts.bin").read_bytes(), "<u8")
    output = image.folder / "out.bin"
    clock = tuple(int(each) for each in facts[2 : 2 + int(facts[1])])
    counts = image.folder / "counts.txt"
    stretches = read_counts(counts.read_text()) if counts.is_file() else ()
    return Run(output.read_bytes() if output.is_file() else b"", int(facts[0]), clock, stretches)


def _subject(image: Image) -> str:
    return f"{image.interface.name}.c on {image.target.name}"


def _reason(status: int, said: str) -> str:
    if status == FAULT:
        return "the program faulted"
    lines = [line for line in said.splitlines() if line.strip()]
    return f"stopped with status {status}" + (f": {lines[-1].strip()}" if lines else "")


def _call(command: list[str], image: Image) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command,
            cwd=image.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckFailedError(f"{_subject(image)}: no end within {TIMEOUT:g} s") from None
    return done.returncode, done.stderr.decode(errors="replace")


def emulator_command(image: Image, clocked: bool, counter: Path | None) -> list[str]:
    """The command line of QEMU, with files relative to the image's folder."""
    command = [image.target.emulator, *image.target.machine, "-display", "none", "-monitor", "none", "-serial", "none"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", image.elf.name]
    if clocked:
        command += ["-icount", "shift=0"]
    if counter is not None:
        command += ["-plugin", f"{counter},out=counts.txt,mark={address_of(image, 'inlay_mark'):#x}"]
    return command


def read_counts(text: str) -> tuple[Stretch, ...]:
    """The counter's file: one mapping per mark, the same address of several blocks added up."""
    stretches: list[dict[int, Counted]] = [{}]
    for line in text.splitlines():
        if line == "#":
            stretches.append({})
            continue
        address, executed, taken = line.split()
        at = int(address, 16)
        before = stretches[-1].get(at, Counted(0, 0))
        stretches[-1][at] = Counted(before.executed + int(executed), before.taken + int(taken))
    return tuple(stretches[:-1])


@functools.cache
def _builds() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="inlay-counter-")


@functools.cache
def find_counter(emulator: str) -> Path | None:
    """The instruction counter built for this QEMU; None where its plugins or a host compiler are missing."""
    try:
        compiler = find_compiler()
    except InputError:
        return None
    folder = Path(_builds().name)
    for version in (1, 2):
        plugin = folder / f"{emulator}{version}.so"
        source = TEMPLATES / "targets" / "counter.c"
        flags = ["-shared", "-fPIC", "-O2", "-fvisibility=hidden", f"-DAPI={version}"]
        try:
            compile_c(compiler, [*flags, str(source), "-o", str(plugin)], folder)
        except InlayError:
            return None
        if _accepts(emulator, plugin, folder):
            return plugin
    return None


def _accepts(emulator: str, plugin: Path, folder: Path) -> bool:
    """Whether this QEMU is there and loads the plugin: a machine without a processor that stops at once."""
    if shutil.which(emulator) is None:
        return False
    command = [emulator, "-M", "none", "-display", "none", "-serial", "none", "-monitor", "stdio"]
    done = subprocess.run(
        [*command, "-plugin", f"{plugin},out=probe.txt"],
        cwd=folder,
        input=b"quit\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode == 0

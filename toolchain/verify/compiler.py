"""The host's C compiler: found, asked for its name, run. Nothing it writes outlives the caller's folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from toolchain.errors import CheckFailedError, InputError

STANDARD_FLAGS = ("-std=c99", "-O2", "-ffp-contract=off")
SANITIZE_FLAGS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ARM_FLAGS = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")


def find_compiler(cc: str | None = None) -> tuple[str, ...]:
    """The command of the C compiler: `cc`, else $CC, else gcc. Raises InputError when there is none."""
    given = cc or os.environ.get("CC") or "gcc"
    try:
        command = tuple(shlex.split(given))
    except ValueError as error:
        raise InputError(f"C compiler: found {given!r} ({error}), expected a command; mend --cc or $CC") from None
    if not command or shutil.which(command[0]) is None:
        found = command[0] if command else "an empty command"
        raise InputError(
            f"C compiler: {found} is not there; install gcc, name another one with --cc or $CC, or pass --no-verify"
        )
    return command


def compile_c(command: tuple[str, ...], arguments: list[str], folder: Path) -> None:
    """Run the compiler in `folder`. Raises CheckFailedError with its first error."""
    try:
        done = subprocess.run(
            [*command, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=900,
            check=False,
        )
    except OSError as error:
        raise InputError(
            f"C compiler: {command[0]} cannot be run ({error.strerror}); pass another one as --cc"
        ) from None
    except subprocess.TimeoutExpired:
        raise CheckFailedError(f"C compiler: {command[0]} did not finish within 15 minutes") from None
    if done.returncode != 0:
        raise CheckFailedError(f"{command[0]}: the generated C does not build: {_first_error(done.stderr)}")


def _first_error(text: str) -> str:
    lines = [line for line in text.splitlines() if "error" in line] or text.splitlines() or ["no message"]
    return lines[0].strip()


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of the compiled model: `flash` is code and constants, `stack` the deepest call chain without libc."""

    compiler: str
    flash: int
    stack: int | None


def footprint(folder: Path, name: str, scratch: Path) -> Footprint:
    """Measure NAME.c, for a Cortex-M4 when arm-none-eabi-gcc is installed, else for the host."""
    arm = shutil.which("arm-none-eabi-gcc") is not None
    command = ("arm-none-eabi-gcc", *ARM_FLAGS) if arm else find_compiler()
    flags = [
        "-std=c99",
        "-Os",
        "-fcallgraph-info=su",
        "-I",
        str(folder),
        "-c",
        str(folder / f"{name}.c"),
        "-o",
        "size.o",
    ]
    try:
        compile_c(command, flags, scratch)
    except CheckFailedError:  # clang knows no -fcallgraph-info
        compile_c(command, [flag for flag in flags if not flag.startswith("-fcallgraph")], scratch)
    label = "arm-none-eabi-gcc -Os, Cortex-M4" if arm else f"{Path(command[0]).name} -Os, host"
    return Footprint(label, _flash(scratch / "size.o", arm=arm), _stack(scratch / "size.ci"))


def _flash(object_file: Path, *, arm: bool) -> int:
    tool = "arm-none-eabi-size" if arm else "size"
    done = subprocess.run([tool, str(object_file)], capture_output=True, text=True, check=True)
    text, data = done.stdout.splitlines()[1].split()[:2]
    return int(text) + int(data)


def _stack(callgraph: Path) -> int | None:
    """The deepest path through gcc's call graph, None when the compiler wrote none."""
    if not callgraph.is_file():
        return None
    text = callgraph.read_text()
    frames = {
        title: int(size)
        for title, size in re.findall(r'node: \{ title: "([^"]+)" label: "[^"]*?(\d+) bytes \([^"]*"', text)
    }
    calls: dict[str, list[str]] = {}
    for source, target in re.findall(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', text):
        calls.setdefault(source, []).append(target)
    return max((_depth(root, frames, calls) for root in frames), default=None)


def _depth(function: str, frames: dict[str, int], calls: dict[str, list[str]]) -> int:
    below = [_depth(callee, frames, calls) for callee in calls.get(function, ()) if callee != function]
    return frames.get(function, 0) + max(below, default=0)

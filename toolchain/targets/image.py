"""The bare-metal program around NAME.c: written, compiled and linked in a folder of its own."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from toolchain.emit.environment import environment
from toolchain.errors import CheckFailedError, InputError
from toolchain.targets.cores import Target
from toolchain.verify.compiler import compile_c, find_compiler
from toolchain.verify.harness import Interface

COMMON_FLAGS = ("-ffp-contract=off", "-ffunction-sections", "-fdata-sections")
WARNINGS = ("-Wall", "-Wextra")


@dataclass(frozen=True, slots=True)
class Image:
    """A built program: `folder` holds image.elf, model.o and harness.o."""

    target: Target
    interface: Interface
    folder: Path
    compiler: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def elf(self) -> Path:
        """The linked program."""
        return self.folder / "image.elf"


@dataclass(frozen=True, slots=True)
class Build:
    """How to build: optimisation level, what the harness writes ("run" or "dump"), clock readings it keeps, macros.

    `compiler` compiles the model's C in place of the target's own, which links.
    """

    level: str = "2"
    mode: str = "run"
    marks: int = 2
    defines: tuple[str, ...] = ()
    compiler: tuple[str, ...] = ()


def build_image(source: Path, headers: Path, interface: Interface, target: Target, folder: Path, build: Build) -> Image:
    """Compile the model's C `source` with the harness for `target` and link them in `folder`."""
    compiler = find_compiler() if target.platform == "host" else (target.compiler,)
    flags = (*target.flags, f"-O{build.level}", *COMMON_FLAGS)
    image = Image(target, interface, folder, compiler, flags)
    (folder / "harness.c").write_text(harness_source(interface, target, build))
    own = build.compiler or compiler
    extra: tuple[str, ...] = ("-fcallgraph-info=su",) if _reports_stack(own) else ()
    includes = ("-I", str(headers.resolve()))
    extra = (*extra, *(f"-D{macro}" for macro in build.defines))
    compile_c(own, ["-std=c99", *flags, *extra, *includes, "-c", str(source.resolve()), "-o", "model.o"], folder)
    harness = ["-std=gnu11", *flags, *WARNINGS, *includes, "-c", "harness.c", "-o", "harness.o"]
    compile_c(compiler, harness, folder)
    _link(image)
    return image


def harness_source(interface: Interface, target: Target, build: Build) -> str:
    """The text of the harness."""
    return (
        environment()
        .get_template("targets/harness.c.j2")
        .render(
            name=interface.name,
            prefix=interface.name.upper(),
            inputs=interface.inputs,
            outputs=interface.outputs,
            platform=target.platform,
            keeps_state=interface.keeps_state,
            target=target,
            mode=build.mode,
            marks=build.marks,
        )
    )


def _reports_stack(compiler: tuple[str, ...]) -> bool:
    return "gcc" in Path(compiler[0]).name


def _link(image: Image) -> None:
    target = image.target
    arguments = [*image.flags, "model.o", "harness.o"]
    if target.memory is not None:
        script = environment().get_template("targets/link.ld.j2").render(target=target)
        (image.folder / "link.ld").write_text(script)
        arguments += ["-nostartfiles", *target.libraries, "-Wl,--gc-sections", "-T", "link.ld"]
    done = subprocess.run(
        [*image.compiler, *arguments, "-lm", "-o", image.elf.name],
        cwd=image.folder,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        _fail(image, done.stderr)


def _fail(image: Image, said: str) -> None:
    name, target = image.interface.name, image.target
    if full := re.search(r"region `(\w+)' overflowed by (\d+) bytes", said):
        raise InputError(
            f"{name}: {full[2]} bytes too many for the {full[1]} of {target.board}, "
            f"the board that --target {target.name} emulates"
        )
    lines = [line for line in said.splitlines() if "undefined" in line or "error" in line] or ["no message"]
    raise CheckFailedError(f"{image.compiler[0]}: {name} does not link for {target.name}: {lines[0].strip()}")

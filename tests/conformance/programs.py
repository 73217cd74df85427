"""Many generated models in one program: built together, run on their samples by one process."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.flags import STRICT
from toolchain.config import Options
from toolchain.emit import emit
from toolchain.lower import lower
from toolchain.plan import plan
from toolchain.verify.harness import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from toolchain.config import Rounding
    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array

TRAPS = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
RUN = """
static int run_{name}(void)
{{
    static _Alignas(16) unsigned char arena[{prefix}_ARENA_BYTES];
    if ({name}_init(arena, sizeof arena) != {prefix}_OK) {{
        return 1;
    }}
    for (int sample = 0; sample < {samples}; sample++) {{
{reads}        {name}_run(arena);
{writes}    }}
    return 0;
}}
"""
READ = """        if (fread({name}_input{i}(arena), {prefix}_INPUT{i}_BYTES, 1, stdin) != 1) {{
            return 2;
        }}
"""
WRITE = "        fwrite({name}_output{i}(arena), {prefix}_OUTPUT{i}_BYTES, 1, stdout);\n"


@dataclass(frozen=True)
class Job:
    """A graph in canonical form and its samples, in the C's layout."""

    graph: Graph
    feeds: Mapping[str, Array]
    rounding: Rounding

    @property
    def samples(self) -> int:
        return len(next(iter(self.feeds.values())))

    def ends(self, names: Sequence[str]):
        return [(name, self.graph.tensors[name].type) for name in names]


def run_all(
    jobs: Sequence[Job], folder: Path, *, compiler: Sequence[str] = ("gcc",), runner: Sequence[str] = ()
) -> list[dict]:
    """The outputs of each job's C, in the C's layout."""
    if not jobs:
        return []
    names = [f"m{i}" for i in range(len(jobs))]
    for name, job in zip(names, jobs, strict=True):
        write(name, job, folder)
    (folder / "main.c").write_text(main_source(names, jobs))
    build(names, folder, compiler)
    raw = b"".join(pack(job.ends(job.graph.inputs), job.feeds).tobytes() for job in jobs)
    done = subprocess.run([*runner, folder / "program"], input=raw, capture_output=True, check=True)
    return _outputs(jobs, done.stdout)


def write(name: str, job: Job, folder: Path) -> None:
    """The C of one job."""
    program = plan(lower(job.graph, Options(name=name, rounding=job.rounding)))
    for path, text in emit(program).items():
        (folder / path).write_text(text)


def main_source(names: Sequence[str], jobs: Sequence[Job]) -> str:
    parts = ["#include <stdio.h>\n", *(f'#include "{name}.h"\n' for name in names)]
    for name, job in zip(names, jobs, strict=True):
        facts = {"name": name, "prefix": name.upper()}
        reads = "".join(READ.format(i=i, **facts) for i in range(len(job.graph.inputs)))
        writes = "".join(WRITE.format(i=i, **facts) for i in range(len(job.graph.outputs)))
        parts.append(RUN.format(samples=job.samples, reads=reads, writes=writes, **facts))
    calls = " || ".join(f"run_{name}()" for name in names)
    return "".join(parts) + f"\nint main(void)\n{{\n    return {calls};\n}}\n"


def build(names: Sequence[str], folder: Path, compiler: Sequence[str]) -> None:
    """Compile two files at a time, then link."""

    def compiled(name: str) -> None:
        flags = ("-std=c99",) if name == "main" else (*STRICT, "-O1", "-ffp-contract=off", *TRAPS)
        subprocess.run([*compiler, *flags, "-c", f"{name}.c", "-o", f"{name}.o"], cwd=folder, check=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compiled, (*names, "main")))
    objects = [f"{name}.o" for name in (*names, "main")]
    subprocess.run([*compiler, *objects, "-lm", "-o", "program"], cwd=folder, check=True)


def _outputs(jobs: Sequence[Job], raw: bytes) -> list[dict]:
    found, at = [], 0
    for job in jobs:
        ends = job.ends(job.graph.outputs)
        size = job.samples * sum(kind.bytes for _, kind in ends)
        found.append(unpack(ends, raw[at : at + size], job.samples))
        at += size
    assert at == len(raw)
    return found

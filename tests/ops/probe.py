"""Runs every kernel of a program with its output lying over an input, at every distance, in the real C."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tests.single import constants_of, graph_of, random_values
from toolchain.config import Options
from toolchain.emit import emit
from toolchain.ir.graph import Graph, Node
from toolchain.ir.types import DType
from toolchain.lower import lower
from toolchain.lower.program import NULL
from toolchain.ops.base import Body
from toolchain.plan import plan
from toolchain.quantize import quantize

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.cases import Row
    from toolchain.lower import Program, Step

ROUNDS = 8
"""Sets of random inputs: what one of them shows to be overwritten is."""
MAIN = r"""
typedef void (*runner)(unsigned char **x, void *y);
static const long rounds = {rounds};
static unsigned char input[{reads}][{room}], alone[{room}], again[{room}], arena[3 * {room}], before[3 * {room}];
static unsigned char scratch[{scratch}];
#define ALIGN(n) (((n) + 15) / 16 * 16)

/* Whether y comes out as it does alone when x lies `distance` bytes behind it, and nothing else is touched. */
static int survives(runner run, int reads, int which, long size, long written, long distance)
{{
    unsigned char *y = arena + ALIGN(size) + 16, *x = y + distance, *at[8];
    for (int i = 0; i < reads; i++) {{
        at[i] = i == which ? x : input[i];
    }}
    memset(arena, 0xA5, sizeof arena);
    memcpy(x, input[which], (size_t)size);
    memcpy(before, arena, sizeof arena);
    run(at, y);
    for (long i = 0; i < written; i++) {{
        /* What differs between two fillings is no output of this call. */
        if (y[i] != alone[i] && alone[i] == again[i]) {{
            return 0;
        }}
    }}
    memcpy(y, before + (y - arena), (size_t)written);
    return memcmp(arena, before, sizeof arena) == 0;
}}

{runners}

int main(void)
{{
    unsigned char *at[8];
    for (int i = 0; i < 8 && i < {reads}; i++) {{
        at[i] = input[i];
    }}
    for (long round = 0; round < rounds; round++) {{
{calls}
    }}
    return 0;
}}
"""


def program_of(rows: Sequence[Row], rng: np.random.Generator, *, integers: bool) -> Program:
    """All rows in one program, each with inputs of its own."""
    graphs = [_prefixed(graph_of(row, rng), f"r{i}_") for i, row in enumerate(rows)]
    graph = Graph(
        nodes=tuple(node for each in graphs for node in each.nodes),
        tensors={name: tensor for each in graphs for name, tensor in each.tensors.items()},
        inputs=tuple(name for each in graphs for name in each.inputs),
        outputs=tuple(name for each in graphs for name in each.outputs),
    )
    options = Options(name="m", quantize="int8", per_channel=True)
    if integers:
        feeds = {
            f"r{i}_in{k}": random_values(row, k, (8, *shape), rng)
            for i, row in enumerate(rows)
            for k, shape in enumerate(row.shapes)
            if k not in constants_of(row)
        }
        graph, _ = quantize(graph, feeds, options)
    return plan(lower(graph, options))


def _prefixed(graph: Graph, prefix: str) -> Graph:
    def named(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(prefix + name for name in names)

    tensors = {prefix + name: replace(tensor, name=prefix + name) for name, tensor in graph.tensors.items()}
    nodes = tuple(Node(node.op, named(node.inputs), named(node.outputs), node.origin) for node in graph.nodes)
    return Graph(nodes, tensors, named(graph.inputs), named(graph.outputs))


Probe = tuple["Step", int, list[int]]
"""Step, position of a read, distances."""


def probes(program: Program, *, allowed: bool = False) -> list[Probe]:
    """(step, position of a read, distances): all at which both meet, or only those that the step allows."""
    found = []
    for step in program.steps:
        for position, overlap in enumerate(step.overlaps):
            if overlap is None or step.reads[position] not in program.buffers:
                continue
            x, y = program.buffers[step.reads[position]], program.buffers[step.writes[0]]
            distances = range(-(x.bytes // x.dtype.bytes) * x.dtype.bytes, y.bytes + 1, x.dtype.bytes)
            found.append((step, position, [d for d in distances if not allowed or overlap.allows(d)]))
    return found


def survivors(
    program: Program, folder: Path, rng: np.random.Generator, *, allowed: bool = False, body: Body = Body.PORTABLE
) -> list[list[int]]:
    """For each of `probes` the distances at which the C computes what it computes in memory of its own.

    `allowed`: only those distances are tried, under sanitizers. `body`: the host runs that one, by the plain C that
    stands for its instructions.
    """
    todo = probes(program, allowed=allowed)
    for name, text in emit(program).items():
        chosen = text.replace("#define KERNEL_DSP 0", "#define KERNEL_DSP 1") if body is Body.DSP else text
        (folder / name).write_text(chosen)
    rounds = 1 if allowed else ROUNDS
    (folder / "probe.c").write_text('#include <stdio.h>\n#include "m.c"\n' + main_of(program, todo, rounds))
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"] if allowed else []
    command = ["gcc", "-std=c11", "-O1", *sanitize, "-o", folder / "probe", folder / "probe.c", "-lm"]
    subprocess.run(command, check=True)
    data = inputs_of(program, todo, rng, rounds)
    raw = subprocess.run([folder / "probe"], input=data, check=True, capture_output=True).stdout
    return verdicts(todo, raw, rounds)


def inputs_of(program: Program, todo: list[Probe], rng: np.random.Generator, rounds: int) -> bytes:
    """What `main_of` reads: random inputs for each round and probe."""
    return b"".join(_inputs(program, step, rng) for _ in range(rounds) for step, _, _ in todo)


def verdicts(todo: list[Probe], raw: bytes, rounds: int) -> list[list[int]]:
    """The distances that survived all rounds, from what `main_of` printed."""
    words = raw.split()
    lines = [words[i :: len(todo)] for i in range(len(todo))]
    return [
        [d for place, d in enumerate(distances) if all(line[place] == ord("1") for line in tried[:rounds])]
        for (_, _, distances), tried in zip(todo, lines, strict=True)
    ]


def _inputs(program: Program, step: Step, rng: np.random.Generator) -> bytes:
    """Random values for the reads of a step that are not constants."""
    parts = []
    for name in step.reads:
        if name in program.buffers:
            buffer = program.buffers[name]
            if buffer.dtype is DType.FLOAT32:
                values = rng.normal(0.0, 1.0, buffer.elements)
            else:
                values = rng.integers(*((0, 2) if buffer.dtype is DType.BOOL else (-120, 120)), buffer.elements)
            parts.append(values.astype(buffer.dtype.numpy).tobytes())
    return b"".join(parts)


def main_of(program: Program, todo: list[Probe], rounds: int) -> str:
    """The C that tries all probes, reading `inputs_of` from stdin; it follows <stdio.h> and the model's C."""
    sizes = [buffer.bytes for buffer in program.buffers.values()]
    runners, calls = {}, []
    for step, position, distances in todo:
        runners[step.record_name] = _runner(program, step)
        reads = [name for name in step.reads if name in program.buffers]
        which, run = reads.index(step.reads[position]), f"run_{step.record_name}"
        size, written = program.buffers[step.reads[position]].bytes, program.buffers[step.writes[0]].bytes
        calls += [f"if (fread(input[{i}], {program.buffers[n].bytes}, 1, stdin) != 1) return 1;"
                  for i, n in enumerate(reads)]  # fmt: skip
        calls += [f"memset({y}, {fill}, sizeof {y}); {run}(at, {y});" for y, fill in (("alone", 1), ("again", 2))]
        table = ", ".join(map(str, distances)) or "0"
        calls.append(f"static const long d_{run}_{which}[] = {{{table}}};")
        verdict = f"survives({run}, {len(reads)}, {which}, {size}, {written}, d_{run}_{which}[i])"
        calls.append(f"for (long i = 0; i < {len(distances)}; i++) putchar({verdict} ? '1' : '0');")
        calls.append('puts("x");')
    room = -(-max(sizes) // 16) * 16 + 64
    reads = max(len(step.reads) for step, _, _ in todo)
    fields = {"rounds": rounds, "reads": reads, "room": room, "scratch": room}
    return MAIN.format(**fields, runners="\n".join(runners.values()), calls="\n".join(calls))


def _runner(program: Program, step: Step) -> str:
    """A function that calls the step's kernel with pointers of its own."""
    reads = iter(range(8))
    given = [f"(const void *)x[{next(reads)}]" if n in program.buffers else n for n in step.reads]
    record = [f"&{step.record_name}"] if step.record else []
    scratch = [] if step.scratch is None else ["NULL" if step.scratch == NULL else "scratch"]
    arguments = ", ".join([*record, *given, "y", *scratch])
    head = f"static void run_{step.record_name}(unsigned char **x, void *y)"
    return f"{head} {{ {step.kernel.symbol}({arguments}); }}"

"""What one run costs on a core: instructions by kernel and layer, code, constants, RAM and stack."""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain import samples
from toolchain.errors import CheckFailedError, InputError
from toolchain.ir.graph import Graph
from toolchain.lower.program import Program
from toolchain.samples import Feeds
from toolchain.targets.cores import Target, find_target
from toolchain.targets.cycles import disassembly, estimate
from toolchain.targets.emulator import Run, Stretch, find_counter, run_image
from toolchain.targets.image import Build, Image, build_image
from toolchain.targets.marks import mark_steps
from toolchain.targets.stack import deepest_stack
from toolchain.targets.symbols import Functions, Symbol, sizes, symbols
from toolchain.verify import check, compare
from toolchain.verify.harness import pack, unpack


@dataclass(frozen=True, slots=True)
class Cost:
    """Instructions (on the host nanoseconds) and, for the core whose timings are modelled, estimated cycles."""

    count: float = 0.0
    cycles: float | None = None

    def __add__(self, other: Cost) -> Cost:
        cycles = None if self.cycles is None or other.cycles is None else self.cycles + other.cycles
        return Cost(self.count + other.count, cycles)


@dataclass(frozen=True, slots=True)
class Layer:
    """One call of the network; `macs` of a layer that takes several calls stand at the dearest."""

    index: int
    origin: str
    kernel: str
    macs: int
    cost: Cost


LEVELS = ("0", "1", "2", "3", "s")
"""What may stand behind -O."""


def bench(
    folder: Path,
    graph: Graph,
    program: Program,
    name: str,
    level: str = "2",
    *,
    portable: bool = False,
    native: bool = False,
) -> dict[str, Any]:
    """Build, run and measure an exported folder, `portable` without the core's own kernels.

    `native`: on the host, for all instructions its processor has.

    Raises CheckFailedError when the outputs are not numpy's.
    """
    target = find_target(name)
    if native and target.platform != "host":
        raise InputError(f"--native: found --target {name}, expected host")
    target = dataclasses.replace(target, flags=("-march=native",)) if native else target
    if level not in LEVELS:
        raise InputError(f"-O{level}: not a level inlay builds with, expected -O{', -O'.join(LEVELS)}")
    ends = check.interface(graph, program.name)
    defines = (f"{program.prefix}_PORTABLE",) if portable else ()
    macs = [_macs(graph, index) for index in range(len(graph.nodes))]
    with tempfile.TemporaryDirectory(prefix="inlay-bench-") as scratch:
        whole, apart = Path(scratch) / "whole", Path(scratch) / "apart"
        whole.mkdir()
        apart.mkdir()
        source = folder / f"{program.name}.c"
        image = build_image(source, folder, ends, target, whole, Build(level, defines=defines))
        run = _checked_run(image, graph, program)
        marked = mark_steps(source.read_text(), program.name)
        copy = apart / source.name
        copy.write_text(marked.text)
        build = Build(level, marks=len(marked.kernels) + 2, defines=defines)
        steps = build_image(copy, folder, ends, target, apart, build)
        layers = _layers(program, marked.kernels, macs, _costs(steps, _checked_run(steps, graph, program)))
        return _document(image, run, program, sum(macs), layers)


def _macs(graph: Graph, index: int) -> int:
    node = graph.nodes[index]
    inputs, outputs = graph.operands(node.inputs), graph.operands(node.outputs)
    return int(node.op.macs(tuple(t.type for t in inputs), tuple(t.type for t in outputs)))


def _sample(graph: Graph) -> Feeds:
    """One sample of noise: the corner cases that come before it would favour clamps."""
    return {name: array[-1:] for name, array in samples.synthetic(graph, 3).items()}


def _checked_run(image: Image, graph: Graph, program: Program) -> Run:
    sample = _sample(graph)
    counter = find_counter(image.target.emulator) if image.target.emulator else None
    run = run_image(image, pack(image.interface.inputs, sample), clocked=counter is None, counter=counter)
    if len(run.output) != image.interface.output_bytes:
        raise CheckFailedError(f"{image.interface.name}.c on {image.target.name}: wrote {len(run.output)} output bytes")
    found = unpack(image.interface.outputs, run.output, 1)
    rows = compare.compare(graph, found, compare.interpret_batch(graph, sample, program.rounding), "numpy")
    compare.require(rows, f"{image.interface.name}.c on {image.target.name}", None)
    return run


def _costs(image: Image, run: Run) -> list[Cost]:
    """The cost between each two marks."""
    if run.stretches:
        owners = Functions(symbols(image))
        return [sum(_by_function(image, owners, stretch).values(), _nothing(image)) for stretch in run.stretches[1:]]
    wrap = 1 << 24 if image.target.platform == "arm" else 1 << 32 if image.target.platform == "riscv" else 1 << 64
    ticks = [(after - before) % wrap for before, after in zip(run.clock, run.clock[1:], strict=False)]
    return [Cost(count * image.target.tick) for count in ticks]


def _nothing(image: Image) -> Cost:
    return Cost(0.0, 0.0 if image.target.estimates_cycles else None)


def _by_function(image: Image, owners: Functions, stretch: Stretch) -> dict[str, Cost]:
    """Cost by function, without the harness."""
    cycles: Mapping[int, float] = {}
    if image.target.estimates_cycles:
        cycles = estimate(disassembly(image), stretch)
    costs: dict[str, Cost] = {}
    for address, counted in stretch.items():
        owner = owners.at(address)
        if owner is not None and owner.origin != "harness":
            cost = Cost(float(counted.executed), cycles.get(address, 0.0) if image.target.estimates_cycles else None)
            costs[owner.name] = costs.get(owner.name, _nothing(image)) + cost
    return costs


def _layers(program: Program, kernels: Sequence[str], macs: Sequence[int], costs: Sequence[Cost]) -> list[Layer]:
    """One row per call; origins and MACs where the folder's calls are the program's."""
    rows = costs[: len(kernels)]
    if tuple(kernels) != tuple(step.kernel.symbol for step in program.steps):
        return [Layer(at, "", kernel, 0, cost) for at, (kernel, cost) in enumerate(zip(kernels, rows, strict=True))]
    dearest: dict[int, int] = {}
    for at, step in enumerate(program.steps):
        if step.node not in dearest or rows[at].count > rows[dearest[step.node]].count:
            dearest[step.node] = at
    return [
        Layer(at, step.origin, kernel, macs[step.node] if dearest[step.node] == at else 0, cost)
        for at, (step, kernel, cost) in enumerate(zip(program.steps, kernels, rows, strict=True))
    ]


def _document(image: Image, run: Run, program: Program, macs: int, layers: Sequence[Layer]) -> dict[str, Any]:
    target = image.target
    rows = symbols(image)
    functions = _by_function(image, Functions(rows), run.stretches[1]) if run.stretches else {}
    total = sum(functions.values(), _nothing(image)) if functions else _clocked_total(image, run, layers)
    return {
        "model": program.name,
        "target": target.name,
        "core": target.core,
        "machine": target.board,
        "note": target.note,
        "compiler": f"{_version(image)} {' '.join(image.flags[: len(target.flags) + 1])}",
        "counted_by": _counted_by(target, run),
        "macs": macs,
        **_numbers(target, total, macs),
        **_memory(image, run, program, rows, functions),
        "kernels": _kernels(target, layers, total),
        "functions": [
            {"function": name, **_numbers(target, cost, 0)}
            for name, cost in sorted(functions.items(), key=lambda item: -item[1].count)
        ],
        "layers": [
            {
                "step": row.index,
                "layer": row.origin,
                "kernel": row.kernel,
                "macs": row.macs,
                **_numbers(target, row.cost, row.macs),
            }
            for row in layers
        ],
    }


def _clocked_total(image: Image, run: Run, layers: Sequence[Layer]) -> Cost:
    """Without a counter: the clock around the run, or the layers' sum where that clock has wrapped."""
    parts = sum((row.cost for row in layers), Cost())
    whole = _costs(image, run)[0]
    return whole if image.target.platform == "host" or whole.count > parts.count / 2 else parts


def _version(image: Image) -> str:
    done = subprocess.run([*image.compiler, "-dumpfullversion"], capture_output=True, text=True, check=False)
    return f"{Path(image.compiler[0]).name} {done.stdout.strip()}".strip()


def _counted_by(target: Target, run: Run) -> str:
    if target.platform == "host":
        return "clock"
    return "QEMU plugin" if run.stretches else f"clock, {target.tick:g} instructions a tick"


def _numbers(target: Target, cost: Cost, macs: int) -> dict[str, float | None]:
    """The cost under the names of the target's unit, with the share per MAC where there are MACs."""
    unit = "nanoseconds" if target.platform == "host" else "instructions"
    numbers: dict[str, float | None] = {unit: round(cost.count)}
    numbers[f"{unit}_per_mac"] = round(cost.count / macs, 3) if macs else None
    if target.estimates_cycles:
        numbers["estimated_cycles"] = None if cost.cycles is None else round(cost.cycles)
        per_mac = macs and cost.cycles is not None
        numbers["estimated_cycles_per_mac"] = round((cost.cycles or 0.0) / macs, 3) if per_mac else None
    return numbers


def _memory(
    image: Image, run: Run, program: Program, rows: Sequence[Symbol], functions: Mapping[str, Cost]
) -> dict[str, int | None]:
    """Bytes: `stack_bytes` as the paint shows it, `stack_computed_bytes` from the call graph without the C library."""
    measured = dataclasses.asdict(sizes(rows, functions))
    return {
        "code_bytes": measured["code"],
        "constants_bytes": measured["constants"],
        "library_bytes": measured["library"] if functions else None,
        "arena_bytes": program.arena_bytes,
        "stack_bytes": run.stack or None,
        "stack_computed_bytes": deepest_stack(image.folder / "model.ci", f"{program.name}_run"),
    }


def _kernels(target: Target, layers: Sequence[Layer], total: Cost) -> list[dict[str, Any]]:
    """Layers added up by the kernel they call, dearest first."""
    groups: dict[str, list[Layer]] = {}
    for row in layers:
        groups.setdefault(row.kernel, []).append(row)
    found = []
    for kernel, members in groups.items():
        cost = sum((row.cost for row in members[1:]), members[0].cost)
        macs = sum(row.macs for row in members)
        share = round(cost.count / total.count, 4) if total.count else 0.0
        numbers = _numbers(target, cost, macs)
        found.append({"kernel": kernel, "layers": len(members), "macs": macs, **numbers, "share": share})
    return sorted(found, key=lambda row: -row["share"])


COMPARED = (
    "instructions",
    "nanoseconds",
    "estimated_cycles",
    "code_bytes",
    "constants_bytes",
    "arena_bytes",
    "stack_bytes",
)


def compared(this: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two measurements and, per number both have, this one's share of the other's."""
    ratios = {key: round(this[key] / other[key], 4) for key in COMPARED if this.get(key) and other.get(key)}
    return {"this": this, "other": other, "ratio": ratios}

"""The benchmark suite: the four MLPerf Tiny networks on emulated cores, beside TensorFlow Lite Micro's figures.

`make bench` runs it. The trained files are taken from $INLAY_SHARED where they are, self-made twins of the int8 ones
elsewhere. On this machine the C runs beside LiteRT: see `desktop`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import toolchain
from tests.bench import desktop
from tests.bench.twins import TWINS, export_twin
from toolchain import pipeline
from toolchain.targets.cores import TARGETS, missing_tools

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TABLE = Path(__file__).resolve().parent / "results.md"
CORES = ("cortex-m4", "cortex-m55", "cortex-m0", "cortex-m3", "cortex-m7", "cortex-m33", "rv32imc")
PORTABLE = "cortex-m4 plain C"
DESKTOP = "desktop"
DESKTOP_NETWORKS = ("kws", "ic", "vww")
LEVELS = ("2", "3")
FILES = {"int8": "int8", "float": "fp32"}
"""How the trained files of an element type are named."""

MICRO: Mapping[str, Mapping[str, float]] = {
    "ad": {"cortex-m4": 583e3, "cycles": 720e3, "cortex-m55": 150e3, PORTABLE: 1_952_360},
    "kws": {"cortex-m4": 7_698e3, "cycles": 8_960e3, "cortex-m55": 1_814e3, PORTABLE: 43_042_136},
    "ic": {"cortex-m4": 29_862e3, "cycles": 35_400e3, "cortex-m55": 4_910e3, PORTABLE: 107_404_540},
    "vww": {"cortex-m4": 24_102e3, "cycles": 28_200e3, "cortex-m55": 6_558e3, PORTABLE: 100_253_190},
}
"""TensorFlow Lite Micro (90b983c) with CMSIS-NN (4ab83cc), for plain C with its reference kernels: official flags,
gcc 12.2, counted in the same QEMU."""
MICRO_BYTES: Mapping[str, Mapping[str, int]] = {
    "ad": {"arena": 2_580, "code": 28_284, "stack": 836},
    "kws": {"arena": 22_820, "code": 53_652, "stack": 1_340},
    "ic": {"arena": 54_996, "code": 51_456, "stack": 1_340},
    "vww": {"arena": 100_708, "code": 53_652, "stack": 1_340},
}

Rows = Mapping[str, Mapping[str, Any]]


def trained(name: str, dtype: str = "int8") -> Path | None:
    """The trained file where it is present."""
    folder = Path(os.environ.get("INLAY_SHARED", REPOSITORY.parent / "shared"))
    path = folder / "models/mlperf_tiny" / f"{name}_{FILES[dtype]}.tflite"
    return path if path.is_file() else None


def export(name: str, folder: Path, dtype: str = "int8") -> Path:
    """Export one network into `folder`."""
    path = trained(name, dtype)
    if path is None:
        return export_twin(name, folder / name).out
    return toolchain.export(path, folder / f"{name}_{dtype}", name=name, verify=False).out


def measure(folder: Path, core: str) -> dict[str, Any]:
    """The measurement at the level that executes fewest instructions, of cycles at theirs; the code's bytes at -O2.

    Plain C is measured at -O2.
    """
    target, portable = core.split(" ", maxsplit=1)[0], core == PORTABLE
    levels = LEVELS[:1] if portable else LEVELS
    runs = {level: pipeline.bench_folder(folder, target, level=level, portable=portable) for level in levels}
    best = min(levels, key=lambda level: runs[level]["instructions"])
    cycles = [run["estimated_cycles"] for run in runs.values() if "estimated_cycles" in run]
    return {**runs[best], "level": best, "cycles": min(cycles, default=None), "code_bytes": runs["2"]["code_bytes"]}


def parameter_bytes(folder: Path) -> int:
    """Of the model's own weights and biases, and a float of each scale of weights."""
    _, graph, _ = pipeline.read_export(folder)
    total = 0
    for node in graph.nodes:
        if node.op.weight is not None:
            weight, *bias = (graph.tensors[name] for name in node.inputs[node.op.weight :])
            scales = weight.type.quant.scale if weight.type.quant is not None else ()
            total += sum(t.data.nbytes for t in (weight, *bias) if t.data is not None) + 4 * len(scales)
    return total


def measure_all(names: Iterable[str], cores: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{network: {core: measurement}} for the cores whose tools are installed."""
    wanted = [core for core in cores if core != DESKTOP and not missing_tools(TARGETS[core.split(" ", maxsplit=1)[0]])]
    with tempfile.TemporaryDirectory(prefix="inlay-suite-") as scratch:
        rows = {}
        for name in names:
            folder = export(name, Path(scratch))
            rows[name] = {core: measure(folder, core) for core in wanted}
            for row in rows[name].values():
                row["parameter_bytes"] = parameter_bytes(folder)
        return rows


def measure_desktop(names: Iterable[str]) -> dict[str, dict[str, dict[str, float]]] | str:
    """{network: {element type: {who: microseconds}}}, or why there is nothing."""
    if reason := desktop.missing():
        return reason
    found = [(name, dtype, trained(name, dtype)) for name in names if name in DESKTOP_NETWORKS for dtype in FILES]
    rows: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="inlay-suite-") as scratch:
        for name, dtype, path in found:
            if path is not None:
                folder = export(name, Path(scratch), dtype)
                rows.setdefault(name, {})[dtype] = desktop.measure(path, folder, name)
    return rows or "the trained files are not there"


def markdown(rows: Rows, beside: Mapping[str, Any] | str | None) -> str:
    """The tables as the README quotes them; `beside`: what `measure_desktop` found, None where it was not asked."""
    blocks = [_against_micro(rows), _bytes(rows), _everywhere(rows)] if any(rows.values()) else []
    if beside is not None:
        blocks.append([f"Desktop: {beside}."] if isinstance(beside, str) else desktop.table(beside))
    if twins := [name for name in rows if trained(name) is None]:
        blocks.append([f"Self-made twins with seeded weights instead of the trained files: {', '.join(twins)}."])
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _against_micro(rows: Rows) -> list[str]:
    """Executed instructions and estimated cycles."""
    columns = {
        "Cortex-M4": ("cortex-m4", "instructions", "cortex-m4"),
        "cycles": ("cortex-m4", "cycles", "cycles"),
        "Cortex-M55": ("cortex-m55", "instructions", "cortex-m55"),
        "M4, plain C": (PORTABLE, "instructions", PORTABLE),
    }
    lines = [
        f"| int8 network | MACs | {' | TFLM | '.join(columns)} | TFLM |",
        f"|---|---:|{'---:|' * 2 * len(columns)}",
    ]
    for name, cores in rows.items():
        cells = [name, f"{next(iter(cores.values()))['macs']:,}"]
        for core, key, micro in columns.values():
            cells += _ratio(cores[core][key], MICRO[name][micro]) if core in cores else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _bytes(rows: Rows) -> list[str]:
    """Bytes on a Cortex-M4, of constants beside the model's own."""
    lines = ["| bytes | arena | TFLM | code | TFLM | stack | TFLM | constants | parameters |", f"|---|{'---:|' * 8}"]
    for name, cores in rows.items():
        main, cells = cores.get("cortex-m4", next(iter(cores.values()))), [name]
        for key, micro in MICRO_BYTES[name].items():
            cells += [f"{main[f'{key}_bytes']:,}", f"{micro:,}"]
        own = main["parameter_bytes"]
        cells += [f"{main['constants_bytes']:,} ({main['constants_bytes'] / own:.2f})", f"{own:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ratio(found: float, micro: float) -> list[str]:
    return [f"{found / 1e6:.3f} M ({found / micro:.2f})", f"{micro / 1e6:.3f} M"]


def _everywhere(rows: Rows) -> list[str]:
    """Instructions per MAC on every core measured."""
    cores = list(dict.fromkeys(core for row in rows.values() for core in row))
    lines = [f"| instructions per MAC | {' | '.join(cores)} |", f"|---|{'---:|' * len(cores)}"]
    for name, row in rows.items():
        cells = [f"{row[core]['instructions_per_mac']:.2f}" if core in row else "" for core in cores]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure, print the tables, and with --write keep them in results.md and README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", nargs="*", default=[*CORES, PORTABLE, DESKTOP])
    parser.add_argument("--models", nargs="*", default=list(TWINS), choices=list(TWINS))
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--write", action="store_true", help="keep the tables in tests/bench/results.md and README.md")
    options = parser.parse_args()
    rows = measure_all(options.models, options.cores)
    beside = measure_desktop(options.models) if DESKTOP in options.cores else None
    text = markdown(rows, beside)
    sys.stdout.write(text)
    if options.json:
        options.json.write_text(json.dumps({**rows, DESKTOP: beside}, indent=1))
    if options.write:
        TABLE.write_text(text)
        quote(REPOSITORY / "README.md", text)


def quote(readme: Path, text: str) -> None:
    """Put the tables between the README's markers."""
    before, marker, rest = readme.read_text().partition("<!-- bench -->\n")
    _, end, after = rest.partition("<!-- /bench -->")
    if not marker or not end:
        raise ValueError(f"{readme}: expected the tables between <!-- bench --> and <!-- /bench -->")
    readme.write_text(f"{before}{marker}\n{text}\n{end}{after}")


if __name__ == "__main__":
    main()

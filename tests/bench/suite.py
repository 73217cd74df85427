"""The benchmark suite: the four MLPerf Tiny networks on emulated cores, beside TensorFlow Lite Micro's figures.

`make bench` runs it. The trained int8 files are taken from $INLAY_SHARED where they are, self-made twins elsewhere.
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
from tests.bench.twins import TWINS, export_twin
from toolchain import pipeline
from toolchain.targets.cores import TARGETS, missing_tools

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TABLE = Path(__file__).resolve().parent / "results.md"
CORES = ("cortex-m4", "cortex-m55", "cortex-m0", "cortex-m3", "cortex-m7", "cortex-m33", "rv32imc")
PORTABLE = "cortex-m4 portable"
LEVELS = ("2", "3")

MICRO: Mapping[str, Mapping[str, float]] = {
    "ad": {"cortex-m4": 583e3, "cortex-m55": 150e3, "code": 28_284, "arena": 2_580, "stack": 836},
    "kws": {"cortex-m4": 7_698e3, "cortex-m55": 1_814e3, "code": 53_652, "arena": 22_820, "stack": 1_340},
    "ic": {"cortex-m4": 29_862e3, "cortex-m55": 4_910e3, "code": 51_456, "arena": 54_996, "stack": 1_340},
    "vww": {"cortex-m4": 24_102e3, "cortex-m55": 6_558e3, "code": 53_652, "arena": 100_708, "stack": 1_340},
}
"""TensorFlow Lite Micro (90b983c) with CMSIS-NN (4ab83cc): official flags, gcc 12.2, counted in the same QEMU."""

Rows = Mapping[str, Mapping[str, Any]]


def trained(name: str) -> Path | None:
    """The trained int8 file where it is present."""
    folder = Path(os.environ.get("INLAY_SHARED", REPOSITORY.parent / "shared"))
    path = folder / "models/mlperf_tiny" / f"{name}_int8.tflite"
    return path if path.is_file() else None


def export(name: str, folder: Path) -> Path:
    """Export one network into `folder`."""
    path = trained(name)
    if path is None:
        return export_twin(name, folder / name).out
    return toolchain.export(path, folder / name, name=name, verify=False).out


def measure(folder: Path, core: str) -> dict[str, Any]:
    """The measurement at the level that executes fewest instructions, and the code's bytes at -O2."""
    target, portable = core.removesuffix(" portable"), core.endswith("portable")
    runs = {level: pipeline.bench_folder(folder, target, level=level, portable=portable) for level in LEVELS}
    best = min(LEVELS, key=lambda level: runs[level]["instructions"])
    return {**runs[best], "level": best, "code_bytes": runs["2"]["code_bytes"]}


def measure_all(names: Iterable[str], cores: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{network: {core: measurement}} for the cores whose tools are installed."""
    wanted = [core for core in cores if not missing_tools(TARGETS[core.removesuffix(" portable")])]
    with tempfile.TemporaryDirectory(prefix="inlay-suite-") as scratch:
        rows = {}
        for name in names:
            folder = export(name, Path(scratch))
            rows[name] = {core: measure(folder, core) for core in wanted}
        return rows


def markdown(rows: Rows) -> str:
    """The tables as the README quotes them."""
    twins = [name for name in rows if trained(name) is None]
    note = f"Self-made twins with seeded weights instead of the trained files: {', '.join(twins)}.\n" if twins else ""
    return "\n".join([*_against_micro(rows), "", *_everywhere(rows), "", note]).rstrip("\n") + "\n"


def _against_micro(rows: Rows) -> list[str]:
    lines = [
        "| int8 network | MACs | Cortex-M4 | TFLM | Cortex-M55 | TFLM | arena | TFLM | code | TFLM | stack | TFLM |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, cores in rows.items():
        first, micro = next(iter(cores.values())), MICRO[name]
        cells = [name, f"{first['macs']:,}"]
        for core in ("cortex-m4", "cortex-m55"):
            cells += _ratio(cores[core]["instructions"], micro[core]) if core in cores else ["", ""]
        main = cores.get("cortex-m4", first)
        for key in ("arena", "code", "stack"):
            cells += [f"{main[f'{key}_bytes']:,}", f"{micro[key]:,}"]
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
    parser.add_argument("--cores", nargs="*", default=[*CORES, PORTABLE])
    parser.add_argument("--models", nargs="*", default=list(TWINS), choices=list(TWINS))
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--write", action="store_true", help="keep the tables in tests/bench/results.md and README.md")
    options = parser.parse_args()
    rows = measure_all(options.models, options.cores)
    text = markdown(rows)
    sys.stdout.write(text)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
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

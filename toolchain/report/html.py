"""report.html: one file without network or scripts, from the manifest and the parity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolchain.report import charts
from toolchain.templating import new_environment

WIDTH, HEIGHT = 960, 320
"""Size of the arena chart in its own units, without its axes."""
LETTER, LINE = 6.2, 12
"""Room that a letter and a line of text take in the chart."""


def render(manifest: Mapping[str, Any], parity: Mapping[str, Any]) -> str:
    """The report as text."""
    environment = new_environment(autoescape=True)
    environment.filters["grouped"] = grouped
    environment.filters["shaped"] = shaped
    environment.filters["path"] = charts.histogram_path
    environment.filters["marks"] = charts.range_marks
    accounted = (manifest["quantization"] or {}).get("layers", [])
    groups = charts.noise_bars(accounted)
    return environment.get_template("report.html.j2").render(
        manifest=manifest,
        parity=parity,
        quantized=quantized_tensors(manifest),
        boxes=arena_boxes(manifest),
        ticks=step_ticks(manifest),
        accounted=accounted,
        groups=groups,
        bars_height=charts.bars_height(groups),
        charts=charts,
        bound=round(HEIGHT * (1 - manifest["arena"]["lower_bound"] / max(1, manifest["arena"]["bytes"])), 2),
        width=WIDTH,
        height=HEIGHT,
    )


def grouped(number: float) -> str:
    """1234567 -> '1 234 567' with thin spaces."""
    return f"{number:,}".replace(",", "\u2009")


def shaped(shape: list[int]) -> str:
    """[1, 8, 8, 1] -> '1x8x8x1' with multiplication signs."""
    return "\u00d7".join(str(size) for size in shape) or "scalar"


def arena_boxes(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One rectangle per buffer: time runs right, addresses run up."""
    column = WIDTH / _columns(manifest)
    total = max(1, manifest["arena"]["bytes"])
    return [_box(row, index, column, HEIGHT / total) for index, row in enumerate(manifest["arena"]["buffers"])]


def _columns(manifest: Mapping[str, Any]) -> int:
    """The moment before the first step, the steps, and the moment after the last one where something outlives it."""
    return 2 + max((int(row["steps"][1]) for row in manifest["arena"]["buffers"]), default=0)


def _box(row: Mapping[str, Any], index: int, column: float, byte: float) -> dict[str, Any]:
    first, last = row["steps"]
    width, height = column * (last + 1 - first), byte * row["bytes"]
    over = f", written over {', '.join(row['over'])}" if row["over"] else ""
    return {
        "x": round(column * (first + 1), 2),
        "width": round(width, 2),
        "y": round(HEIGHT - byte * (row["offset"] + row["bytes"]), 2),
        "height": round(height, 2),
        "hue": 47 * index % 360,
        "label": f"{row['name']}: {row['bytes']} bytes at {row['offset']}{over}",
        "text": row["name"] if len(row["name"]) * LETTER < width and height > LINE else "",
    }


def step_ticks(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where the numbers of the steps stand under the chart, as many as there is room for."""
    columns = _columns(manifest)
    apart = max(1, round(columns * 4 * LETTER / WIDTH))
    return [{"x": round(WIDTH * (step + 1.5) / columns, 2), "step": step} for step in range(0, columns - 1, apart)]


def quantized_tensors(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Quantized tensors with the range of reals they hold."""
    return [
        {"name": name, "dtype": kind["dtype"], "range": _range(kind), **kind["quant"]}
        for name, kind in manifest["tensors"].items()
        if kind["quant"]
    ]


def _range(kind: Mapping[str, Any]) -> tuple[float, float]:
    bits = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
    low, high = bits.get(kind["dtype"], (-(2**31), 2**31 - 1))
    scale, zero = max(kind["quant"]["scale"]), kind["quant"]["zero_point"]
    return (low - zero) * scale, (high - zero) * scale

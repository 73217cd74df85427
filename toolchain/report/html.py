"""report.html: one file without network or scripts, from the manifest and the parity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from toolchain.templating import TEMPLATES

WIDTH, HEIGHT = 960, 320
"""Size of the arena chart in its own units."""


def render(manifest: Mapping[str, Any], parity: Mapping[str, Any]) -> str:
    """The report as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
    )
    environment.filters["grouped"] = grouped
    environment.filters["shaped"] = shaped
    return environment.get_template("report.html.j2").render(
        manifest=manifest,
        parity=parity,
        quantized=quantized_tensors(manifest),
        boxes=arena_boxes(manifest),
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
    rows = manifest["arena"]["buffers"]
    steps = 2 + max((row["steps"][1] for row in rows), default=0)
    total = max(1, manifest["arena"]["bytes"])
    return [
        {
            "x": round(WIDTH * (row["steps"][0] + 1) / steps, 2),
            "width": round(WIDTH * (row["steps"][1] + 1 - row["steps"][0]) / steps, 2),
            "y": round(HEIGHT * (1 - (row["offset"] + row["bytes"]) / total), 2),
            "height": round(HEIGHT * row["bytes"] / total, 2),
            "hue": 47 * index % 360,
            "label": f"{row['name']}: {row['bytes']} bytes at {row['offset']}",
        }
        for index, row in enumerate(rows)
    ]


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

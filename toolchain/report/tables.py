"""What quantization did as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Document = Mapping[str, Any]


def quantization_tables(document: Document) -> list[Table]:
    """The techniques, the layers, and the layers that moved to more precision; nothing for other exports."""
    found = document.get("quantization") or {}
    tables = []
    if found.get("techniques"):
        tables.append(_techniques(found["techniques"]))
    if found.get("layers"):
        tables.append(_layers(found["layers"]))
    if found.get("mixed"):
        tables.append(_mixed(found["mixed"]))
    return tables


def _techniques(rows: Sequence[Document]) -> Table:
    table = _table("quantization, output signal to noise in dB", ("technique", "without", "with", "kept", "changed"), 2)
    for row in rows:
        kept = "yes" if row["kept"] else "no"
        table.add_row(row["name"], f"{row['before']:.1f}", f"{row['after']:.1f}", kept, row["detail"])
    return table


def _layers(rows: Sequence[Document]) -> Table:
    columns = ("layer", "type", "scale", "range", "saturated", "weights dB", "activation dB", "accumulated dB")
    table = _table("layers, signal to noise on calibration samples", columns, 6)
    for row in rows:
        limits = "" if row["range"] is None else f"{row['range'][0]:.4g} to {row['range'][1]:.4g}"
        scale = "" if row["scale"] is None else f"{row['scale']:.4g}"
        ratios = (decibels(row[key]) for key in ("weights_db", "activation_db", "accumulated_db"))
        table.add_row(row["origin"], row["dtype"], scale, limits, f"{100 * row['saturated']:.2f} %", *ratios)
    return table


def _mixed(found: Document) -> Table:
    more = found["bytes_after"] - found["bytes_before"]
    share = 100 * more / max(found["bytes_before"], 1)
    figures = f"{found['before']:.2f} to {found['after']:.2f} {found['unit']}, bar {found['bar']:.2f}"
    title = f"mixed precision: {figures}; {more:+,} bytes of constants ({share:+.1f} %)"
    table = _table(title, ("layer", "moved to"), 0)
    for origin, move in found["moves"] or [("none", "")]:
        table.add_row(origin, move)
    return table


def decibels(ratio: float | None) -> str:
    """A ratio as a cell; 200 stands for no noise."""
    return "" if ratio is None else "exact" if ratio >= 200 else f"{ratio:.1f}"


def _table(title: str, columns: tuple[str, ...], numbers: int) -> Table:
    """A table whose last columns, and those named without or with, stand right."""
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        right = column in {"without", "with"} or (numbers > 2 and place >= len(columns) - numbers)
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table

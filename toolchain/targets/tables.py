"""Measurements as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Document = Mapping[str, Any]
SIZES = {
    "code": "code_bytes",
    "constants": "constants_bytes",
    "C library it runs": "library_bytes",
    "arena": "arena_bytes",
    "stack": "stack_bytes",
}


def bench_tables(document: Document) -> list[Table]:
    """The totals, then a row per kernel and per layer; of a comparison the totals side by side."""
    if "ratio" in document:
        return [_comparison(document)]
    tables = [_totals(document), _rows(document, "kernels", ("kernel", "layers", "macs"), ("share",))]
    return [*tables, _rows(document, "layers", ("step", "layer", "kernel", "macs"), ())]


def unit(document: Document) -> str:
    """What time is counted in."""
    return "nanoseconds" if "nanoseconds" in document else "instructions"


def _totals(document: Document) -> Table:
    where = f", QEMU {document['machine']}" if document["machine"] else ""
    table = _table(f"{document['model']} on {document['core']}{where}", ("", "", "per MAC"))
    for key, label in ((unit(document), unit(document)), ("estimated_cycles", "cycles, estimated")):
        if document.get(key) is not None:
            table.add_row(label, cell(document[key]), cell(document[f"{key}_per_mac"]))
    table.add_row("MACs", cell(document["macs"]), "")
    for label, key in SIZES.items():
        if document[key] is not None:
            table.add_row(label, f"{document[key]:,} bytes", "")
    computed = document["stack_computed_bytes"]
    if computed is not None:
        table.add_row("stack by call graph", f"{computed:,} bytes", "")
    table.add_row("compiler", document["compiler"], "")
    table.add_row("counted by", document["counted_by"], "")
    if document["note"]:
        table.add_row("note", document["note"], "")
    return table


def _rows(document: Document, key: str, first: Sequence[str], last: Sequence[str]) -> Table:
    numbers = [unit(document), f"{unit(document)}_per_mac"]
    if document.get("estimated_cycles") is not None:
        numbers += ["estimated_cycles", "estimated_cycles_per_mac"]
    columns = (*first, *numbers, *last)
    table = _table(key.capitalize(), [_heading(column) for column in columns])
    for row in document[key]:
        table.add_row(*(f"{row[c]:.1%}" if c == "share" else cell(row[c]) for c in columns))
    return table


def _heading(column: str) -> str:
    words = {"macs": "MACs", "estimated_cycles": "cycles", "estimated_cycles_per_mac": "cycles per MAC"}
    return words.get(column, column.replace("_per_mac", " per MAC").replace("_", " "))


def _comparison(document: Document) -> Table:
    this, other = document["this"], document["other"]
    columns = ("", f"{this['model']}", f"{other['model']} (other)", "ratio")
    table = _table(f"{this['core']}, {this['compiler']}", columns)
    for key, ratio in document["ratio"].items():
        table.add_row(_heading(key), cell(this[key]), cell(other[key]), f"{ratio:.3f}")
    table.add_section()
    costs = [{row["kernel"]: row[unit(each)] for row in each["kernels"]} for each in (this, other)]
    for kernel in dict.fromkeys((*costs[0], *costs[1])):
        mine, theirs = (cost.get(kernel) for cost in costs)
        table.add_row(kernel, cell(mine), cell(theirs), f"{mine / theirs:.3f}" if mine and theirs else "")
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        left = column in {"kernel", "layer"} or at == 0
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    return table


def cell(value: Any) -> str:
    """A number with thousands separated, nothing for None.

    >>> cell(1234567), cell(2.5), cell(None), cell("conv_s8")
    ('1,234,567', '2.500', '', 'conv_s8')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)

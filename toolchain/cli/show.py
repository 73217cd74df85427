"""What the commands print: tables, JSON, progress on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from toolchain.pipeline import Result


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """One line per stage, with a bar where the stage counts; nothing when quiet or not on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
        transient=True,
    )
    tasks: dict[str, Any] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            for task in tasks.values():
                bar.update(task, total=1, completed=1)
            tasks[stage] = bar.add_task(stage, total=None)
        if total:
            bar.update(tasks[stage], total=total, completed=done)

    with bar:
        yield report


def table(title: str, columns: tuple[str, ...]) -> Table:
    """An empty table; columns of numbers stand right."""
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    numbers = {"MACs", "parameters", "bytes", "samples", "differing", "largest", "allowed", "#"}
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return made


def print_export(result: Result) -> None:
    """What an export did, its warnings after it on stderr."""
    from toolchain.report.tables import quantization_tables

    for each in (*quantization_tables(result.manifest), summary(result)):
        print_table(each)
    for warning in (result.manifest["quantization"] or {}).get("warnings", ()):
        typer.echo(f"inlay: warning: {warning}", err=True)


def summary(result: Result) -> Table:
    """The final table of an export."""
    document, parity = result.manifest, result.parity
    rows = table(f"{result.out}", ("", document["name"]))
    rows.add_row("layers", f"{len(document['layers'])}")
    rows.add_row("MACs", f"{document['macs']:,}")
    for row in parity.get("parity", ()):
        how = "equal to the bit" if row["largest"] == 0 else f"largest difference {row['largest']:.3g}"
        rows.add_row("parity", f"{row['output']}: {how} against {row['reference']}, {row['samples']} samples")
    if not parity["verified"]:
        rows.add_row("parity", "not verified (--no-verify)")
    for name, ratio in parity.get("signal_to_noise_db", {}).items():
        rows.add_row("noise", f"{name}: {ratio:.1f} dB against the float model")
    if "accuracy" in parity:
        accuracy = parity["accuracy"]
        rows.add_row(
            "accuracy model", f"{accuracy['model']:.2f} % ({accuracy['reference']}, {accuracy['samples']} samples)"
        )
        if accuracy["python"] is not None:
            rows.add_row("accuracy Python", f"{accuracy['python']:.2f} % (the same integers in numpy)")
        rows.add_row("accuracy C", f"{accuracy['c']:.2f} %")
    rows.add_row("arena", f"{document['sizes']['arena_bytes']:,} bytes")
    rows.add_row("weights", f"{document['sizes']['weights_bytes']:,} bytes")
    if parity.get("footprint"):
        size = parity["footprint"]
        stack = "" if size["stack"] is None else f", stack {size['stack']:,} bytes"
        rows.add_row("flash", f"{size['flash']:,} bytes{stack} ({size['compiler']})")
    rows.add_row("files", " ".join(path.name for path in result.files))
    return rows


def shape(sizes: Any) -> str:
    """Sizes as a cell."""
    return "x".join(str(size) for size in sizes) or "scalar"


def print_table(table: Table) -> None:
    """As wide as the terminal, or 160 columns into a pipe; brackets in names are no markup."""
    from rich.console import Console

    piped = not sys.stdout.isatty()
    Console(width=160 if piped else None, markup=False, emoji=False).print(table)


def print_json(document: Any) -> None:
    """Print any of the documents, enumerations and paths as text."""
    from toolchain.report.facts import plain

    typer.echo(json.dumps(plain(document), indent=2))

"""What is in a built image: which bytes are the model's, which function an address belongs to."""

from __future__ import annotations

import bisect
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from toolchain.targets.image import Image


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function (kind t) or constant (kind r) of the image; its origin is model, harness or library."""

    name: str
    address: int
    bytes: int
    kind: str
    origin: str


def _nm(image: Image, file: Path) -> list[tuple[str, int, int, str]]:
    """(name, address, bytes, kind in lower case) of every sized symbol."""
    done = subprocess.run(
        [f"{image.target.prefix}nm", "-S", "--defined-only", str(file)], capture_output=True, text=True, check=True
    )
    found = re.findall(r"^([0-9a-f]+) (?:([0-9a-f]+) )?(\w) (\S+)$", done.stdout, re.MULTILINE)
    return [(name, int(address, 16), int(size or "0", 16), kind.lower()) for address, size, kind, name in found]


def symbols(image: Image) -> tuple[Symbol, ...]:
    """Functions and constants of the linked image in the order of their addresses."""
    model = {row[0] for row in _nm(image, image.folder / "model.o")}
    harness = {row[0] for row in _nm(image, image.folder / "harness.o")}
    rows = [
        Symbol(name, address, size, "t" if kind in "tw" else kind, _origin(name, model, harness))
        for name, address, size, kind in _nm(image, image.elf)
        if kind in "twr" and not name.startswith("$")
    ]
    return tuple(sorted(rows, key=lambda symbol: symbol.address))


def _origin(name: str, model: set[str], harness: set[str]) -> str:
    if name in model:
        return "model"
    return "harness" if name in harness else "library"


def address_of(image: Image, name: str) -> int:
    """Where a function of the image begins."""
    return next(row[1] for row in _nm(image, image.elf) if row[0] == name) & ~1


class Functions:
    """Looks up the function behind an address."""

    def __init__(self, rows: Iterable[Symbol]) -> None:
        code = {symbol.address: symbol for symbol in rows if symbol.kind == "t"}
        self._rows = [code[address] for address in sorted(code)]
        self._starts = [symbol.address for symbol in self._rows]

    def at(self, address: int) -> Symbol | None:
        """The last function that begins at or before the address."""
        index = bisect.bisect_right(self._starts, address) - 1
        return self._rows[index] if index >= 0 else None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes in the linked image: the model's code and constants, and what the C library adds to it."""

    code: int
    constants: int
    library: int


def sizes(rows: Iterable[Symbol], library: Iterable[str]) -> Sizes:
    """Sum the symbols; `library` names the library functions a run executed."""
    wanted = set(library)
    listed = tuple(rows)
    return Sizes(
        code=sum(row.bytes for row in listed if row.origin == "model" and row.kind == "t"),
        constants=sum(row.bytes for row in listed if row.origin == "model" and row.kind == "r"),
        library=sum(row.bytes for row in listed if row.origin == "library" and row.name in wanted),
    )

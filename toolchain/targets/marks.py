"""Marks between the layers of NAME_run, set into a copy of the C that export wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolchain.errors import InputError

MARK = "inlay_mark();"


@dataclass(frozen=True, slots=True)
class Marked:
    """C with a mark behind every call of the network, and the functions it calls in their order."""

    text: str
    kernels: tuple[str, ...]


def mark_steps(text: str, name: str) -> Marked:
    """Set marks into the text of NAME.c. Raises InputError when it holds no NAME_run as inlay writes it."""
    found = re.search(rf"^void {name}_run\(void \*arena\)\n{{\n(.*?)^}}$", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise InputError(f"{name}.c: found no {name}_run as inlay writes it; export the model again")
    kernels: list[str] = []

    def behind(call: re.Match[str]) -> str:
        kernels.append(call[1])
        return f"{call[0]} {MARK}"

    body = re.sub(r"^    (\w+)\([^;]*;", behind, found[1], flags=re.MULTILINE)
    declared = "void inlay_mark(void);\n\n" + text[: found.start(1)]
    return Marked(declared + body + text[found.end(1) :], tuple(kernels))

"""The Jinja environment and its filters: literals that C reads back to the bit, tables, comments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
import numpy as np

from toolchain.emit.layout import WIDTH, wrap
from toolchain.ir.types import Array
from toolchain.lower.names import comment
from toolchain.templating import new_environment

COLUMNS = 16
"""Elements per line of a table."""
LARGEST_FLOAT = "3.40282347e+38f"
_BOUNDS = {-(2**31): "INT32_MIN", -(2**63): "INT64_MIN"}
_C_TYPES = {"float32": "float", "bool": "uint8_t"}


@functools.cache
def environment() -> jinja2.Environment:
    """The environment all C templates are rendered in."""
    env = new_environment(autoescape=False)  # C, not HTML
    filters: dict[str, Callable[..., str]] = {"c_float": c_float, "c_int": c_int, "c_value": c_value}
    env.filters |= filters | {"comment": comment, "wrapped": wrapped}
    return env


def c_float(value: float | np.floating[Any]) -> str:
    """Return the shortest literal that reads back as the float32 nearest to `value`; infinities become FLT_MAX.

    >>> c_float(0.1), c_float(1), c_float(-0.0), c_float(1e-7), c_float(float("-inf"))
    ('0.1f', '1.0f', '-0.0f', '1e-07f', '-3.40282347e+38f')
    """
    with np.errstate(over="ignore"):
        single = np.float32(value)
    if np.isnan(single):
        raise ValueError("NaN has no C literal")
    if np.isinf(single):
        return LARGEST_FLOAT if single > 0 else f"-{LARGEST_FLOAT}"
    return f"{single!s}f"


def c_int(value: int) -> str:
    """Return an integer literal that has the value without overflow, whatever its sign and width.

    >>> c_int(-5), c_int(-2147483648), c_int(1 << 31), c_int(-(1 << 40))
    ('-5', 'INT32_MIN', '2147483648u', '-1099511627776LL')
    """
    number = int(value)
    if number in _BOUNDS:
        return _BOUNDS[number]
    if -(2**31) < number < 2**31:
        return str(number)
    if 0 <= number < 2**32:
        return f"{number}u"
    return f"{number}ULL" if number >= 2**63 else f"{number}LL"


def c_value(value: Any) -> str:
    """Return the initialiser of a record's field: a number, a C name, or a braced list of numbers.

    >>> c_value(True), c_value((1, 2)), c_value(0.5), c_value("conv0_weights"), c_value(())
    ('1', '{1, 2}', '0.5f', 'conv0_weights', '{0}')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (tuple, list)):
        return "{" + (", ".join(c_value(each) for each in value) or "0") + "}"
    return c_float(value) if isinstance(value, (float, np.floating)) else c_int(value)


def wrapped(line: str) -> str:
    """Return a call or declaration broken behind commas where it passes 100 columns.

    >>> print(wrapped("    memcpy(" + "a" * 50 + ", " + "b" * 50 + ", 3);"))
        memcpy(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,
               bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb, 3);
    """
    comma = line.find(", ")
    if len(line) <= WIDTH or comma < 0:
        return line
    cut = _open_paren(line, comma) + 1
    return "\n".join(wrap(line[:cut], line[cut:].split(", "), ""))


def _open_paren(line: str, end: int) -> int:
    """Where the innermost parenthesis still open at `end` stands."""
    depth = 0
    for at in range(end - 1, -1, -1):
        depth += (line[at] == ")") - (line[at] == "(")
        if depth < 0:
            return at
    return -1


def c_type(array: Array) -> str:
    """Return the C99 element type of an array."""
    name = array.dtype.name
    return _C_TYPES.get(name, f"{name}_t")


def table(array: Array, indent: int = 4) -> str:
    """Return the elements as lines of 16 right-aligned columns."""
    literals = _literals(array)
    width = max(map(len, literals))
    margin = " " * indent
    rows = (literals[first : first + COLUMNS] for first in range(0, len(literals), COLUMNS))
    return ",\n".join(margin + ", ".join(literal.rjust(width) for literal in row) for row in rows)


def _literals(array: Array) -> Sequence[str]:
    flat = array.ravel()
    if flat.dtype.kind == "f":
        return [c_float(each) for each in flat]
    return [c_int(each) for each in flat.tolist()]

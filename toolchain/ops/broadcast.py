"""How operands of different shapes are walked: axes merged as far as they go, one of a few loop layouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolchain.ops.base import Field

OUTER = 5
"""Axes the C counts over besides the innermost one."""


@dataclass(frozen=True, slots=True)
class Walk:
    """The output's merged dims, and for each operand its stride along each (0 where it is repeated)."""

    dims: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def layout(self) -> str:
        """How two operands meet: same, scalar (b is one element), row (b repeats per row), or broadcast."""
        a, b = self.strides
        if a == b == (1,):
            return "same"
        if a == (1,) and b == (0,):
            return "scalar"
        return "row" if len(self.dims) == 2 and a[1] == 1 and a[0] and b == (0, 1) else "broadcast"

    def record(self, names: Sequence[str] = ("a", "b")) -> dict[str, Field]:
        """The fields of the general loop."""
        missing = OUTER - (len(self.dims) - 1)
        if missing < 0:
            raise ValueError(f"broadcasting over {len(self.dims)} separate axes, expected at most {OUTER + 1}")
        columns = self.dims[-1]
        fields: dict[str, Field] = {"rows": _product(self.dims[:-1]), "columns": columns}
        fields["dims"] = (1,) * missing + self.dims[:-1]
        for name, strides in zip(names, self.strides, strict=True):
            fields[f"{name}_strides"] = (0,) * missing + strides[:-1]
            fields[f"{name}_step"] = strides[-1]
        return fields


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def walk(shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> Walk:
    """Return the fewest dims over which all operands can be walked together.

    >>> walk([(1, 4, 4, 8), (8,)], (1, 4, 4, 8))
    Walk(dims=(16, 8), strides=((8, 1), (0, 1)))
    """
    padded = [(1,) * (len(out) - len(shape)) + shape for shape in shapes]
    dims: list[int] = []
    present: list[tuple[bool, ...]] = []
    for axis, size in enumerate(out):
        if size == 1:
            continue
        here = tuple(shape[axis] == size for shape in padded)
        if present and present[-1] == here:
            dims[-1] *= size
        else:
            dims.append(size)
            present.append(here)
    if not dims:
        dims, present = [1], [(True,) * len(shapes)]
    strides = tuple(_strides(dims, [here[i] for here in present]) for i in range(len(shapes)))
    return Walk(tuple(dims), strides)


def _strides(dims: Sequence[int], present: Sequence[bool]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for size, here in zip(reversed(dims), reversed(present), strict=True):
        strides.append(step if here else 0)
        step *= size if here else 1
    return tuple(reversed(strides))

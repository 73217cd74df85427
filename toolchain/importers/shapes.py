"""The shapes that the user gives for a model's inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def shape_overrides(
    subject: str, names: Sequence[str], given: Sequence[tuple[str, tuple[int, ...]]]
) -> dict[str, tuple[int, ...]]:
    """Input name -> shape the user gave. Raises InputError for a name the model does not have."""
    overrides: dict[str, tuple[int, ...]] = {}
    for name, shape in given:
        if not name and len(names) != 1:
            raise InputError(f"{subject}: --input-shape without a name, but the inputs are {', '.join(names)}")
        if name and name not in names:
            raise InputError(f"{subject}: --input-shape {name}, expected one of {', '.join(names) or 'no inputs'}")
        if min(shape, default=1) < 1:
            raise InputError(f"{subject}: --input-shape {name} {shape}, expected numbers of 1 or more")
        overrides[name or names[0]] = tuple(shape)
    return overrides

"""What the user asks for: flags, samples and the host's build, each checked before the first stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.config import CalibrationMethod, Options, Rounding
from toolchain.errors import InputError
from toolchain.lower.names import check_model_name, identifier
from toolchain.samples import Samples


@dataclass(frozen=True, slots=True)
class Data:
    """The user's samples."""

    calibration: Samples | None
    evaluation: Samples | None


@dataclass(frozen=True, slots=True)
class Build:
    """How the host builds the C."""

    cc: str | None = None
    sanitize: bool = False


def default_name(model: Any) -> str:
    """A C identifier from the file's name or the model's class."""
    return identifier(Path(model).stem if isinstance(model, (str, Path)) else type(model).__name__).lower()


def make_options(**fields: Any) -> Options:
    """Options from flags, each checked. Raises InputError naming the flag."""
    known = set(Options.__dataclass_fields__)
    for flag in fields:
        if flag not in known:
            raise InputError(f"export: unknown option {flag}; there are {', '.join(sorted(known))}")
    check_model_name(fields["name"])
    _check_choice("quantize", fields["quantize"], ("float32", "int8", "int16x8"))
    _check_choice("io", fields.get("io"), ("float32", "int8", "int16", None))
    other = {"int8": "int16", "int16x8": "int8"}.get(fields["quantize"])
    if other is not None and fields.get("io") == other:
        raise InputError(f"io: found {other} beside quantize {fields['quantize']}, expected its own type or float32")
    _check_choice("input_layout", fields.get("input_layout", "nhwc"), ("nhwc", "nchw"))
    if fields.get("min_sqnr") is not None:
        _check_min_sqnr(fields)
    for flag in ("max_ram", "max_flash", "max_stack", "max_accuracy_drop", "min_sqnr"):
        _check_number(flag, fields.get(flag), 0)
    _check_number("vectors", fields.get("vectors"), 1, whole=True)
    fields["calibration_method"] = _enum(CalibrationMethod, fields["calibration_method"], "calibration_method")
    fields["rounding"] = _enum(Rounding, fields["rounding"], "rounding")
    fields["input_shape"] = _shapes(fields["input_shape"])
    return Options(**fields)


def _check_min_sqnr(fields: dict[str, Any]) -> None:
    if fields["quantize"] == "float32":
        raise InputError("min_sqnr: found quantize float32, which adds no noise; expected int8")
    if fields.get("max_accuracy_drop") is not None:
        raise InputError("min_sqnr: found max_accuracy_drop beside it; expected one of the two as the bar")


def _check_choice(flag: str, found: object, choices: tuple[object, ...]) -> None:
    if found not in choices:
        raise InputError(f"{flag}: found {found!r}, expected {' or '.join(str(c) for c in choices if c)}")


def _check_number(flag: str, found: Any, least: int, *, whole: bool = False) -> None:
    kinds = (int, np.integer) if whole else (int, float, np.number)
    if found is not None and not (isinstance(found, kinds) and least <= found < math.inf):
        raise InputError(f"{flag}: found {found}, expected {least} or more")


def _enum(kind: type[Any], value: Any, flag: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{flag}: found {value!r}, expected {', '.join(item.value for item in kind)}") from None


def _shapes(given: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """A mapping, one bare shape (for a single input), or pairs, as pairs of name and dimensions."""
    if not given:
        return ()
    try:
        if isinstance(given, dict):
            pairs = list(given.items())
        elif all(isinstance(item, (int, np.integer)) for item in given):
            pairs = [("", given)]
        else:
            pairs = list(given)
        shapes = tuple((str(name), tuple(int(dim) for dim in dims)) for name, dims in pairs)
    except (TypeError, ValueError):
        raise InputError(f"input_shape: found {given!r}, expected a tuple of dimensions or {{name: tuple}}") from None
    for name, dims in shapes:
        if not dims or min(dims) < 1:
            raise InputError(f"input_shape: found {name or 'input'}={dims}, expected dimensions of 1 or more")
    return shapes

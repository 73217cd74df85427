"""Weights as a C header by themselves: `inlay weights -o FILE.h`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from toolchain.errors import InputError
from toolchain.fixedpoint import round_half_away
from toolchain.ir.types import Array

C_TYPES = {"f": "float", "b": "uint8_t"}


def write(path: Path, weights: Mapping[str, Array], quantize: str) -> None:
    """Write the header; int8 is symmetric with one scale per tensor, of floating-point weights only.

    Raises InputError for a path that cannot be written, and for weights that are not finite.
    """
    content = text(path.name, weights, quantize)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, expected a file name such as weights.h")
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} is not there")
        path.write_text(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


def text(file_name: str, weights: Mapping[str, Array], quantize: str) -> str:
    """The header's text."""
    guard = re.sub(r"\W", "_", file_name, flags=re.ASCII).upper() + "_INCLUDED"
    stem = identifier(Path(file_name).stem)
    names = identifiers(f"{stem}_{identifier(name)}" for name in weights)
    arrays = [
        _array(name, c_name, array, quantize) for (name, array), c_name in zip(weights.items(), names, strict=True)
    ]
    opening = f"#ifndef INLAY_{guard}\n#define INLAY_{guard}\n\n#include <stdint.h>\n"
    return "\n".join([opening, *arrays, f"#endif /* INLAY_{guard} */\n"])


def identifier(name: str) -> str:
    """A C identifier out of any name."""
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower() or "w"


def identifiers(names: Iterable[str]) -> list[str]:
    """The names, numbered where they repeat."""
    taken: dict[str, int] = {}
    unique = []
    for name in names:
        taken[name] = taken.get(name, 0) + 1
        unique.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
    return unique


def _array(name: str, c_name: str, array: Array, quantize: str) -> str:
    values, scale = np.asarray(array), None
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{name}: found NaN or infinity among the weights, expected finite numbers")
        if quantize == "int8":
            values, scale = symmetric_int8(values)
    comment = f"/* {name.replace('*/', '* /')}: {'x'.join(map(str, array.shape)) or 'scalar'} */"
    lines = [comment]
    if scale is not None:
        lines.append(f"#define {c_name.upper()}_SCALE {c_number(np.float32(scale))}")
    c_type = C_TYPES.get(values.dtype.kind, f"{values.dtype.name}_t")
    lines += [f"static const {c_type} {c_name}[{max(1, values.size)}] = {{", *_rows(values), "};", ""]
    return "\n".join(lines)


def _rows(values: Array) -> list[str]:
    words = [c_number(value) for value in values.reshape(-1)] or ["0"]
    per_row = 8 if values.dtype.kind == "f" else 16
    width = max(map(len, words))
    return [
        "    " + ", ".join(word.rjust(width) for word in words[at : at + per_row]) + ","
        for at in range(0, len(words), per_row)
    ]


def c_number(value: np.generic) -> str:
    """A literal that reads back to the same number."""
    if not np.issubdtype(value.dtype, np.floating):
        return "INT64_MIN" if int(value) == -(2**63) else str(int(value))
    digits = np.format_float_scientific(np.float32(value), unique=True, trim="0")
    return f"{digits}f"


def symmetric_int8(values: Array) -> tuple[Array, float]:
    """Weights as -127..127 and their scale: the largest magnitude / 127, half away from zero."""
    largest = float(np.abs(values).max(initial=0.0))
    scale = float(np.float32(largest / 127)) or 1.0
    scaled = values.astype(np.float64) / scale
    return np.clip(round_half_away(scaled), -127, 127).astype(np.int8), scale

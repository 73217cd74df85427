"""ONNX models, from a file or a live ModelProto."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.importers.onnx.convert import convert
from toolchain.importers.onnx.reading import read

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph

__all__ = ["load", "read"]


def load(model: Any, *, input_shape: tuple[tuple[str, tuple[int, ...]], ...] = (), subject: str | None = None) -> Graph:
    """Return the Graph of an .onnx path or ModelProto. `subject` begins every error (the path when not given).

    Raises InputError for a broken model, UnsupportedError naming every layer without a C form.
    """
    name = subject or (str(model) if isinstance(model, str | Path) else model.graph.name or "model")
    return convert(read(model, name), name, input_shape)

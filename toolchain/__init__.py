"""inlay: neural networks as readable C for microcontrollers. `export` and `extract_weights` are the public API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from toolchain.ir.types import Array
    from toolchain.pipeline import Result

__all__ = ["__version__", "export", "extract_weights"]


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("inlay")
    except metadata.PackageNotFoundError:
        return "0.0.0"


__version__ = _version()


def export(model: Any, out: str | Path, **options: Any) -> Result:
    """Write `model` as C into the folder `out` and return what was written; see `toolchain.pipeline.export`."""
    from toolchain import pipeline

    return pipeline.export(model, out, **options)


def extract_weights(model: Any) -> dict[str, Array]:
    """Return the model's weights as {framework name: array}, in the framework's own order and layout."""
    from toolchain.importers import weights

    return weights.extract_weights(model)

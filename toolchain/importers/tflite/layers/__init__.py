"""Handlers of builtin operators by topic; importing this package fills the handler table."""

from toolchain.importers.tflite.layers import (
    batch,
    conv,
    elementwise,
    indexing,
    linear,
    normalization,
    pool,
    recurrent,
    reduce,
    resize,
    shape,
)

__all__ = [
    "batch",
    "conv",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pool",
    "recurrent",
    "reduce",
    "resize",
    "shape",
]

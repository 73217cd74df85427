"""Handlers of ONNX operators by topic; importing this package fills the handler table."""

from toolchain.importers.onnx.layers import (
    conv,
    elementwise,
    indexing,
    linear,
    normalization,
    pool,
    quantized,
    reduce,
    resize,
    shape,
    softmax,
)

__all__ = [
    "conv",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pool",
    "quantized",
    "reduce",
    "resize",
    "shape",
    "softmax",
]

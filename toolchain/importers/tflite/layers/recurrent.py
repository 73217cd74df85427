"""Layers that keep state from run to run."""

from __future__ import annotations

import numpy as np

from toolchain.importers.tflite.layer import Layer, NoCFormError, handles
from toolchain.ir.types import DType
from toolchain.ops.recurrent import Svdf


@handles("SVDF")
def svdf(layer: Layer) -> str:
    """Inputs are the values, weights of features and of time, perhaps a bias, and the variable."""
    _check_types(layer, (DType.INT8, DType.INT8, DType.INT16), (layer.x, layer.operand(1), layer.operand(2)))
    rank = int(layer.option("Rank"))
    units = layer.type(1).shape[0] // max(rank, 1)
    quantized = layer.quantized
    bias = layer.inputs[3] if layer.has(3) else layer.constant(np.zeros(units, np.int32 if quantized else np.float32))
    op = Svdf(rank, None if quantized else layer.clamp())
    y = layer.emit_stateful(op, *layer.inputs[:3], bias, layer.operand(4), states=(4,))
    return y if quantized else layer.activated(y)


def _check_types(layer: Layer, expected: tuple[DType, ...], names: tuple[str, ...]) -> None:
    """Raise NoCFormError unless all operands are float32, or integers of the forms expected."""
    found = tuple(layer.builder.type(name).dtype for name in names)
    if found not in {expected, (DType.FLOAT32,) * len(found)}:
        raise NoCFormError(
            f"operands of {', '.join(dtype.value for dtype in found)}, expected float32 or "
            + ", ".join(dtype.value for dtype in expected)
        )

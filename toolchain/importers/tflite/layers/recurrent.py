"""Layers that keep state from run to run."""

from __future__ import annotations

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.layer import Layer, handles
from toolchain.ir.types import DType, QuantParams
from toolchain.ops.lstm import GATES, Lstm
from toolchain.ops.recurrent import Svdf

TANH = 4
WEIGHTS, RECURRENT, BIASES, HIDDEN, CELL = (1, 2, 3, 4), (5, 6, 7, 8), (12, 13, 14, 15), 18, 19
"""Inputs of UNIDIRECTIONAL_SEQUENCE_LSTM: per gate the weights and the bias; the variables."""
OPTIONAL = {
    "a coupled input gate": ((1,), False),
    "peepholes": ((9, 10, 11), True),
    "a projection": ((16, 17), True),
    "layer normalization": ((20, 21, 22, 23), True),
}
"""What there is no C for -> inputs that must be omitted (True) or given (False)."""


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


@handles("UNIDIRECTIONAL_SEQUENCE_LSTM")
def lstm(layer: Layer) -> str:
    """Four gates, weights for the input and for the output of the step before, and two variables."""
    for what, (indices, omitted) in OPTIONAL.items():
        if any(layer.has(index) == omitted for index in indices):
            raise NoCFormError(f"{what}, expected a plain LSTM")
    if int(layer.get("FusedActivationFunction", TANH)) != TANH:
        raise NoCFormError("an activation other than TANH")
    types = (DType.INT8, DType.INT8, DType.INT8, DType.INT16)
    _check_types(layer, types, tuple(layer.operand(index) for index in (0, 1, 5, CELL)))
    hidden = next(iter(layer.intermediates[GATES:]), None) or layer.type(HIDDEN).quant or QuantParams((1.0,))
    clip = float(layer.get("CellClip", 0.0))
    op = Lstm(bool(layer.get("TimeMajor", False)), clip, hidden.scale[0], hidden.zero_point)
    stacked = [_stacked(layer, indices) for indices in (WEIGHTS, RECURRENT, BIASES)]
    return layer.emit_stateful(op, layer.x, *stacked, layer.operand(HIDDEN), layer.operand(CELL), states=(HIDDEN, CELL))


def _stacked(layer: Layer, indices: tuple[int, ...]) -> str:
    """The gates' constants as one, with a scale per gate."""
    values = [layer.constant_value(index, "weight") for index in indices]
    quants = [layer.type(index).quant for index in indices]
    if any(quant is not None and len(quant.scale) > 1 for quant in quants):
        raise NoCFormError("scales per channel, expected one per gate")
    scales = tuple(quant.scale[0] for quant in quants if quant is not None)
    kept = QuantParams(scales, 0, 0) if len(scales) == GATES else None
    return layer.builder.constant(layer.operand(indices[0]), np.stack(values), kept)


def _check_types(layer: Layer, expected: tuple[DType, ...], names: tuple[str, ...]) -> None:
    """Raise NoCFormError unless all operands are float32, or integers of the forms expected."""
    found = tuple(layer.builder.type(name).dtype for name in names)
    if found not in {expected, (DType.FLOAT32,) * len(found)}:
        raise NoCFormError(
            f"operands of {', '.join(dtype.value for dtype in found)}, expected float32 or "
            + ", ".join(dtype.value for dtype in expected)
        )

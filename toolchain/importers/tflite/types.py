"""Element types and quantization: what the file states in the terms of the graph. uint8 integers become int8."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.ir.types import Array, DType, QuantParams, TensorType

if TYPE_CHECKING:
    from toolchain.importers.tflite.reading import Scheme, Stored

ELEMENTS = {
    "FLOAT32": DType.FLOAT32, "FLOAT16": DType.FLOAT32, "FLOAT64": DType.FLOAT32, "INT4": DType.INT8,
    "INT8": DType.INT8, "UINT8": DType.UINT8, "INT16": DType.INT16, "INT32": DType.INT32, "INT64": DType.INT64,
    "UINT32": DType.INT64, "UINT16": DType.INT32, "BOOL": DType.BOOL,
}  # fmt: skip
"""Element type of the file -> of the graph."""
QUANTIZED = {"INT4", "INT8", "UINT8", "INT16"}
"""Element types whose scales count; those of int32 follow from the layer that reads them."""
SHIFT = 128
"""What uint8 loses to become int8, integers and zero point alike."""


def element_type(tensor: Stored) -> DType:
    """The element type inside the graph. Raises NoCFormError where there is none."""
    if tensor.kind not in ELEMENTS:
        raise NoCFormError(f"element type {tensor.kind}, expected float, int8..int64, uint8 or bool")
    return DType.INT8 if _shifted(tensor) else ELEMENTS[tensor.kind]


def _shifted(tensor: Stored) -> bool:
    return tensor.kind == "UINT8" and tensor.scheme is not None


def quantization(tensor: Stored) -> QuantParams | None:
    """The affine map to reals inside the graph, None for plain numbers."""
    scheme = tensor.scheme
    if scheme is None or tensor.kind not in QUANTIZED:
        return None
    zeros = {zero - SHIFT * _shifted(tensor) for zero in scheme.zero_points}
    if len(scheme.scales) == 1:
        return _per_tensor(tensor, scheme.scales[0], zeros)
    if zeros != {0}:
        raise NoCFormError("zero points per channel, expected symmetric weights")
    return QuantParams(scheme.scales, 0, _axis(tensor, scheme))


def _per_tensor(tensor: Stored, scale: float, zeros: set[int]) -> QuantParams:
    zero = min(zeros)
    low, high = (0, 0) if tensor.kind == "INT16" else (-128, 127)
    if len(zeros) != 1 or not low <= zero <= high or scale <= 0:
        raise ValueError(f"scale {scale:g} with zero point {zero}, expected a positive scale and a zero point in range")
    return QuantParams((scale,), zero)


def _axis(tensor: Stored, scheme: Scheme) -> int:
    """The axis the scales run over; of a vector its only one, whatever the file says."""
    axis = 0 if len(tensor.shape) == 1 else scheme.axis
    if not 0 <= axis < len(tensor.shape) or tensor.shape[axis] != len(scheme.scales):
        raise ValueError(f"{len(scheme.scales)} scales along axis {axis} of {list(tensor.shape)}, expected as many")
    return axis


def as_declared(tensor: Stored) -> TensorType:
    """The type an operator's output is declared with; its shape is left to inference."""
    return TensorType((), element_type(tensor), quantization(tensor))


def outside_type(tensor: Stored, shape: tuple[int, ...]) -> TensorType:
    """The type of a graph input or output as users see it: uint8 as it is in the file."""
    if not _shifted(tensor):
        return TensorType(shape, element_type(tensor), quantization(tensor))
    inside = quantization(tensor)
    if inside is None or inside.axis is not None:
        raise ValueError("scales per channel, expected one scale")
    return TensorType(shape, DType.UINT8, QuantParams(inside.scale, inside.zero_point + SHIFT))


def constant_data(tensor: Stored) -> Array | None:
    """The values of a constant as the graph holds them, None for a tensor without any."""
    if tensor.data is None:
        empty = bool(tensor.shape) and math.prod(tensor.shape) == 0
        return np.zeros(tensor.shape, element_type(tensor).numpy) if empty else None
    if _shifted(tensor):
        return (tensor.data.astype(np.int16) - SHIFT).astype(np.int8)
    return tensor.data

"""Reductions."""

from __future__ import annotations

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.layer import Layer, handles
from toolchain.ir.types import DType
from toolchain.ops.reduce import ArgReduce, Reduce

KINDS = {"MEAN": "mean", "SUM": "sum", "REDUCE_MAX": "max", "REDUCE_MIN": "min", "REDUCE_PROD": "prod"}


@handles(*KINDS)
def reduction(layer: Layer) -> str:
    """Over constant axes."""
    axes = tuple(sorted({layer.axis(axis) for axis in layer.integers(1, "axes")}))
    kind = KINDS[layer.kind]
    if not axes:
        return layer.result(layer.x)
    op = Reduce(kind, axes, bool(layer.get("KeepDims", False)))
    if layer.quantized and kind == "prod":
        return layer.compute(op, layer.x)
    if layer.quantized and kind in {"max", "min"} and layer.type(0).quant != layer.declared[0].quant:
        raise NoCFormError("input and output have different scales, expected one")
    return layer.emit(op, layer.x)


@handles("ARG_MAX", "ARG_MIN")
def arg_reduction(layer: Layer) -> str:
    """The first index of the extreme along one constant axis."""
    (axis,) = layer.integers(1, "axis")
    kind = "max" if layer.kind == "ARG_MAX" else "min"
    dtype = layer.declared[0].dtype
    if dtype not in {DType.INT32, DType.INT64}:
        raise ValueError(f"indices of {dtype.value}, expected int32 or int64")
    return layer.emit(ArgReduce(kind, layer.axis(axis), False, dtype), layer.x)

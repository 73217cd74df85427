"""Types of a model's inputs: an open batch becomes 1, other open dimensions need --input-shape."""

from __future__ import annotations

import onnx

from toolchain.importers.builder import GraphBuilder, one_line
from toolchain.importers.onnx.layers.elementwise import TYPES
from toolchain.ir.types import TensorType


def declared_type(builder: GraphBuilder, value: onnx.ValueInfoProto, override: tuple[int, ...] | None) -> TensorType:
    """The type of a graph input, closed by the user's shape where it is open."""
    if value.type.WhichOneof("value") != "tensor_type":
        raise builder.error(value.name, "an input that is no tensor, expected tensors only")
    tensor = value.type.tensor_type
    dtype = TYPES.get(tensor.elem_type)
    if dtype is None:
        names = {number: kind for kind, number in onnx.TensorProto.DataType.items()}
        kind = names.get(tensor.elem_type, str(tensor.elem_type))
        raise builder.error(value.name, f"an input of type {kind}, expected float, int8..int64, uint8 or bool")
    declared = tuple(_extent(dim) for dim in tensor.shape.dim) if tensor.HasField("shape") else None
    return TensorType(_closed(builder, value.name, declared, override), dtype)


def _extent(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    """A number, or the symbol (perhaps empty) of an open dimension."""
    if dim.WhichOneof("value") == "dim_value":
        return int(dim.dim_value) if dim.dim_value > 0 else "?"
    return one_line(dim.dim_param) or "?"


def _closed(
    builder: GraphBuilder, name: str, declared: tuple[int | str, ...] | None, override: tuple[int, ...] | None
) -> tuple[int, ...]:
    if override is not None:
        _check_override(builder, name, declared, override)
        return override
    if declared is None:
        raise builder.error(name, f"an input without a shape, expected one; pass --input-shape {name}=1,...")
    closed = tuple(1 if axis == 0 and isinstance(extent, str) else extent for axis, extent in enumerate(declared))
    if any(isinstance(extent, str) for extent in closed):
        shown = ",".join(str(extent) for extent in closed)
        raise builder.error(
            name, f"an open shape ({shown}), expected numbers; pass --input-shape {name}={shown} with numbers"
        )
    return tuple(int(extent) for extent in closed)


def _check_override(
    builder: GraphBuilder, name: str, declared: tuple[int | str, ...] | None, override: tuple[int, ...]
) -> None:
    if declared is None:
        return
    fits = len(declared) == len(override) and all(
        isinstance(extent, str) or extent == given for extent, given in zip(declared, override, strict=True)
    )
    if not fits:
        shown = ",".join(str(extent) for extent in declared)
        raise builder.error(name, f"--input-shape {','.join(map(str, override))}, expected a shape like {shown}")

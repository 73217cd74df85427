"""What onnx itself defines: the meaning of a node on constants, and the bodies of composite operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from toolchain.importers.layer import NoCFormError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolchain.ir.types import Array, TensorType

GROWING = {"ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Upsample", "Pad", "OneHot", "MatMul"}
"""Operators whose output may be far larger than their inputs."""


@dataclass(frozen=True, slots=True)
class Body:
    """The nodes an operator stands for, and the names of its inputs and outputs inside."""

    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opsets: dict[str, int]


def folded(node: onnx.NodeProto, values: Sequence[Array | None], opset: int, *, limit: int) -> tuple[Array, ...]:
    """The outputs of a node whose inputs are all constant. Raises ValueError when they are too large or wrong."""
    if _grown(node, values) > limit:
        raise ValueError(f"a constant of more than {limit} elements")
    feeds = {name: value for name, value in zip(node.input, values, strict=True) if name and value is not None}
    model = _single(node, feeds, opset)
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:  # noqa: BLE001  (the evaluator raises whatever a malformed node leads it to)
        raise NoCFormError(f"it cannot be computed from constants: {str(error)[:200]}") from None
    return tuple(np.asarray(result) for result in results)


def _single(node: onnx.NodeProto, feeds: dict[str, Array], opset: int) -> onnx.ModelProto:
    """A model of one node."""
    untyped = onnx.TypeProto()
    graph = helper.make_graph(
        [node],
        "constant",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()],
        [helper.make_value_info(name, untyped) for name in node.output if name],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=onnx.IR_VERSION)


def _grown(node: onnx.NodeProto, values: Sequence[Array | None]) -> float:  # noqa: PLR0911  (one rule a line)
    """An upper bound of the output's elements, where the operator can grow its input."""
    arrays = [value for value in values if value is not None]
    if node.op_type not in GROWING or not arrays:
        return 0.0
    if node.op_type == "Range":
        start, stop, step = (float(value.reshape(-1)[0]) for value in arrays)
        return abs((stop - start) / step) if step else np.inf
    if node.op_type in {"ConstantOfShape", "Expand"}:
        return float(np.prod(np.maximum(arrays[-1].astype(np.float64), 1)))
    if node.op_type == "Tile":
        return float(arrays[0].size * np.prod(np.maximum(arrays[-1].astype(np.float64), 1)))
    if node.op_type == "Pad" and len(arrays) > 1:
        return float(np.prod(np.asarray(arrays[0].shape, np.float64) + np.abs(arrays[1].astype(np.float64)).sum()))
    if node.op_type == "OneHot":
        return float(arrays[0].size * abs(float(arrays[1].reshape(-1)[0])))
    if node.op_type == "MatMul":
        return float(arrays[0].size * arrays[-1].shape[-1]) if arrays[-1].ndim else 0.0
    return float(max(np.abs(array.astype(np.float64)).max() ** array.size for array in arrays[1:] if array.size))


def expanded(node: onnx.NodeProto, types: Sequence[TensorType | None], domain: str, opset: int) -> Body | None:
    """The function body of an operator for inputs of these types, or None when onnx defines none."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return None
    if schema.has_function:
        serialized = schema.get_function_with_opset_version(schema.function_opset_versions[-1])
    elif schema.has_context_dependent_function:
        version = schema.context_dependent_function_opset_versions[-1]
        serialized = schema.get_context_dependent_function_with_opset_version(
            version, node.SerializeToString(), [_type_proto(t).SerializeToString() for t in types]
        )
    else:
        return None
    function = onnx.FunctionProto.FromString(serialized)
    return Body(
        tuple(_bound(inner, _attributes(schema, function, node)) for inner in function.node),
        tuple(function.input),
        tuple(function.output),
        {entry.domain or "ai.onnx": entry.version for entry in function.opset_import},
    )


def _type_proto(tensor_type: TensorType | None) -> onnx.TypeProto:
    if tensor_type is None:
        return onnx.TypeProto()
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(tensor_type.dtype.numpy), tensor_type.shape)


def _attributes(
    schema: onnx.defs.OpSchema, function: onnx.FunctionProto, node: onnx.NodeProto
) -> dict[str, onnx.AttributeProto]:
    """What a body can refer to: the node's attributes over the defaults."""
    defaults = [entry.default_value for entry in schema.attributes.values() if entry.default_value.name]
    return {attribute.name: attribute for attribute in (*defaults, *function.attribute_proto, *node.attribute)}


def _bound(inner: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto]) -> onnx.NodeProto:
    """A node of a body with the caller's attributes in place of references to them."""
    node = onnx.NodeProto()
    node.CopyFrom(inner)
    del node.attribute[:]
    for attribute in inner.attribute:
        if not attribute.ref_attr_name:
            node.attribute.append(attribute)
        elif attribute.ref_attr_name in given:
            bound = node.attribute.add()
            bound.CopyFrom(given[attribute.ref_attr_name])
            bound.name = attribute.name
    return node

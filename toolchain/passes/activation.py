"""Fuse relu, relu6 and clip into the operator that computes their input."""

from __future__ import annotations

from dataclasses import fields, replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir.graph import Graph, Node
from toolchain.ops.elementwise import Binary
from toolchain.ops.shape import Reshape, Transpose
from toolchain.ops.unary import Unary
from toolchain.passes.draft import Draft, rewrite

if TYPE_CHECKING:
    from toolchain.ops.base import Op

Limits = tuple[float, float]


def fuse_activations(graph: Graph) -> Graph:
    """The graph in which limits of a value are the `clamp` of its producer, seen through Reshape and Transpose."""
    return rewrite(graph, _fuse)


def _fuse(draft: Draft, node: Node) -> bool:
    found = _limits(draft, node)
    if found is None:
        return False
    source, limits = found
    if not draft.is_float(source, node.outputs[0]) or draft.type(source) != draft.type(node.outputs[0]):
        return False
    producer = draft.private_producer(source)
    while producer is not None and isinstance(producer.op, Reshape | Transpose):
        producer = draft.private_producer(producer.inputs[0])
    if producer is None or not _has_clamp(producer.op):
        return False
    fused = replace(producer.op, clamp=_narrowed(producer.op.clamp, limits))  # type: ignore[type-var,attr-defined]
    draft.replace(producer, Node(fused, producer.inputs, producer.outputs, producer.origin))
    return draft.bypass(node, source)


def _has_clamp(op: Op) -> bool:
    return any(field.name == "clamp" for field in fields(op))  # type: ignore[arg-type]


def _limits(draft: Draft, node: Node) -> tuple[str, Limits] | None:
    """The input and the limits of a node that clamps, or None."""
    op = node.op
    if isinstance(op, Unary):
        limits = {"relu": (0.0, inf), "relu6": (0.0, 6.0), "clip": (op.alpha, op.beta)}.get(op.kind)
        return (node.inputs[0], limits) if limits is not None else None
    if not isinstance(op, Binary) or op.kind not in ("min", "max") or op.clamp is not None:
        return None
    for source, bound in (node.inputs, node.inputs[::-1]):
        value = draft.data(bound)
        if value is not None and value.size and draft.data(source) is None and np.all(value == value.flat[0]):
            limit = float(value.flat[0])
            return source, ((-inf, limit) if op.kind == "min" else (limit, inf))
    return None


def _narrowed(old: Limits | None, new: Limits) -> Limits:
    """The limits that equal clamping by `old`, then by `new`."""
    if old is None:
        return new
    low, high = (min(max(limit, new[0]), new[1]) for limit in old)
    return low, high

"""Remove nodes that change nothing."""

from __future__ import annotations

import numpy as np

from toolchain.ir.graph import Graph, Node
from toolchain.ops.convert import Cast
from toolchain.ops.elementwise import Binary
from toolchain.ops.indexing import Gather, Pad, Slice
from toolchain.ops.joining import Concat, Split
from toolchain.ops.pool import AvgPool, MaxPool
from toolchain.ops.reduce import Reduce
from toolchain.ops.resize import Resize
from toolchain.ops.shape import Expand, Reshape, Tile, Transpose
from toolchain.ops.unary import Unary
from toolchain.passes.draft import Draft, rewrite

NEUTRAL = {"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0, "pow": 1.0}
COMMUTATIVE = ("add", "mul")


def remove_identities(graph: Graph) -> Graph:
    """The graph without operators whose output is their input: no-op moves, x * 1, x + 0, pooling of one pixel.

    A reduction over axes of length one becomes a Reshape.
    """
    return rewrite(graph, _remove)


def _remove(draft: Draft, node: Node) -> bool:
    if isinstance(node.op, Reduce):
        return _reduce_to_reshape(draft, node)
    if len(node.outputs) != 1:
        return False
    for source in node.inputs:
        if draft.type(source) == draft.type(node.outputs[0]) and _keeps(draft, node, source):
            return draft.bypass(node, source)
    return False


def _keeps(draft: Draft, node: Node, source: str) -> bool:  # noqa: PLR0911 - a table
    """Whether the node's output equals `source`; their types are known to be equal."""
    op = node.op
    match op:
        case Binary():
            return op.clamp is None and _neutral(draft, node, source)
        case Transpose():
            return op.permutation == tuple(range(len(op.permutation)))
        case Slice():
            return all(step > 0 for step in op.step)
        case Gather():
            return op.indices == tuple(range(len(op.indices)))
        case MaxPool() | AvgPool():
            return op.clamp is None and _single(op.window) and _single(op.stride) and not np.any(op.padding)
        case Unary():
            return op.kind == "identity"
        case Concat() | Split():
            return len(node.inputs) == 1
        case Pad():
            return not np.any(op.padding)
        case Reshape() | Tile() | Expand() | Cast() | Resize():
            return True
    return False


def _single(window: tuple[int, ...]) -> bool:
    return all(size == 1 for size in window)


def _neutral(draft: Draft, node: Node, source: str) -> bool:
    kind = node.op.kind  # type: ignore[attr-defined]
    if kind not in NEUTRAL or (source != node.inputs[0] and kind not in COMMUTATIVE):
        return False
    other = node.inputs[1] if source == node.inputs[0] else node.inputs[0]
    values = draft.data(other)
    return values is not None and draft.is_float(other, source) and bool(np.all(values == NEUTRAL[kind]))


def _reduce_to_reshape(draft: Draft, node: Node) -> bool:
    kind, result = draft.type(node.inputs[0]), draft.type(node.outputs[0])
    if any(kind.shape[axis] != 1 for axis in node.op.axes):  # type: ignore[attr-defined]
        return False
    if (kind.dtype, kind.quant) != (result.dtype, result.quant):
        return False
    draft.replace(node, Node(Reshape(result.shape), node.inputs, node.outputs, node.origin))
    return True

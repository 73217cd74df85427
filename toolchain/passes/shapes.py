"""Merge chains of Reshape and of Transpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.ir.graph import Graph, Node
from toolchain.ops.shape import Reshape, Transpose
from toolchain.passes.draft import Draft, rewrite
from toolchain.passes.permutation import compose, identity, same_order

if TYPE_CHECKING:
    from toolchain.ops.base import Op


def merge_shape_chains(graph: Graph) -> Graph:
    """The graph with the fewest moves.

    Rules: (1) Reshape of Reshape is one Reshape; (2) Transpose of Transpose is one Transpose.
    """
    return rewrite(graph, _merge)


def _merge(draft: Draft, node: Node) -> bool:
    op = node.op
    if not isinstance(op, Reshape | Transpose):
        return False
    before = draft.producers.get(node.inputs[0])
    if before is None or type(before.op) is not type(op):
        return False
    merged: Op = Reshape(draft.type(node.outputs[0]).shape)
    if isinstance(op, Transpose) and isinstance(before.op, Transpose):
        merged = Transpose(compose(before.op.permutation, op.permutation))
    draft.replace(node, Node(merged, before.inputs, node.outputs, node.origin))
    return True


def view_unit_axes(graph: Graph) -> Graph:
    """The graph in which a Transpose that moves only axes of length one is a Reshape (after layouts are chosen)."""
    return rewrite(graph, _view)


def _view(draft: Draft, node: Node) -> bool:
    shape = draft.type(node.inputs[0]).shape if node.inputs else ()
    if not isinstance(node.op, Transpose) or not same_order(node.op.permutation, identity(len(shape)), shape):
        return False
    draft.replace(node, Node(Reshape(draft.type(node.outputs[0]).shape), node.inputs, node.outputs, node.origin))
    return True

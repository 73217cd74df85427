"""Merge nodes that do the same to the same tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.passes.draft import Draft

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph, Node
    from toolchain.ops.base import Op


def merge_duplicates(graph: Graph) -> Graph:
    """The graph in which equal operators on equal inputs are computed once."""
    draft = Draft(graph)
    while _merge_one(draft):
        pass
    return draft.graph()


def _merge_one(draft: Draft) -> bool:
    first: dict[tuple[Op, tuple[str, ...], object], Node] = {}
    for node in draft.nodes:
        if len(node.outputs) != 1:
            continue
        kind = draft.type(node.outputs[0])
        known = first.setdefault((node.op, node.inputs, kind), node)
        if known is not node and node.outputs[0] not in draft.outputs:
            return draft.bypass(node, known.outputs[0])
    return False

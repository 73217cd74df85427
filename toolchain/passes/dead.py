"""Drop nodes whose outputs nothing reads, and tensors that belong to no node."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph, Node


def drop_dead_nodes(graph: Graph) -> Graph:
    """The graph without nodes that no graph output depends on. Inputs stay: they are the user's interface."""
    needed = set(graph.ends)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    named = needed.union(graph.starts, *(node.outputs for node in kept))
    if len(kept) == len(graph.nodes) and named == set(graph.tensors):
        return graph
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in named}
    return graph.with_(nodes=tuple(reversed(kept)), tensors=tensors)

"""Compute nodes whose inputs are all constants."""

from __future__ import annotations

from toolchain.ir.graph import Graph, Node, Tensor
from toolchain.passes.draft import Draft, rewrite

GROWTH = 8
"""A constant may not grow by more than this factor through folding ..."""
SMALL = 1 << 16
"""... unless it stays below this many bytes."""


def fold_constants(graph: Graph) -> Graph:
    """The graph with constant expressions replaced by their values."""
    return rewrite(graph, _fold)


def _fold(draft: Draft, node: Node) -> bool:
    sources = [draft.tensors[name] for name in node.inputs]
    values = [tensor.data for tensor in sources if tensor.data is not None]
    results = [draft.tensors[name] for name in node.outputs]
    if len(values) != len(sources) or any(tensor.type.quant for tensor in (*sources, *results)):
        return False
    before = sum(tensor.type.bytes for tensor in sources)
    after = sum(tensor.type.bytes for tensor in results)
    if after > max(SMALL, GROWTH * before) or any(name in draft.outputs for name in node.outputs):
        return False
    for tensor, value in zip(results, node.op.reference(*values), strict=True):
        data = value.astype(tensor.type.dtype.numpy).reshape(tensor.type.shape)
        draft.tensors[tensor.name] = Tensor(tensor.name, tensor.type, data)
    draft.drop(node)
    return True

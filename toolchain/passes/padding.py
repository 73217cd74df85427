"""Fold Pad into the padding of the windowed operator that reads it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolchain.ir.graph import Graph, Node
from toolchain.ops.conv import Conv
from toolchain.ops.indexing import Pad
from toolchain.ops.pool import AvgPool, MaxPool
from toolchain.passes.draft import Draft, rewrite

Padding = tuple[tuple[int, int], ...]
LOWEST = float(np.finfo(np.float32).min)


def fold_padding(graph: Graph) -> Graph:
    """Rules: zeros before Conv; zeros before AvgPool, where they count in the divisor; -inf before MaxPool."""
    return rewrite(graph, _fold)


def _fold(draft: Draft, node: Node) -> bool:
    before = draft.producers.get(node.inputs[0]) if node.inputs else None
    if before is None or not isinstance(before.op, Pad) or before.op.mode != "constant":
        return False
    added = before.op.padding
    if draft.type(before.inputs[0]).quant != draft.type(node.inputs[0]).quant or any(added[0]) or any(added[-1]):
        return False
    if np.any(np.asarray(added) < 0):
        return False
    op = node.op
    value, spatial = before.op.value, added[1:-1]
    if isinstance(op, Conv) and value == 0:
        op = replace(op, padding=_sum(op.padding, spatial))
    elif isinstance(op, AvgPool) and value == 0:
        counted = _sum(op.counted, spatial) if op.counted else spatial
        op = replace(op, padding=_sum(op.padding, spatial), counted=counted)
    elif isinstance(op, MaxPool) and value <= LOWEST:
        op = replace(op, padding=_sum(op.padding, spatial))
    else:
        return False
    draft.replace(node, Node(op, (before.inputs[0], *node.inputs[1:]), node.outputs, node.origin))
    return True


def _sum(first: Padding, second: Padding) -> Padding:
    return tuple((a + c, b + d) for (a, b), (c, d) in zip(first, second, strict=True))

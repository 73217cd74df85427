"""High-bias absorption: what a channel never falls below moves into the bias of the layers that read it.

After Nagel et al. (2019), section 4.1.3, with what the samples show in place of a normal distribution. Channels without
an activation are centred, which is exact; behind a ReLU it is exact above the least value seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir.graph import Graph, Node, Tensor
from toolchain.ir.types import TensorType
from toolchain.ops.scaling import Scaling, scaling, takes_offset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.ir.types import Array

WORTH = 0.98
"""A layer is left alone unless its range shrinks to this share."""


def absorb_bias(graph: Graph, extents: Mapping[str, tuple[Array, Array]]) -> tuple[Graph, tuple[str, ...]]:
    """The graph with biases moved on, and the layers (by origin) they moved out of.

    `extents`: {activation: (lowest, highest value per channel)}.
    """
    readers = graph.consumers()
    offsets = {}
    for node in graph.nodes:
        if _may_move(graph, node, readers):
            offset = _offset(node, *extents[node.outputs[0]])
            if offset is not None:
                offsets[node.outputs[0]] = offset
    if not offsets:
        return graph, ()
    moved = tuple(node.origin for node in graph.nodes if node.outputs[0] in offsets)
    return _moved(graph, offsets), moved


def _is_weighted(graph: Graph, node: Node) -> bool:
    return scaling(node.op, graph.operands(node.inputs), graph.operands(node.outputs)) is Scaling.WEIGHTS


def _may_move(graph: Graph, node: Node, readers: Mapping[str, list[Node]]) -> bool:
    after = readers[node.outputs[0]]
    if not after or node.outputs[0] in graph.outputs or not _is_weighted(graph, node):
        return False
    return all(_is_weighted(graph, each) and takes_offset(each.op) and _fits(graph, each) for each in after)


def _fits(graph: Graph, node: Node) -> bool:
    """Whether the weights see all input channels in one group."""
    weight, x = (graph.tensors[name].type.shape for name in (node.inputs[1], node.inputs[0]))
    return weight[-1] == x[-1]


def _offset(node: Node, low: Array, high: Array) -> Array | None:
    """What to subtract from each channel, None where the tensor's range would hardly shrink."""
    clamp = getattr(node.op, "clamp", None)
    offset = (low + high) / 2 if clamp is None else np.where(high < clamp[1], np.maximum(low, 0), 0)
    before = max(float(high.max()), 0.0) - min(float(low.min()), 0.0)
    after = max(float((high - offset).max()), 0.0) - min(float((low - offset).min()), 0.0)
    return offset.astype(np.float64) if after < WORTH * before else None


def _moved(graph: Graph, offsets: Mapping[str, Array]) -> Graph:
    tensors = dict(graph.tensors)
    nodes = []
    for index, node in enumerate(graph.nodes):
        out, into = offsets.get(node.outputs[0]), offsets.get(node.inputs[0]) if node.inputs else None
        if out is None and into is None:
            nodes.append(node)
            continue
        weight, bias = (np.asarray(tensors[name].data, np.float64) for name in node.inputs[1:3])
        if into is not None:
            bias = bias + weight.reshape(weight.shape[0], -1, weight.shape[-1]).sum(axis=1) @ into
        if out is not None:
            bias = bias - out
        name = f"{node.inputs[2]}.absorbed{index}"
        tensors[name] = Tensor(name, TensorType(bias.shape), bias.astype(np.float32))
        nodes.append(Node(node.op, (*node.inputs[:2], name), node.outputs, node.origin))
    return graph.with_(nodes=tuple(nodes), tensors=tensors)

"""Classes of channels that must carry one factor, over a whole graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolchain.ops.scaling import Scaling, is_homogeneous, scaling
from toolchain.quantize.assign import is_real

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.ir.graph import Graph, Node
    from toolchain.ir.types import Array

FIXED = 0
"""The class of channels whose factor is 1."""


class Channels:
    """For each float activation the class of each channel (last axis): equal classes carry equal factors."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.parents = [FIXED]
        self.labels: dict[str, Array] = {}
        self.weighted: list[Node] = []
        for name in graph.inputs:
            self._fixed(name)
        for node in graph.nodes:
            self._follow(node)
        for name in graph.outputs:
            self._pin(name)

    def find(self, label: int) -> int:
        """The number that stands for a class."""
        while self.parents[label] != label:
            self.parents[label] = self.parents[self.parents[label]]
            label = self.parents[label]
        return label

    def classes(self, name: str) -> Array:
        """The class of each channel of a tensor."""
        return np.array([self.find(int(label)) for label in self.labels[name]], np.int64)

    def join(self, labels: Array, others: Array) -> None:
        """Make channels equal pairwise; the fixed class stays what stands for a class it joins."""
        for label, other in zip(labels.tolist(), others.tolist(), strict=True):
            low, high = sorted((self.find(label), self.find(other)))
            self.parents[high] = low

    def _fresh(self, name: str) -> None:
        count = _channels(self.graph, name)
        first = len(self.parents)
        self.parents += range(first, first + count)
        self.labels[name] = np.arange(first, first + count)

    def _fixed(self, name: str) -> None:
        self.labels[name] = np.full(_channels(self.graph, name), FIXED)

    def _pin(self, name: str) -> None:
        if name in self.labels:
            self.join(self.labels[name], np.full(self.labels[name].size, FIXED))

    def _follow(self, node: Node) -> None:
        inputs, outputs = self.graph.operands(node.inputs), self.graph.operands(node.outputs)
        rule = scaling(node.op, inputs, outputs) if all(map(is_real, outputs)) else Scaling.NONE
        activations = [tensor.name for tensor in inputs if tensor.data is None]
        if rule is Scaling.WEIGHTS:
            self._fresh(node.outputs[0])
            self.weighted.append(node)
        elif rule is Scaling.MOVES:
            self._move(node)
        elif rule is Scaling.NONE or not self._inherit(node, activations, together=rule is Scaling.SAME):
            for name in activations:
                self._pin(name)
            for name in node.outputs:
                self._fixed(name)

    def _inherit(self, node: Node, activations: list[str], *, together: bool) -> bool:
        """Hand the labels of the first activation on; the others join them, or have no factors."""
        labels = self.labels[activations[0]]
        count = _channels(self.graph, node.outputs[0])
        if labels.size != count or (together and any(self.labels[name].size != count for name in activations)):
            return False
        for name in activations[1:]:
            if together:
                self.join(labels, self.labels[name])
            else:
                self._pin(name)
        self.labels[node.outputs[0]] = labels
        return True

    def _move(self, node: Node) -> None:
        """Move the labels of all elements as the operator moves values."""
        whole = [
            np.broadcast_to(self.labels[n], self.graph.tensors[n].type.shape).astype(np.int64) for n in node.inputs
        ]
        for name, moved in zip(node.outputs, node.op.reference(*whole), strict=True):
            rows = moved.reshape(-1, _channels(self.graph, name))
            self.labels[name] = rows[0]
            for row in np.unique(rows[1:], axis=0):
                self.join(rows[0], row)

    def limits(self, node: Node) -> float | None:
        """The finite upper limit of a weighted node, None when it has none."""
        clamp = getattr(node.op, "clamp", None)
        return None if clamp is None or is_homogeneous(clamp) else float(clamp[1])


def _channels(graph: Graph, name: str) -> int:
    return graph.tensors[name].type.shape[-1] if graph.tensors[name].type.shape else 1


def input_classes(weight: Array, classes: Array) -> Array:
    """The class behind each weight[output, ..., input of the group]: an array (outputs, inputs per group)."""
    outputs, depth = weight.shape[0], weight.shape[-1]
    groups = classes.size // depth
    return np.repeat(classes.reshape(groups, depth), outputs // groups, axis=0)


def channel_extents(values: Mapping[str, Array], extents: dict[str, tuple[Array, Array]]) -> None:
    """Widen {tensor: (lows, highs per channel)} by the values of one run."""
    for name, (low, high) in extents.items():
        rows = values[name].reshape(-1, low.size)
        np.minimum(low, rows.min(axis=0), out=low)
        np.maximum(high, rows.max(axis=0), out=high)

"""Cross-layer equalization: factors per channel move out of one layer and into the next, the function stays.

After Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction" (2019), for whole graphs:
channels that must carry one factor (residual branches, concatenations, depthwise chains) are one class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir.graph import Node, Tensor
from toolchain.ir.types import TensorType
from toolchain.quantize.channels import FIXED, Channels, input_classes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array

SWEEPS = 100
STEP = 0.5
LARGEST = 60.0
"""Factors stay within exp(-LARGEST) .. exp(LARGEST)."""
REACHES = 0.999
"""A channel whose largest value is above this share of the limit is held by it."""
Extents = "Mapping[str, tuple[Array, Array]]"


@dataclass(frozen=True, slots=True)
class Balance:
    """How much each wish counts: weights before a channel, its values, weights after it."""

    name: str
    before: float
    values: float
    after: float


BALANCES = (
    Balance("weights", 1, 0, 1),
    Balance("weights and activations", 1, 1, 2),
    Balance("activations and next weights", 0, 1, 1),
    Balance("activations", 0, 1, 0),
)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The magnitudes of a weighted node per (output, input), and the classes of its outputs and inputs."""

    size: Array
    outputs: Array
    inputs: Array


def equalize(graph: Graph, extents: Mapping[str, tuple[Array, Array]], balance: Balance) -> tuple[Graph, int]:
    """The graph under factors that balance its channels, and how many channels carry one other than 1.

    `extents`: {activation: (lowest, highest value per channel)}.
    """
    channels = Channels(graph)
    held = _hold_saturated(channels, extents)
    logs = _solve(channels, extents, balance)
    _respect_limits(channels, extents, held, logs)
    moved = [name for name in channels.labels if np.any(np.abs(logs[channels.classes(name)]) > 1e-6)]
    if not moved:
        return graph, 0
    count = int(np.sum(np.abs(logs[np.unique(np.concatenate([channels.classes(n) for n in moved]))]) > 1e-6))
    return _rescaled(graph, channels, np.exp(logs), extents), count


def _hold_saturated(channels: Channels, extents: Mapping[str, tuple[Array, Array]]) -> list[Node]:
    """Join, per layer with an upper limit, the channels that reach it: one limit needs one factor."""
    limited = []
    for node in channels.weighted:
        limit = channels.limits(node)
        if limit is not None:
            labels = channels.labels[node.outputs[0]]
            reaching = labels[extents[node.outputs[0]][1] >= REACHES * limit]
            channels.join(reaching[1:], reaching[:-1])
            limited.append(node)
    return limited


def _layers(channels: Channels) -> list[Layer]:
    found = []
    for node in channels.weighted:
        weight = channels.graph.tensors[node.inputs[1]].data
        assert weight is not None
        size = np.abs(weight.astype(np.float64)).reshape(weight.shape[0], -1, weight.shape[-1]).max(axis=1)
        inputs = input_classes(weight, channels.classes(node.inputs[0]))
        found.append(Layer(size, channels.classes(node.outputs[0]), inputs))
    return found


def _solve(channels: Channels, extents: Mapping[str, tuple[Array, Array]], balance: Balance) -> Array:
    """The logarithm of each class's factor."""
    layers = _layers(channels)
    values = [
        (channels.classes(name), np.maximum(np.abs(low), np.abs(high)).astype(np.float64))
        for name, (low, high) in extents.items()
    ]
    logs = np.zeros(len(channels.parents))
    total = balance.before + balance.values + balance.after
    for _ in range(SWEEPS):
        before, after, extent = _spans(layers, values, logs)
        wish = balance.before * before + balance.values * extent - balance.after * after
        logs = np.clip(logs + STEP * wish / total, -LARGEST, LARGEST)
        logs[FIXED] = 0.0
    return logs


def _spans(layers: list[Layer], values: list[tuple[Array, Array]], logs: Array) -> tuple[Array, Array, Array]:
    """Per class the logarithm of its share of the largest weight before, the largest weight after, the largest value.

    0 where a class has no such weight or value, or nothing but zeros.
    """
    before, after, extent = (np.zeros(logs.size) for _ in range(3))
    for layer in layers:
        scaled = layer.size * np.exp(logs[layer.inputs] - logs[layer.outputs][:, None])
        share = scaled / max(float(scaled.max(initial=0.0)), 1e-300)
        np.maximum.at(before, layer.outputs, share.max(axis=1))
        np.maximum.at(after, layer.inputs, share)
    for classes, largest in values:
        scaled = largest * np.exp(-logs[classes])
        np.maximum.at(extent, classes, scaled / max(float(scaled.max(initial=0.0)), 1e-300))
    return tuple(np.where(part > 0, np.log(np.maximum(part, 1e-30)), 0.0) for part in (before, after, extent))  # type: ignore[return-value]


def _respect_limits(
    channels: Channels, extents: Mapping[str, tuple[Array, Array]], limited: list[Node], logs: Array
) -> None:
    """Where some channels are held by a limit, no other channel may reach it under its own factor."""
    for node in limited:
        classes, high = channels.classes(node.outputs[0]), extents[node.outputs[0]][1]
        limit = channels.limits(node)
        assert limit is not None
        reaching = high >= REACHES * limit
        if not reaching.any():
            continue
        least = logs[classes[reaching][0]] + np.log(np.maximum(high, 1e-30) / (REACHES * limit))
        free = ~reaching & (classes != FIXED)
        np.maximum.at(logs, classes[free], least[free])


def _rescaled(graph: Graph, channels: Channels, factors: Array, extents: Mapping[str, tuple[Array, Array]]) -> Graph:
    weighted = {id(node) for node in channels.weighted}
    tensors = dict(graph.tensors)
    nodes = []
    for index, node in enumerate(graph.nodes):
        if id(node) not in weighted:
            nodes.append(node)
            continue
        weight, bias = (tensors[name].data for name in node.inputs[1:3])
        assert weight is not None
        assert bias is not None
        out = factors[channels.classes(node.outputs[0])]
        into = factors[input_classes(weight, channels.classes(node.inputs[0]))]
        ratio = (into / out[:, None]).reshape(weight.shape[0], *[1] * (weight.ndim - 2), weight.shape[-1])
        names = [f"{node.inputs[position]}.equalized{index}" for position in (1, 2)]
        for name, data in zip(names, (weight * ratio, bias / out), strict=True):
            tensors[name] = Tensor(name, TensorType(data.shape), data.astype(np.float32))
        op = node.op
        limit = channels.limits(node)
        if limit is not None:
            op = replace(op, clamp=(op.clamp[0], _limit(limit, out, extents[node.outputs[0]][1])))  # type: ignore[attr-defined,type-var]
        nodes.append(Node(op, (node.inputs[0], *names), node.outputs, node.origin))
    return graph.with_(nodes=tuple(nodes), tensors=tensors)


def _limit(limit: float, factors: Array, high: Array) -> float:
    """One limit for channels under several factors: exact for those that reach it, out of the others' way."""
    reaching = high >= REACHES * limit
    own = limit / factors
    return float(own[reaching][0] if reaching.any() else own.max())

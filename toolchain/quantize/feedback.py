"""Weight rounding with error feedback: the error of each rounded weight is made up for by those still to round.

Column by column under the inputs' second moments (Frantar et al., "GPTQ", 2022, after optimal brain surgery), inputs
with the largest moments first. Scales stay; only integers move.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.fixedpoint import round_half_away
from toolchain.quantize.layers import Layer, change_layers, scales_along
from toolchain.quantize.parameters import WEIGHT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from toolchain.config import Rounding
    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array
    from toolchain.quantize.integers import Integers

DAMPING = 0.01
"""Share of the mean moment added to every moment: weights of inputs that never vary stay put."""
MOMENT_MACS = 500_000_000
"""Multiply-accumulates that the moments of one layer may take."""
FEWEST = 2
WIDEST = 1536
"""Weights per output beyond which layers keep their rounding: the moments would be too large a matrix."""


def round_weights(
    made: Integers, samples: Mapping[str, Array], rounding: Rounding, progress: Callable[[int, int], None]
) -> tuple[Graph, int]:
    """The quantized graph with weights rounded anew, and how many layers changed."""
    return change_layers(made, samples, rounding, _rounded, progress)


def _rounded(layer: Layer) -> dict[int, Array]:
    weight, _ = layer.float_constants()
    outputs, depth = len(weight), weight[0].size
    if depth > WIDEST:
        return {}
    groups = int(getattr(layer.node.op, "groups", 1))
    scales = np.broadcast_to(scales_along(layer.graph, layer.node.inputs[1]), weight.shape)
    rows = (weight.astype(np.float64) / scales).reshape(groups, outputs // groups, depth)
    integers = np.stack([_feedback(group, moment) for group, moment in zip(rows, _moments(layer, groups), strict=True)])
    return {1: integers.reshape(weight.shape).astype(np.int8)}


def _moments(layer: Layer, groups: int) -> Array:
    """X'X of the inputs under each weight, per group: an array (groups, depth, depth).

    The patches are what the layer computes with the unit vectors as its weights.
    """
    shape = layer.floats.tensors[layer.source.inputs[1]].type.shape
    depth = int(np.prod(shape[1:]))
    op: Any = replace(layer.node.op, clamp=None)  # type: ignore[type-var]
    units = np.tile(np.eye(depth, dtype=np.float32), (groups, 1)).reshape(groups * depth, *shape[1:])
    total = np.zeros((groups, depth, depth))
    places = layer.graph.tensors[layer.node.outputs[0]].type.elements // shape[0]
    most = max(FEWEST, MOMENT_MACS // (places * groups * depth * depth))
    for x in layer.integer_inputs()[:most]:
        patches = op.reference(x, units, np.zeros(groups * depth, np.float32))[0].reshape(-1, groups, depth)
        columns = np.ascontiguousarray(patches.transpose(1, 0, 2))
        total += columns.transpose(0, 2, 1) @ columns
    return np.asarray(total)


def _feedback(rows: Array, moment: Array) -> Array:
    """Integers for rows (outputs, depth) in units of their scale."""
    diagonal = np.diag(moment)
    order = np.argsort(-diagonal, kind="stable")
    damped = moment[np.ix_(order, order)] + np.eye(len(order)) * (DAMPING * diagonal.mean() + 1e-12)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = rows[:, order].copy()
    result = np.zeros_like(left)
    for column in range(len(order)):
        result[:, column] = np.clip(round_half_away(left[:, column]), -WEIGHT_LIMIT, WEIGHT_LIMIT)
        error = (left[:, column] - result[:, column]) / factor[column, column]
        left[:, column + 1 :] -= error[:, None] * factor[column, column + 1 :]
    return np.asarray(result[:, np.argsort(order, kind="stable")])

"""Bias correction: the mean error that integers cause in each layer on samples is taken back by its bias.

Empirical, layer by layer in order, each on inputs that the corrected layers before it compute (Nagel et al., 2019,
section 4.2; Finkelstein et al., "Fighting Quantization Bias With Bias", 2019).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.fixedpoint import round_half_away
from toolchain.quantize.layers import Layer, change_layers, constant_reals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.config import Rounding
    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array
    from toolchain.quantize.integers import Integers

ENOUGH = 32
"""Values of a channel that a mean error needs to be known by."""
LARGEST_BIAS = {np.dtype(np.int32): 2**31 - 1, np.dtype(np.int64): 2**46}


def correct_biases(made: Integers, samples: Mapping[str, Array], rounding: Rounding) -> tuple[Graph, int]:
    """The quantized graph with corrected biases, and how many layers changed."""
    return change_layers(made, samples, rounding, _corrected)


def _corrected(layer: Layer) -> dict[int, Array]:
    """The bias plus the mean error before the activation; nothing where too few values tell it."""
    op: Any = replace(layer.node.op, clamp=None)  # type: ignore[type-var]
    stored = layer.graph.tensors[layer.node.inputs[2]]
    assert stored.data is not None
    assert stored.type.quant is not None
    own = layer.float_constants()
    rounded = [constant_reals(layer.graph, name) for name in layer.node.inputs[1:3]]
    total, values = np.zeros(stored.data.size), 0
    for real, integer in zip(layer.float_inputs(), layer.integer_inputs(), strict=True):
        expected, got = op.reference(real, *own)[0], op.reference(integer, *rounded)[0]
        error = (expected.astype(np.float64) - got).reshape(-1, total.size)
        total += error.sum(axis=0)
        values += len(error)
    if values < ENOUGH:
        return {}
    steps = round_half_away(total / values / stored.type.quant.scales(total.size))
    most = LARGEST_BIAS[stored.data.dtype]
    bias = np.clip(stored.data.astype(np.float64) + steps, -most, most)
    return {2: bias.astype(stored.data.dtype)}

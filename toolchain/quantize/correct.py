"""Bias correction: the mean error that integers cause in each layer on samples is taken back by its bias.

Empirical, layer by layer in order, each on inputs that the corrected layers before it compute (Nagel et al., 2019,
section 4.2; Finkelstein et al., "Fighting Quantization Bias With Bias", 2019).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import interpret
from toolchain.fixedpoint import round_half_away
from toolchain.ir.types import Array, DType
from toolchain.quantize.noise import integer_feeds, reals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolchain.config import Rounding
    from toolchain.ir.graph import Graph, Node

ENOUGH = 32
"""Values of a channel that a mean error needs to be known by."""
LARGEST_BIAS = 2**31 - 1


def correct_biases(
    floats: Graph, graph: Graph, forms: Mapping[str, str], samples: Mapping[str, Array], rounding: Rounding
) -> tuple[Graph, int]:
    """The quantized graph with corrected biases, and how many layers changed.

    `forms`: {activation of the float graph: its integer form in the quantized one}.
    """
    count = len(samples[graph.inputs[0]])
    wanted = [interpret.run(floats, {n: samples[n][i] for n in floats.inputs}, keep=True) for i in range(count)]
    found = [_start(graph, samples, index) for index in range(count)]
    sources = {forms[name]: node for node in floats.nodes for name in node.outputs if name in forms}
    tensors, changed = dict(graph.tensors), 0
    for node in graph.nodes:
        source = sources.get(node.outputs[0])
        if source is not None and _is_integer_layer(graph, node):
            bias = _corrected(floats, source, graph, node, wanted, found)
            if bias is not None:
                name = node.inputs[2]
                changed += int(np.any(bias != tensors[name].data))
                tensors[name] = replace(tensors[name], data=bias)
                graph = graph.with_(tensors=tensors)
                for values in found:
                    values[name] = bias
        for values in found:
            values.update(zip(node.outputs, interpret.evaluate(graph, node, values, rounding), strict=True))
    return graph, changed


def _start(graph: Graph, samples: Mapping[str, Array], index: int) -> dict[str, Array]:
    constants = {name: tensor.data for name, tensor in graph.tensors.items() if tensor.data is not None}
    return constants | integer_feeds(graph, {name: samples[name][index] for name in graph.inputs})


def _is_integer_layer(graph: Graph, node: Node) -> bool:
    weighted = node.op.weight is not None and node.op.bias is not None and len(node.inputs) > 2
    return weighted and graph.tensors[node.inputs[2]].type.dtype in (DType.INT32, DType.INT64)


def _corrected(
    floats: Graph,
    source: Node,
    graph: Graph,
    node: Node,
    wanted: Sequence[Mapping[str, Array]],
    found: Sequence[Mapping[str, Array]],
) -> Array | None:
    """The bias plus the mean error before the activation, None where too few values tell it."""
    op: Any = replace(node.op, clamp=None)  # type: ignore[type-var]
    stored = graph.tensors[node.inputs[2]]
    assert stored.data is not None
    assert stored.type.quant is not None
    own = [floats.tensors[name].data for name in source.inputs[1:3]]
    rounded = [weight_reals(graph, name) for name in node.inputs[1:3]]
    total, values = np.zeros(stored.data.size), 0
    for real, integers in zip(wanted, found, strict=True):
        expected = op.reference(real[source.inputs[0]], *own)[0]
        got = op.reference(reals(graph, node.inputs[0], integers[node.inputs[0]]), *rounded)[0]
        error = (expected.astype(np.float64) - got).reshape(-1, total.size)
        total += error.sum(axis=0)
        values += len(error)
    if values < ENOUGH:
        return None
    steps = round_half_away(total / values / stored.type.quant.scales(total.size))
    bias = stored.data.astype(np.int64) + steps.astype(np.int64)
    return np.clip(bias, -LARGEST_BIAS, LARGEST_BIAS).astype(stored.data.dtype)


def weight_reals(graph: Graph, name: str) -> Array:
    """A constant of a layer as the reals its integers stand for, per-channel scales along their axis."""
    tensor = graph.tensors[name]
    assert tensor.data is not None
    quant = tensor.type.quant
    if quant is None:
        return tensor.data
    scales = np.asarray(quant.scale)
    if quant.axis is not None:
        scales = scales.reshape(tuple(-1 if axis == quant.axis else 1 for axis in range(tensor.data.ndim)))
    return np.asarray((tensor.data.astype(np.float64) - quant.zero_point) * scales)

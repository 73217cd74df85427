"""Change the constants of quantized layers in order, each seeing what the changed layers before it compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain import interpret
from toolchain.ir.graph import Graph, Node
from toolchain.ir.types import Array, DType
from toolchain.quantize.noise import integer_feeds, reals

if TYPE_CHECKING:
    from toolchain.config import Rounding
    from toolchain.quantize.integers import Integers


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A quantized layer, the float one it was made of, and what both read on each sample (as reals)."""

    graph: Graph
    node: Node
    floats: Graph
    source: Node
    wanted: Sequence[Mapping[str, Array]]
    found: Sequence[Mapping[str, Array]]

    def float_inputs(self) -> list[Array]:
        """Input 0 of the float layer, per sample."""
        return [values[self.source.inputs[0]] for values in self.wanted]

    def integer_inputs(self) -> list[Array]:
        """Input 0 of the quantized layer as reals, per sample."""
        name = self.node.inputs[0]
        return [reals(self.graph, name, values[name]) for values in self.found]

    def float_constants(self) -> tuple[Array, Array]:
        """Weights and bias before quantization."""
        weight, bias = (self.floats.tensors[name].data for name in self.source.inputs[1:3])
        assert weight is not None
        assert bias is not None
        return weight, bias


Change = Callable[[Layer], "dict[int, Array]"]
"""From a layer to new integers for some of its inputs, by position."""


def change_layers(
    made: Integers,
    samples: Mapping[str, Array],
    rounding: Rounding,
    change: Change,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Graph, int]:
    """The quantized graph after a change of each integer layer, and in how many layers integers differ."""
    floats, graph = made.source, made.graph
    count = len(samples[graph.inputs[0]])
    wanted = [interpret.run(floats, {n: samples[n][i] for n in floats.inputs}, keep=True) for i in range(count)]
    found = [_start(graph, samples, index) for index in range(count)]
    sources = {made.forms[name]: node for node in floats.nodes for name in node.outputs if name in made.forms}
    changed = 0
    for index, node in enumerate(graph.nodes):
        source = sources.get(node.outputs[0])
        if source is not None and is_integer_layer(graph, node):
            new = change(Layer(graph, node, floats, source, wanted, found))
            named = {node.inputs[position]: data for position, data in new.items()}
            changed += any(np.any(data != graph.tensors[name].data) for name, data in named.items())
            graph = _with_constants(graph, named)
            for values in found:
                values.update(named)
        for values in found:
            values.update(zip(node.outputs, interpret.evaluate(graph, node, values, rounding), strict=True))
        if progress:
            progress(index + 1, len(graph.nodes))
    return graph, changed


def is_integer_layer(graph: Graph, node: Node) -> bool:
    """Whether a node has integer weights and an integer bias."""
    weighted = node.op.weight is not None and node.op.bias is not None and len(node.inputs) > 2
    return weighted and graph.tensors[node.inputs[2]].type.dtype in (DType.INT32, DType.INT64)


def _with_constants(graph: Graph, named: Mapping[str, Array]) -> Graph:
    tensors = {name: replace(graph.tensors[name], data=data) for name, data in named.items()}
    return graph.with_(tensors={**graph.tensors, **tensors}) if named else graph


def _start(graph: Graph, samples: Mapping[str, Array], index: int) -> dict[str, Array]:
    constants = {name: tensor.data for name, tensor in graph.tensors.items() if tensor.data is not None}
    return constants | integer_feeds(graph, {name: samples[name][index] for name in graph.inputs})


def constant_reals(graph: Graph, name: str) -> Array:
    """A constant of a layer as the reals its integers stand for."""
    tensor = graph.tensors[name]
    assert tensor.data is not None
    if tensor.type.quant is None or tensor.type.dtype is DType.FLOAT32:
        return np.asarray(tensor.data, np.float64)
    return np.asarray((tensor.data.astype(np.float64) - tensor.type.quant.zero_point) * scales_along(graph, name))


def scales_along(graph: Graph, name: str) -> Array:
    """The scales of a quantized constant, shaped to broadcast to its data."""
    tensor = graph.tensors[name]
    assert tensor.type.quant is not None
    scales = np.asarray(tensor.type.quant.scale, np.float64)
    axis, rank = tensor.type.quant.axis, len(tensor.type.shape)
    return scales.reshape(tuple(-1 if axis is not None and each == axis else 1 for each in range(rank)))

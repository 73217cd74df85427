"""Run a graph in numpy: floats in float32, quantized tensors as the exact integers the C computes."""

from __future__ import annotations

from collections.abc import Mapping

from toolchain.config import Rounding
from toolchain.ir.graph import Graph, Node
from toolchain.ir.types import Array
from toolchain.ops.base import Operands


def run(
    graph: Graph, feeds: Mapping[str, Array], *, keep: bool = False, rounding: Rounding = Rounding.TFLM
) -> dict[str, Array]:
    """Return {output: array}, or every tensor when `keep`. `feeds` holds one array of the tensor's shape per input.

    States are at their initial values unless `feeds` holds them (`kept` of the run before); their values after the
    run are among the outputs.
    """
    values = {name: tensor.data for name, tensor in graph.tensors.items() if tensor.data is not None}
    values |= {state.read: feeds.get(state.read, state.initial) for state in graph.states}
    values |= {name: feeds[name] for name in graph.inputs}
    for node in graph.nodes:
        values |= zip(node.outputs, evaluate(graph, node, values, rounding), strict=True)
    return values if keep else {name: values[name] for name in graph.ends}


def kept(graph: Graph, values: Mapping[str, Array]) -> dict[str, Array]:
    """What the states hold after a run that gave `values`, as feeds of the next run."""
    return {state.read: values[state.write] for state in graph.states}


def evaluate(graph: Graph, node: Node, values: Mapping[str, Array], rounding: Rounding) -> tuple[Array, ...]:
    """The outputs of one node, in the types the graph gives them."""
    operands = Operands(graph.operands(node.inputs), graph.operands(node.outputs), rounding)
    inputs = tuple(values[name] for name in node.inputs)
    found = node.op.reference_int(operands, *inputs) if operands.quantized else node.op.reference(*inputs)
    return tuple(
        array.astype(out.type.dtype.numpy, copy=False) for array, out in zip(found, operands.outputs, strict=True)
    )

"""Give the operands of broadcasting operators the rank of the result, so that layouts can follow their axes."""

from __future__ import annotations

from toolchain.ir.graph import Graph, Node
from toolchain.ops.elementwise import Binary, PRelu, Select
from toolchain.ops.shape import Reshape
from toolchain.passes.draft import Draft, rewrite


def align_ranks(graph: Graph) -> Graph:
    """The graph in which operands of smaller rank (single values aside) are reshaped to lead with ones."""
    return rewrite(graph, _align)


def _align(draft: Draft, node: Node) -> bool:
    if not isinstance(node.op, Binary | Select | PRelu):
        return False
    rank = len(draft.type(node.outputs[0]).shape)
    inputs = tuple(_led_by_ones(draft, name, rank, node.origin) for name in node.inputs)
    if inputs == node.inputs:
        return False
    draft.replace(node, Node(node.op, inputs, node.outputs, node.origin))
    return True


def _led_by_ones(draft: Draft, name: str, rank: int, origin: str) -> str:
    kind = draft.type(name)
    missing = rank - len(kind.shape)
    if missing <= 0 or kind.elements == 1:
        return name
    shape = (1,) * missing + kind.shape
    data = draft.data(name)
    if data is None:
        return draft.apply(Reshape(shape), (name,), origin)
    if kind.quant is not None and kind.quant.axis is not None:
        return name
    return draft.constant(name, data.reshape(shape), kind)

"""Put what a quantized model computes between Dequantize and Quantize on integers.

The importers leave such a model as float operators between conversions, with weights that remember their grid, so
that layouts, folding and fusing are the same for all models. Then these rules, until none applies:
(1) Dequantize then Quantize is one rescaling, or nothing; (2) operators that move or select values go before a
Dequantize and after a Quantize; (3) an operator whose inputs come from Dequantize and whose output goes to Quantize
runs on the integers, if it has an integer form; (4) what is computed element by element from one Dequantize is a table.
"""

from __future__ import annotations

from dataclasses import replace
from math import isinf
from typing import TYPE_CHECKING

from toolchain.ir.graph import Node
from toolchain.ir.types import DType, TensorType
from toolchain.ops.convert import Dequantize, Quantize
from toolchain.ops.indexing import Pad
from toolchain.ops.joining import Concat
from toolchain.ops.pool import MaxPool
from toolchain.ops.unary import Unary
from toolchain.passes.draft import Draft, rewrite
from toolchain.passes.integer_form import StaysFloatError, computable, integers, moves, plan
from toolchain.passes.tables import by_table

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph
    from toolchain.ops.base import Op

ON_GRID = 1e-6
"""Steps by which a value that a grid holds may miss it."""
LIMITS = ("relu", "relu6", "clip")
"""Functions of one input that limit it."""


def use_integers(graph: Graph) -> Graph:
    """The graph on the integers its own Quantize and Dequantize name; without such, no constant remembers a grid."""
    if not any(isinstance(node.op, Quantize | Dequantize) for node in graph.nodes):
        return _forgotten(graph)
    return rewrite(graph, _rule) if graph.conversions_annotate else graph


def float_layers(graph: Graph) -> tuple[tuple[str, str], ...]:
    """(origin, reason) of each layer of a quantized graph that computes in float, or begins to."""
    draft = Draft(graph)
    found: dict[str, str] = {}
    for node in graph.nodes:
        if isinstance(node.op, Quantize | Dequantize) or not _computes_in_float(draft, node):
            continue
        try:
            plan(draft, node)
        except StaysFloatError as error:
            found.setdefault(node.origin, str(error))
        else:
            found.setdefault(node.origin, "the model computes it in float")
    return tuple(found.items())


def integer_ends(graph: Graph, dtype: DType = DType.INT8) -> Graph:
    """The graph whose inputs and outputs are of `dtype` where it starts with Quantize or ends with Dequantize."""
    draft = Draft(graph)
    for name in graph.inputs:
        readers = draft.readers(name)
        kinds = {draft.type(node.outputs[0]) for node in readers if isinstance(node.op, Quantize)}
        first = next(iter(kinds), None)
        plain = all(isinstance(node.op, Quantize) and node.outputs[0] not in draft.outputs for node in readers)
        if first is None or len(kinds) != 1 or not plain or name in draft.outputs or first.dtype is not dtype:
            continue
        draft.retype(name, first)
        for node in readers:
            draft.bypass(node, name)
    for name in graph.outputs:
        last = draft.producers.get(name)
        if last is not None and isinstance(last.op, Dequantize):
            kind = draft.type(last.inputs[0])
            if kind.dtype is dtype and draft.bypass(last):
                draft.retype(name, kind)
    return draft.graph()


def _forgotten(graph: Graph) -> Graph:
    """The graph whose float constants are no more than numbers."""
    marked = {
        name: replace(tensor, type=replace(tensor.type, quant=None))
        for name, tensor in graph.tensors.items()
        if tensor.type.quant is not None and tensor.type.dtype is DType.FLOAT32
    }
    return graph.with_(tensors={**graph.tensors, **marked}) if marked else graph


def _computes_in_float(draft: Draft, node: Node) -> bool:
    names = (*node.inputs, *node.outputs)
    return any(draft.data(name) is None and draft.is_float(name) for name in names) and not moves(node.op)


def _rule(draft: Draft, node: Node) -> bool:
    if isinstance(node.op, Quantize):
        return (
            _rescale(draft, node) or _before_move(draft, node) or _before_concat(draft, node) or by_table(draft, node)
        )
    if isinstance(node.op, Dequantize) or not node.inputs:
        return False
    return _after_move(draft, node) or _on_integers(draft, node)


def _rescale(draft: Draft, node: Node) -> bool:
    """Rule 1."""
    source = integers(draft, node.inputs[0])
    kind = draft.type(node.outputs[0])
    if source is None or kind.dtype not in (DType.INT8, DType.UINT8, DType.INT16):
        return False
    if draft.type(source) == kind:
        return draft.bypass(node, source)
    draft.replace(node, Node(node.op, (source,), node.outputs, node.origin))
    return True


def _holds(op: Op, kind: TensorType) -> bool:
    """Whether the constants among the outputs of a move are on the grid."""
    values: tuple[float, ...] = ()
    if isinstance(op, Pad) and op.mode == "constant":
        values = (op.value,)
    elif isinstance(op, MaxPool) and op.clamp is not None:
        values = tuple(edge for edge in op.clamp if not isinf(edge))
    if kind.quant is None:
        return False
    low, high = kind.dtype.limits
    steps = [value / kind.quant.scale[0] + kind.quant.zero_point for value in values]
    return all(low <= step <= high and abs(step - round(step)) < ON_GRID for step in steps)


def _after_move(draft: Draft, node: Node) -> bool:
    """Rule 2: what moves dequantized values moves the integers."""
    if not (moves(node.op) or isinstance(node.op, Concat)) or not draft.is_float(*node.outputs):
        return False
    sources = [source for name in node.inputs if (source := integers(draft, name)) is not None]
    kinds = {(draft.type(name).dtype, draft.type(name).quant) for name in sources}
    if len(sources) != len(node.inputs) or len(kinds) != 1 or not _holds(node.op, draft.type(sources[0])):
        return False
    first = draft.type(sources[0])
    made = [draft.tensor(f"{name}.int8", replace(first, shape=draft.type(name).shape)) for name in node.outputs]
    draft.replace(node, Node(node.op, tuple(sources), tuple(made), node.origin))
    draft.add(*(Node(Dequantize(), (q,), (name,), node.origin) for q, name in zip(made, node.outputs, strict=True)))
    return True


def _before_move(draft: Draft, node: Node) -> bool:
    """Rule 2: what is moved, or limited, and then quantized is quantized first: rounding keeps the order of values."""
    before = draft.private_producer(node.inputs[0])
    if before is None or len(before.outputs) != 1 or len(before.inputs) != 1:
        return False
    if not (moves(before.op) or (isinstance(before.op, Unary) and before.op.kind in LIMITS)):
        return False
    source = draft.type(before.inputs[0])
    if source.dtype is not DType.FLOAT32 or draft.data(before.inputs[0]) is not None:
        return False
    made = draft.tensor(f"{node.outputs[0]}.first", replace(draft.type(node.outputs[0]), shape=source.shape))
    draft.replace(node, Node(node.op, before.inputs, (made,), node.origin))
    draft.replace(before, Node(before.op, (made,), node.outputs, before.origin))
    return True


def _joins(draft: Draft, name: str, kind: TensorType) -> bool:
    """Whether a Concat to integers of `kind` takes a part as it is: int8 is rescaled on the way, int16 is not."""
    source = integers(draft, name)
    if source is None:
        return False
    found = draft.type(source)
    return found.dtype is kind.dtype and (kind.dtype is DType.INT8 or found.quant == kind.quant)


def _before_concat(draft: Draft, node: Node) -> bool:
    """Rule 2: the float parts, and int16 on other grids, of what is joined and then quantized are quantized first."""
    before = draft.private_producer(node.inputs[0])
    kind = draft.type(node.outputs[0])
    if before is None or not isinstance(before.op, Concat) or not computable(kind):
        return False
    parts = [name for name in before.inputs if draft.data(name) is None and not _joins(draft, name, kind)]
    if not parts or any(draft.data(name) is not None for name in before.inputs):
        return False
    reals = {}
    for name in dict.fromkeys(parts):
        shape = draft.type(name).shape
        part = draft.tensor(f"{name}.int8", replace(kind, shape=shape))
        reals[name] = draft.tensor(f"{name}.real", TensorType(shape))
        draft.add(
            Node(Quantize(), (name,), (part,), node.origin), Node(Dequantize(), (part,), (reals[name],), node.origin)
        )
    inputs = tuple(reals.get(name, name) for name in before.inputs)
    draft.replace(before, Node(before.op, inputs, before.outputs, before.origin))
    return True


def _on_integers(draft: Draft, node: Node) -> bool:
    """Rule 3."""
    if not _computes_in_float(draft, node):
        return False
    try:
        found = plan(draft, node)
    except StaysFloatError:
        return False
    draft.tensors.update((tensor.name, tensor) for tensor in found.inputs)
    inputs, outputs = tuple(tensor.name for tensor in found.inputs), node.outputs
    if found.quantize is not None:
        outputs = found.quantize.outputs
        draft.drop(found.quantize)
        if found.made != draft.type(outputs[0]):
            made = draft.tensor(f"{outputs[0]}.made", found.made)
            draft.add(Node(Quantize(), (made,), outputs, node.origin))
            outputs = (made,)
    draft.replace(node, Node(found.op, inputs, outputs, node.origin))
    return True

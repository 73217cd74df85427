"""What is computed element by element from one int8 tensor, as a table of its 256 values."""

from __future__ import annotations

import numpy as np

from toolchain import fixedpoint
from toolchain.ir.graph import Node
from toolchain.ir.types import DType
from toolchain.ops.convert import Dequantize
from toolchain.ops.elementwise import Binary, PRelu, Select
from toolchain.ops.unary import Lookup, Unary, values_by_index
from toolchain.passes.draft import Draft, ordered
from toolchain.passes.integer_form import integers


def by_table(draft: Draft, node: Node) -> bool:
    """Put a table in the place of a Quantize, where what it reads is a function of one int8 tensor."""
    between: list[Node] = []
    source = _single_source(draft, node.inputs[0], between)
    kind = draft.type(node.outputs[0])
    if source is None or not between or kind.quant is None or kind.dtype is not DType.INT8:
        return False
    quant = draft.type(source).quant
    if quant is None or draft.type(source).dtype is not DType.INT8 or draft.type(source).shape != kind.shape:
        return False
    reals = fixedpoint.dequantize(values_by_index(DType.INT8), quant.scale[0], quant.zero_point)
    values = {each.outputs[0]: reals for each in draft.readers(source) if isinstance(each.op, Dequantize)}
    for each in ordered(between):
        with np.errstate(all="ignore"):
            operands = [np.asarray(values.get(name, draft.data(name))).reshape(-1) for name in each.inputs]
            values[each.outputs[0]] = each.op.reference(*operands)[0]
    steps = fixedpoint.quantize(values[node.inputs[0]], kind.quant.scale[0], kind.quant.zero_point, *kind.dtype.limits)
    op = Lookup(tuple(int(step) for step in np.broadcast_to(steps, 256)))
    draft.replace(node, Node(op, (source,), node.outputs, between[0].origin))
    return True


def _single_source(draft: Draft, name: str, between: list[Node]) -> str | None:
    """The one int8 tensor from which elements are computed by `between`, which this fills; None where there is none."""
    producer = draft.producers.get(name)
    if producer is None:
        return None
    if isinstance(producer.op, Dequantize):
        return integers(draft, name)
    if not isinstance(producer.op, Unary | Binary | Select | PRelu):
        return None
    if not any(each is producer for each in between):
        between.append(producer)
    computed = [each for each in producer.inputs if draft.data(each) is None]
    single = all(draft.type(each).elements == 1 for each in producer.inputs if draft.data(each) is not None)
    sources = {_single_source(draft, each, between) for each in computed}
    return sources.pop() if single and len(sources) == 1 else None

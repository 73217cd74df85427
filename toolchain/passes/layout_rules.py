"""How each operator runs when its tensors are stored in another order of axes.

`ways` answers for one node: given the layouts in which its inputs and outputs are stored, the operator to run on
stored tensors, the layouts it then needs its inputs in, and those it produces. Whatever differs from how a tensor
is stored costs a Transpose. An operator without a rule runs only in its own order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from toolchain.ops.convert import Cast, Dequantize, Quantize
from toolchain.ops.elementwise import Binary, PRelu, Select
from toolchain.ops.indexing import Gather, Pad, Slice
from toolchain.ops.joining import Concat, Split
from toolchain.ops.reduce import ArgReduce, Reduce
from toolchain.ops.shape import Expand, Reshape, Tile, Transpose
from toolchain.ops.softmax import LogSoftmax, Softmax
from toolchain.ops.unary import Unary
from toolchain.passes.permutation import Permutation, compose, identity, inverse, moved_axes, permuted, same_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolchain.ir.graph import Node
    from toolchain.ir.types import TensorType
    from toolchain.ops.base import Op

Layouts = tuple[Permutation, ...]


@dataclass(frozen=True, slots=True)
class Adapted:
    """An operator on stored tensors: `needs` and `makes` are layouts of its inputs and outputs."""

    op: Op
    needs: Layouts
    makes: Layouts


@dataclass(frozen=True, slots=True)
class Site:
    """A node with the logical types of its tensors and the layouts they are stored in."""

    node: Node
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    stored_inputs: Layouts
    stored_outputs: Layouts


def ways(site: Site) -> list[Adapted]:
    """The ways to run the node where its tensors are stored, the one that follows the output first."""
    rule = RULES.get(type(site.node.op))
    found = [rule(site) if rule else None]
    if moves_freely(site.node.op):
        layouts = dict.fromkeys(x for x in site.stored_inputs if len(x) == len(site.stored_outputs[0]))
        found += [
            UNIFORM[type(site.node.op)](replace(site, stored_outputs=(layout,) * len(site.outputs)))
            for layout in layouts
        ]
    return [*(way for way in found if way is not None), fixed(site)]


def fixed(site: Site) -> Adapted:
    """The node in its own order of axes."""
    op = site.node.op
    return Adapted(op, _identities(site.inputs), _identities(site.outputs))


def moves_freely(op: Op) -> bool:
    """Whether all tensors of the operator may be stored alike, in any order (then none needs a Transpose)."""
    return type(op) in UNIFORM


def _identities(types: tuple[TensorType, ...]) -> Layouts:
    return tuple(identity(len(kind.shape)) for kind in types)


def _uniform(change: Callable[[Any, Permutation], Op]) -> Callable[[Site], Adapted | None]:
    """The rule of operators whose tensors all have one rank and one layout; `change` rewrites the attributes."""

    def rule(site: Site) -> Adapted | None:
        layout = site.stored_outputs[0]
        if any(len(kind.shape) != len(layout) for kind in (*site.inputs, *site.outputs)):
            return _smaller_operands(site, layout, change)
        op = change(site.node.op, layout)
        return Adapted(op, (layout,) * len(site.inputs), (layout,) * len(site.outputs))

    return rule


def _smaller_operands(site: Site, layout: Permutation, change: Callable[[Any, Permutation], Op]) -> Adapted | None:
    """Scalars broadcast in any order; other operands of smaller rank keep the node in its own order."""
    needs = []
    for kind in site.inputs:
        if len(kind.shape) == len(layout):
            needs.append(layout)
        elif kind.elements == 1:
            needs.append(identity(len(kind.shape)))
        else:
            return None
    return Adapted(change(site.node.op, layout), tuple(needs), (layout,) * len(site.outputs))


def _same(op: Op, layout: Permutation) -> Op:
    del layout
    return op


def _axis(op: Any, layout: Permutation) -> Op:
    moved: Op = replace(op, axis=layout.index(op.axis))
    return moved


def _slice(op: Slice, layout: Permutation) -> Op:
    start, stop, step = (permuted(values, layout) for values in (op.start, op.stop, op.step))
    return replace(op, start=start, stop=stop, step=step)


def _pad(op: Pad, layout: Permutation) -> Op:
    return replace(op, padding=tuple(op.padding[axis] for axis in layout))


def _tile(op: Tile, layout: Permutation) -> Op:
    return replace(op, repeats=permuted(op.repeats, layout))


def _expand(op: Expand, layout: Permutation) -> Op:
    return replace(op, shape=permuted(op.shape, layout))


def _transpose(site: Site) -> Adapted | None:
    """Say y = transpose(x, p): y stored as r needs no move when x is stored as p after r."""
    op = site.node.op
    assert isinstance(op, Transpose)
    source, result = site.stored_inputs[0], site.stored_outputs[0]
    wanted = compose(op.permutation, result)
    move = tuple(source.index(axis) for axis in wanted)
    return Adapted(Transpose(move), (source,), (result,))


def without(layout: Permutation, axes: tuple[int, ...]) -> Permutation:
    """The layout of what is left when axes are reduced away.

    >>> without((0, 2, 3, 1), (2, 3))
    (0, 1)
    """
    kept = [axis for axis in layout if axis not in axes]
    return tuple(sorted(kept).index(axis) for axis in kept)


def _reduce(site: Site) -> Adapted | None:
    op, source = site.node.op, site.stored_inputs[0]
    assert isinstance(op, Reduce)
    axes = tuple(sorted(source.index(axis) for axis in op.axes))
    makes = source if op.keepdims else without(source, op.axes)
    return Adapted(replace(op, axes=axes), (source,), (makes,))


def _arg_reduce(site: Site) -> Adapted | None:
    op, source = site.node.op, site.stored_inputs[0]
    assert isinstance(op, ArgReduce)
    makes = source if op.keepdims else without(source, (op.axis,))
    return Adapted(replace(op, axis=source.index(op.axis)), (source,), (makes,))


def _gather(site: Site) -> Adapted | None:
    op, source = site.node.op, site.stored_inputs[0]
    assert isinstance(op, Gather)
    if len(op.index_shape) > 1 or len(site.inputs) != 1:
        return None
    makes = source if op.index_shape else without(source, (op.axis,))
    return Adapted(replace(op, axis=source.index(op.axis)), (source,), (makes,))


def _reshape(site: Site) -> Adapted | None:
    """Axes that split or merge stay together and in order under the layout: then the memory is the same."""
    source, target = site.inputs[0].shape, site.outputs[0].shape
    makes = reshaped_layout(source, target, site.stored_inputs[0])
    if makes is None:
        return None
    if same_order(makes, site.stored_outputs[0], target):
        makes = site.stored_outputs[0]
    return Adapted(Reshape(permuted(target, makes)), (site.stored_inputs[0],), (makes,))


def reshaped_layout(source: tuple[int, ...], target: tuple[int, ...], layout: Permutation) -> Permutation | None:
    """The layout of reshape(x, target) that is the memory of x stored as `layout`, or None when there is none.

    >>> reshaped_layout((1, 8, 4, 4), (1, 8, 16), (0, 2, 3, 1))
    (0, 2, 1)
    """
    groups = axis_groups(source, target)
    if groups is None:
        return None
    order = moved_axes(layout, source)
    makes: list[int] = []
    position = 0
    while position < len(order):
        found = next(group for group in groups if order[position] in group[0])
        if order[position : position + len(found[0])] != found[0]:
            return None
        makes.extend(found[1])
        position += len(found[0])
    for axis, size in enumerate(target):
        if size == 1:
            makes.insert(axis, axis)
    return tuple(makes)


def axis_groups(source: tuple[int, ...], target: tuple[int, ...]) -> list[tuple[Permutation, Permutation]] | None:
    """The smallest runs of axes of equal product on both sides, axes of length one left out."""
    if prod(source) != prod(target) or 0 in source:
        return None
    left = [axis for axis, size in enumerate(source) if size != 1]
    right = [axis for axis, size in enumerate(target) if size != 1]
    groups = []
    while left and right:
        taken, given = [left.pop(0)], [right.pop(0)]
        while (a := prod(source[axis] for axis in taken)) != (b := prod(target[axis] for axis in given)):
            (taken if a < b else given).append((left if a < b else right).pop(0))
        groups.append((tuple(taken), tuple(given)))
    return groups


UNIFORM: dict[type[Op], Callable[[Site], Adapted | None]] = {
    **{kind: _uniform(_same) for kind in (Unary, Binary, PRelu, Select, Cast, Quantize, Dequantize)},
    **{kind: _uniform(_axis) for kind in (Concat, Split, Softmax, LogSoftmax)},
    Slice: _uniform(_slice),
    Pad: _uniform(_pad),
    Tile: _uniform(_tile),
    Expand: _uniform(_expand),
}
RULES: dict[type[Op], Callable[[Site], Adapted | None]] = {
    **UNIFORM,
    Transpose: _transpose,
    Reduce: _reduce,
    ArgReduce: _arg_reduce,
    Gather: _gather,
    Reshape: _reshape,
}


def suggestions(site: Site, known: set[str]) -> dict[str, Permutation]:
    """Layouts of the node's other tensors under which it moves nothing, given those of the `known` ones."""
    node, op = site.node, site.node.op
    result: dict[str, Permutation] = {}
    if not node.inputs:
        return result
    source, target = node.inputs[0], node.outputs[0]
    if source in known and target not in known:
        if type(op) in (Reduce, ArgReduce, Gather, Reshape):
            adapted = RULES[type(op)](site)
            if adapted is not None:
                result[target] = adapted.makes[0]
        elif isinstance(op, Transpose):
            result[target] = compose(inverse(op.permutation), site.stored_inputs[0])
    elif target in known and source not in known:
        layout = _backwards(site)
        if layout is not None:
            result[source] = layout
    return result


def _backwards(site: Site) -> Permutation | None:
    """The layout of input 0 that gives the stored output without a move, where it is unique."""
    op, result = site.node.op, site.stored_outputs[0]
    if isinstance(op, Transpose):
        return compose(op.permutation, result)
    if isinstance(op, Reshape):
        return reshaped_layout(site.outputs[0].shape, site.inputs[0].shape, result)
    if isinstance(op, Reduce | ArgReduce) and op.keepdims:
        return result
    if isinstance(op, Gather) and len(op.index_shape) == 1:
        return result
    return None

"""Fold batch normalisation: products and sums with constants go into weights and biases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir.graph import Graph, Node
from toolchain.ir.types import QuantParams, TensorType
from toolchain.ops.conv import Conv, ConvTranspose
from toolchain.ops.dense import Dense
from toolchain.ops.elementwise import Binary
from toolchain.ops.shape import Reshape
from toolchain.passes.draft import Draft, rewrite

if TYPE_CHECKING:
    from toolchain.ir.types import Array
    from toolchain.ops.base import Op

Weighted = (Conv, ConvTranspose, Dense)


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """y = x * scale + shift, with constants that broadcast to x."""

    source: str
    scale: Array
    shift: Array

    @property
    def only_scales(self) -> bool:
        """Whether nothing is added."""
        return not np.any(self.shift)

    @property
    def only_shifts(self) -> bool:
        """Whether nothing is multiplied."""
        return bool(np.all(self.scale == 1))


def fold_affine(graph: Graph) -> Graph:
    """The graph with batch normalisation folded.

    Rules: (1) a per-channel product or sum after Conv, ConvTranspose or Dense goes into its weights and bias;
    (2) before them likewise, a sum only where no padding enters; (3) chains of such nodes become one product
    and one sum at most.
    """
    return rewrite(graph, _fold)


def _fold(draft: Draft, node: Node) -> bool:
    affine = _affine(draft, node)
    if affine is None:
        return False
    return _into_producer(draft, node, affine) or _into_reader(draft, node, affine) or _merge(draft, node, affine)


def _affine(draft: Draft, node: Node) -> Affine | None:
    """What a Binary with one constant does, or None when it is not affine or widens its input."""
    op = node.op
    if not isinstance(op, Binary) or op.clamp is not None or not draft.is_float(*node.inputs, *node.outputs):
        return None
    first, second = (draft.data(name) for name in node.inputs)
    if (first is None) == (second is None):
        return None
    source = node.inputs[0 if first is None else 1]
    if draft.type(source).shape != draft.type(node.outputs[0]).shape:
        return None
    value = np.asarray(second if first is None else first, np.float64)
    terms = _terms(op.kind, value, constant_first=first is not None)
    if terms is None or not all(np.all(np.isfinite(term)) for term in terms):
        return None
    return Affine(source, np.asarray(terms[0], np.float64), np.asarray(terms[1], np.float64))


def _terms(kind: str, value: Array, *, constant_first: bool) -> tuple[Array, Array] | None:
    zero, one = np.zeros(()), np.ones(())
    if kind == "add":
        return one, value
    if kind == "mul":
        return value, zero
    if kind == "sub":
        return (-one, value) if constant_first else (one, -value)
    if kind == "div" and not constant_first:
        with np.errstate(divide="ignore"):
            return one / value, zero
    return None


def _per_channel(term: Array, shape: tuple[int, ...]) -> Array | None:
    """The term as a vector over the last axis of x, or None when it varies along other axes."""
    if any(size != 1 for size in term.shape[:-1]):
        return None
    return np.broadcast_to(term.reshape(-1) if term.ndim else term, (shape[-1],))


def _vectors(affine: Affine, shape: tuple[int, ...]) -> tuple[Array, Array] | None:
    scale, shift = _per_channel(affine.scale, shape), _per_channel(affine.shift, shape)
    return None if scale is None or shift is None else (scale, shift)


def _constants(draft: Draft, node: Node) -> tuple[Array, Array] | None:
    """The float weights and bias of a weighted node, in double precision."""
    if len(node.inputs) != 3 or not draft.is_float(*node.inputs, *node.outputs):
        return None
    weight, bias = (draft.data(name) for name in node.inputs[1:])
    if weight is None or bias is None:
        return None
    return weight.astype(np.float64), bias.astype(np.float64)


def _reweighted(draft: Draft, node: Node, weight: Array, bias: Array, quant: QuantParams | None = None) -> None:
    kinds = (TensorType((), quant=quant), None)
    named = zip(node.inputs[1:], (weight, bias), kinds, strict=True)
    names = tuple(draft.constant(name, data, kind) for name, data, kind in named)
    draft.replace(node, Node(node.op, (node.inputs[0], *names), node.outputs, node.origin))


def _into_producer(draft: Draft, node: Node, affine: Affine) -> bool:
    shape = draft.type(affine.source).shape
    vectors = _vectors(affine, shape)
    producer = draft.private_producer(affine.source)
    while producer is not None and isinstance(producer.op, Reshape):
        if draft.type(producer.inputs[0]).shape[-1:] != shape[-1:]:
            return False
        producer = draft.private_producer(producer.inputs[0])
    if producer is None or vectors is None or not isinstance(producer.op, Weighted) or producer.op.clamp is not None:
        return False
    constants = _constants(draft, producer)
    if constants is None:
        return False
    (weight, bias), (scale, shift) = constants, vectors
    grid = _scaled_grid(draft.type(producer.inputs[1]).quant, scale)
    _reweighted(draft, producer, weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias * scale + shift, grid)
    return draft.bypass(node, affine.source)


def _scaled_grid(quant: QuantParams | None, scale: Array) -> QuantParams | None:
    """The grid of weights after each output's are multiplied by its scale; None where they leave it."""
    if quant is None or quant.axis not in (None, 0) or not np.all(scale):
        return None
    scales = quant.scales(scale.size) * np.abs(scale)
    if np.all(scales == scales[0]) and quant.axis is None:
        return QuantParams((float(scales[0]),))
    return QuantParams(tuple(float(each) for each in scales), 0, 0)


def _into_reader(draft: Draft, node: Node, affine: Affine) -> bool:
    vectors = _vectors(affine, draft.type(affine.source).shape)
    reader = draft.only_reader(node.outputs[0])
    if vectors is None or reader is None or not isinstance(reader.op, Weighted) or reader.inputs[0] != node.outputs[0]:
        return False
    constants = _constants(draft, reader)
    if constants is None or not (affine.only_scales or _sees_no_padding(reader.op)):
        return False
    if draft.type(reader.inputs[1]).quant is not None:
        return False  # weights of a quantized model stay on their grid
    weight, bias = constants
    scale, shift = (_over_inputs(vector, reader.op, weight) for vector in vectors)
    extra = (weight * shift).reshape(weight.shape[0], -1).sum(axis=1)
    _reweighted(draft, reader, weight * scale, bias + extra)
    return draft.bypass(node, affine.source)


def _sees_no_padding(op: Op) -> bool:
    return isinstance(op, Dense) or (isinstance(op, Conv) and not np.any(op.padding))


def _over_inputs(vector: Array, op: Op, weight: Array) -> Array:
    """A vector over input channels as an array that broadcasts to weight[O, *k, I / groups]."""
    groups = op.groups if isinstance(op, Conv | ConvTranspose) else 1
    rows = np.repeat(vector.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return rows.reshape(weight.shape[0], *[1] * (weight.ndim - 2), weight.shape[-1])


def _merge(draft: Draft, node: Node, second: Affine) -> bool:
    """Join with the affine node before: one node where that is enough, else the product before the sum."""
    before = draft.private_producer(second.source)
    first = None if before is None else _affine(draft, before)
    if before is None or first is None:
        return False
    try:
        scale = np.asarray(first.scale * second.scale)
        shift = np.asarray(first.shift * second.scale + second.shift)
    except ValueError:
        return False
    joint = Affine(first.source, scale, shift)
    swap = first.only_shifts and not second.only_shifts
    if not (joint.only_scales or joint.only_shifts or swap) or _grows(draft, joint, (node, before)):
        return False
    draft.drop(before)
    if joint.only_scales or joint.only_shifts:
        _put(draft, node, joint, last=True)
    else:
        product = _put(draft, before, Affine(first.source, scale, np.zeros(())), last=False)
        _put(draft, node, Affine(product, np.ones(()), shift), last=True)
    return True


def _grows(draft: Draft, joint: Affine, nodes: tuple[Node, Node]) -> bool:
    """Whether the joint constants would be larger than the largest one now."""
    held: list[Array] = [data for node in nodes for name in node.inputs if (data := draft.data(name)) is not None]
    return max(joint.scale.size, joint.shift.size) > max(data.size for data in held)


def _put(draft: Draft, node: Node, affine: Affine, *, last: bool) -> str:
    """Write a product or a sum in the place of `node` (its output when it is the last of the chain)."""
    kind, value = ("mul", affine.scale) if affine.only_scales else ("add", affine.shift)
    constant = draft.constant(f"{node.outputs[0]}.{kind}", value)
    made = Node(Binary(kind), (affine.source, constant), node.outputs, node.origin)
    if last:
        draft.replace(node, made)
        return node.outputs[0]
    output = draft.tensor(node.outputs[0], draft.type(node.outputs[0]))
    draft.add(Node(made.op, made.inputs, (output,), node.origin))
    return output

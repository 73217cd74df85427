"""How positive per-channel factors pass through operators: what equalization may move without changing a function."""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING

from toolchain.ops.binary import Binary, PRelu
from toolchain.ops.conv import Conv, ConvTranspose
from toolchain.ops.dense import Dense
from toolchain.ops.indexing import Pad
from toolchain.ops.joining import Concat, Split
from toolchain.ops.pool import AvgPool, MaxPool
from toolchain.ops.reduce import Reduce
from toolchain.ops.resize import Resize
from toolchain.ops.shape import Reshape
from toolchain.ops.strided import ViewOp
from toolchain.ops.unary import Unary

if TYPE_CHECKING:
    from toolchain.ir.graph import Tensor
    from toolchain.ops.base import Op

Clamp = tuple[float, float]


class Scaling(enum.Enum):
    """What a factor per channel (last axis) of the inputs means for the output."""

    WEIGHTS = "the weights take up the factors of input and output"
    SAME = "all activations and the output have the same factors"
    MOVES = "values are moved, and their factors with them"
    FIRST = "the output has the factors of the first activation, all other inputs have none"
    NONE = "no factor passes"


def scaling(  # noqa: PLR0911 - one line per family
    op: Op, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
) -> Scaling:
    """How factors pass through one node. Upper limits of WEIGHTS operators are the caller's to look at."""
    if isinstance(op, Conv | ConvTranspose | Dense):
        return _of_weights(op, inputs)
    clamp = getattr(op, "clamp", None)
    if clamp is not None and not is_homogeneous(clamp):
        return Scaling.NONE
    if isinstance(op, Binary):
        return _of_binary(op, inputs, outputs)
    if isinstance(op, PRelu):
        return Scaling.FIRST
    if isinstance(op, Unary):
        return Scaling.SAME if op.kind in _HOMOGENEOUS and op.alpha >= 0 else Scaling.NONE
    if isinstance(op, MaxPool | AvgPool | Resize):
        return Scaling.SAME
    if isinstance(op, Reduce):
        return Scaling.SAME if _keeps_channels(op, inputs[0]) else Scaling.NONE
    return _of_moves(op, inputs)


_HOMOGENEOUS = frozenset(["identity", "relu", "leaky", "abs", "neg"])
"""Functions f with f(s x) = s f(x) for s > 0."""


def is_homogeneous(clamp: Clamp) -> bool:
    """Whether limits stay the same under every positive factor."""
    return all(limit == 0 or math.isinf(limit) for limit in clamp)


def _of_weights(op: Conv | ConvTranspose | Dense, inputs: tuple[Tensor, ...]) -> Scaling:
    constant = all(tensor.data is not None for tensor in inputs[1:3])
    lower = 0.0 if op.clamp is None else op.clamp[0]
    return Scaling.WEIGHTS if constant and (lower == 0 or math.isinf(lower)) else Scaling.NONE


def _of_binary(op: Binary, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Scaling:
    activations = [tensor for tensor in inputs if tensor.data is None]
    if op.kind in ("mul", "div") and inputs[0].data is None:
        return Scaling.FIRST if inputs[0].type.shape[-1:] == outputs[0].type.shape[-1:] else Scaling.NONE
    if op.kind in ("add", "sub", "min", "max") and len(activations) == len(inputs):
        return Scaling.SAME
    return Scaling.NONE


def _keeps_channels(op: Reduce, x: Tensor) -> bool:
    rank = len(x.type.shape)
    return op.kind in ("mean", "sum", "max", "min") and all(axis % rank != rank - 1 for axis in op.axes)


def _of_moves(op: Op, inputs: tuple[Tensor, ...]) -> Scaling:
    if any(tensor.data is not None for tensor in inputs):
        return Scaling.NONE
    if isinstance(op, Pad):
        return Scaling.SAME if op.padding[-1] == (0, 0) and (op.mode != "constant" or op.value == 0) else Scaling.NONE
    return Scaling.MOVES if isinstance(op, ViewOp | Reshape | Concat | Split) else Scaling.NONE


def takes_offset(op: Op) -> bool:
    """Whether a constant on every value of an input channel may go into the bias: no padding is seen beside it."""
    return isinstance(op, Dense) or (isinstance(op, Conv) and not any(map(any, op.padding)))

"""Operators without weights in uint8 files of the older scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.conformance.family import Draw, family
from tests.conformance.flat import Flat, Quant

if TYPE_CHECKING:
    from collections.abc import Sequence

ACTIVATIONS = 4


def unsigned(quant: Quant) -> Quant:
    return Quant(quant.scale, quant.zero_point + 128)


def one(
    draw: Draw,
    kind: str,
    xs: Sequence[Quant],
    y: Quant,
    options: str | None = None,
    constants: Sequence[Any] = (),
    **fields: Any,
) -> bytes:
    model, shape = Flat(), draw.shape(4, 6)
    operands = [model.input(shape, unsigned(x), "UINT8") for x in xs]
    target = model.tensor([], unsigned(y), "UINT8")
    model.operator(kind, [*operands, *(model.constant(c) for c in constants)], [target], options, **fields)
    return model.content(target)


@family(12)
def binary_uint8(draw: Draw) -> bytes:
    kind, options = draw.turn(("ADD", "AddOptions"), ("SUB", "SubOptions"), ("MUL", "MulOptions"))
    a, b = draw.quant(-2.5, -0.5), draw.quant(-2.5, -0.5)
    reach = a.scale * b.scale * 128 if kind == "MUL" else max(a.scale, b.scale)
    y = Quant(float(np.float32(reach * 10 ** draw.rng.uniform(-0.5, 1.0))), draw.zero())
    return one(draw, kind, [a, b], y, options, fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1))


@family(10)
def unary_uint8(draw: Draw) -> bytes:
    kind = draw.turn("RELU", "RELU6", "RELU_N1_TO_1", "HARD_SWISH", "LEAKY_RELU")
    x, y = draw.quant(-2.5, -1), draw.quant(-2, 0)
    if kind == "HARD_SWISH":
        y = Quant(float(np.float32(x.scale * draw.rng.uniform(1.0, 3.0))), draw.zero())
    leaky = kind == "LEAKY_RELU"
    return one(draw, kind, [x], y, "LeakyReluOptions" if leaky else None, **({"alpha": 0.2} if leaky else {}))


@family(12)
def sigmoid_tanh_softmax_uint8(draw: Draw) -> bytes:
    kind, y = draw.turn(
        ("LOGISTIC", Quant(1 / 256, -128)), ("TANH", Quant(1 / 128, 0)), ("SOFTMAX", Quant(1 / 256, -128))
    )
    softmax = kind == "SOFTMAX"
    return one(
        draw,
        kind,
        [draw.quant(-2.5, -0.5)],
        y,
        "SoftmaxOptions" if softmax else None,
        **({"beta": 1.0} if softmax else {}),
    )


@family(8)
def max_pool_uint8(draw: Draw) -> bytes:
    quant = draw.quant()
    fields = {"strideW": 1, "strideH": 2, "filterWidth": draw.integer(1, 3), "filterHeight": draw.integer(1, 3)}
    return one(
        draw, "MAX_POOL_2D", [quant], quant, "Pool2DOptions", fusedActivationFunction=draw.turn(0, 1, 3), **fields
    )


@family(12)
def average_pool_uint8(draw: Draw) -> bytes:
    quant = draw.quant()
    fields = {"strideW": 1, "strideH": 2, "filterWidth": draw.integer(1, 3), "filterHeight": draw.integer(1, 3)}
    return one(
        draw, "AVERAGE_POOL_2D", [quant], quant, "Pool2DOptions", fusedActivationFunction=draw.turn(0, 1, 3), **fields
    )


@family(8)
def mean_uint8(draw: Draw) -> bytes:
    quant = draw.quant()
    y = draw.turn(quant, Quant(float(np.float32(quant.scale * 1.3)), draw.zero()))
    return one(draw, "MEAN", [quant], y, "ReducerOptions", [[1, 2]], keepDims=draw.turn(True, False))


@family(6)
def concatenation_uint8(draw: Draw) -> bytes:
    """The older kernel rescales."""
    y = draw.quant(-2, -1)
    xs = [draw.turn(y, draw.quant(-2, -1)), draw.quant(-2, -1)]
    return one(draw, "CONCATENATION", xs, y, "ConcatenationOptions", axis=3)


@family(6, exception="the older uint8 kernel interpolates in float and truncates")
def resize_bilinear_uint8(draw: Draw) -> bytes:
    quant = draw.quant()
    centers = draw.turn(True, False)
    return one(draw, "RESIZE_BILINEAR", [quant], quant, "ResizeBilinearOptions", [[7, 5]], halfPixelCenters=centers)


@family(6)
def moves_uint8(draw: Draw) -> bytes:
    quant = draw.quant()
    kind, options, constants = draw.turn(
        ("PAD", "PadOptions", [[[0, 0], [1, 0], [0, 2], [1, 1]]]),
        ("TRANSPOSE", "TransposeOptions", [[0, 2, 3, 1]]),
        ("RESHAPE", "ReshapeOptions", [[-1]]),
    )
    return one(draw, kind, [quant], quant, options, constants)

"""Functions of one and two inputs, comparisons, selections and changes of type on int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.conformance.family import Draw, family
from tests.conformance.flat import Flat, Quant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolchain.ir.types import Array

ACTIVATIONS = 4
SIGMOID, TANH, SOFTMAX, LOG_SOFTMAX = (
    Quant(1 / 256, -128), Quant(1 / 128, 0), Quant(1 / 256, -128), Quant(16 / 256, 127)
)  # fmt: skip


def unary(
    draw: Draw, kind: str, x: Quant, y: Quant | None, options: str | None = None, *, out: str = "INT8", **fields: Any
) -> bytes:
    model = Flat()
    source = model.input(draw.shape(draw.integer(2, 4)), x)
    target = model.tensor([], y, out)
    model.operator(kind, [source], [target], options, **fields)
    return model.content(target)


@family(20)
def limits(draw: Draw) -> bytes:
    return unary(draw, draw.turn("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"), draw.quant(), draw.quant())


@family(12)
def leaky_relu(draw: Draw) -> bytes:
    alpha = draw.pick(0.01, 0.1, 0.25, 0.9, 1.5)
    return unary(draw, "LEAKY_RELU", draw.quant(), draw.quant(), "LeakyReluOptions", alpha=alpha)


@family(12)
def hard_swish(draw: Draw) -> bytes:
    x = draw.quant(-2.5, -1)
    return unary(draw, "HARD_SWISH", x, Quant(float(np.float32(x.scale * draw.rng.uniform(1.0, 3.0))), draw.zero()))


@family(24)
def tables(draw: Draw) -> bytes:
    x = draw.quant(-2.5, -1)
    return unary(draw, draw.turn("ELU", "EXP", "ABS", "LOG"), x, draw.quant(-2, 0))


@family(8)
def gelu(draw: Draw) -> bytes:
    return unary(
        draw, "GELU", draw.quant(-2.5, -1), draw.quant(-2, -1), "GeluOptions", approximate=bool(draw.integer(0, 1))
    )


@family(12)
def sigmoid_tanh(draw: Draw) -> bytes:
    kind = draw.turn("LOGISTIC", "TANH")
    return unary(draw, kind, draw.quant(-2.5, -0.5), SIGMOID if kind == "LOGISTIC" else TANH)


@family(20)
def softmaxes(draw: Draw) -> bytes:
    x = draw.quant(-3, 0)
    if draw.turn(True, False):
        return unary(draw, "SOFTMAX", x, SOFTMAX, "SoftmaxOptions", beta=draw.pick(1.0, 1.0, 0.5, 2.0))
    return unary(draw, "LOG_SOFTMAX", x, LOG_SOFTMAX, "LogSoftmaxOptions")


def above_zero(draw: Draw, details: Sequence[Any]) -> list[Array]:
    """Integers that stand for positive numbers."""
    return [
        draw.rng.integers(detail["quantization"][1] + 1, 128, detail["shape"]).astype(np.int8) for detail in details
    ]


@family(12, samples=above_zero)
def roots(draw: Draw) -> bytes:
    x = Quant(draw.scale(-2.5, -1), draw.pick(-128, -100, 0))
    return unary(draw, draw.turn("SQRT", "RSQRT"), x, draw.quant(-2, -1))


@family(6, exception="LiteRT negates the integers whatever their scales, and -128 to itself", real=np.negative)
def neg(draw: Draw) -> bytes:
    return unary(draw, "NEG", draw.quant(), draw.quant())


def broadcast_pair(draw: Draw) -> list[tuple[int, ...]]:
    """Two shapes that broadcast, in either order."""
    full = draw.shape(4, 5)
    other = draw.turn(
        full, full[3:], (1,), (1, 1, 1, full[3]), (1, full[1], full[2], 1), (1, full[1], 1, full[3]), full
    )
    return [full, other] if draw.integer(0, 1) else [other, full]


def binary(
    draw: Draw,
    kind: str,
    quants: Sequence[Quant],
    y: Quant | None,
    options: str | None = None,
    *,
    out: str = "INT8",
    **fields: Any,
) -> bytes:
    model, shapes = Flat(), broadcast_pair(draw)
    constant = draw.pick(None, None, 0, 1)
    operands = [
        model.constant(draw.int8(*shape), quant) if side == constant else model.input(shape, quant)
        for side, (shape, quant) in enumerate(zip(shapes, quants, strict=True))
    ]
    target = model.tensor([], y, out)
    model.operator(kind, operands, [target], options, **fields)
    return model.content(target)


@family(40)
def add_sub_mul(draw: Draw) -> bytes:
    kind, options = draw.turn(("ADD", "AddOptions"), ("SUB", "SubOptions"), ("MUL", "MulOptions"))
    a, b = draw.quant(-2.5, -0.5), draw.quant(-2.5, -0.5)
    reach = a.scale * b.scale * 128 if kind == "MUL" else max(a.scale, b.scale)
    y = Quant(float(np.float32(reach * 10 ** draw.rng.uniform(-0.5, 1.0))), draw.zero())
    return binary(draw, kind, [a, b], y, options, fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1))


@family(10)
def squared_difference(draw: Draw) -> bytes:
    a, b = draw.quant(-2.5, -0.5), draw.quant(-2.5, -0.5)
    y = Quant(float(np.float32(max(a.scale, b.scale) ** 2 * 128 * 10 ** draw.rng.uniform(-0.5, 1.0))), draw.zero())
    return binary(draw, "SQUARED_DIFFERENCE", [a, b], y)


def quotients(draw: Draw, scale: float) -> bytes:
    model, (a, b) = Flat(), (draw.quant(-2.5, -0.5), draw.quant(-2.5, -0.5))
    operands = [model.input(shape, quant) for shape, quant in zip(broadcast_pair(draw), (a, b), strict=True)]
    y = model.tensor([], Quant(float(np.float32(a.scale / b.scale * scale)), draw.zero()))
    model.operator("DIV", operands, [y], "DivOptions", fusedActivationFunction=draw.turn(0, 0, 0, 1, 2, 3))
    return model.content(y)


def away_from_zero(draw: Draw, detail: Any, least: int) -> Array:
    """Integers at least `least` from the zero point, and not 0, which LiteRT takes for a division by zero."""
    zero = detail["quantization"][1]
    far = [q for q in range(-128, 128) if abs(q - zero) >= least and q]
    return draw.rng.choice(far, detail["shape"]).astype(np.int8)


def large(draw: Draw, details: Sequence[Any]) -> list[Array]:
    return [away_from_zero(draw, detail, least) for detail, least in zip(details, (32, 1), strict=True)]


def divisible(draw: Draw, details: Sequence[Any]) -> list[Array]:
    return [away_from_zero(draw, detail, least) for detail, least in zip(details, (0, 1), strict=True)]


@family(12, samples=large)
def div(draw: Draw) -> bytes:
    return quotients(draw, 10 ** draw.rng.uniform(-1.5, 0.0))


@family(
    6,
    samples=divisible,
    real=np.divide,
    exception="LiteRT shifts quotients near zero by 32 bits or more, undefined in C",
)
def div_near_zero(draw: Draw) -> bytes:
    model, (a, b) = Flat(), (draw.quant(-2.5, -0.5), draw.quant(-2.5, -0.5))
    operands = [model.input((2, 50), quant) for quant in (a, b)]
    y = model.tensor([], Quant(float(np.float32(a.scale / b.scale * draw.integer(4, 60))), draw.zero()))
    model.operator("DIV", operands, [y], "DivOptions")
    return model.content(y)


@family(8)
def min_max(draw: Draw) -> bytes:
    quant = draw.quant()
    return binary(draw, draw.turn("MINIMUM", "MAXIMUM"), [quant, quant], quant, "MaximumMinimumOptions")


@family(10)
def prelu(draw: Draw) -> bytes:
    model, x, alpha = Flat(), draw.quant(-2.5, -0.5), draw.quant(-3, -1)
    shape = draw.shape(4, 5)
    slopes = model.constant(draw.int8(*draw.turn((1, 1, shape[3]), (1, 1, 1), shape[1:])), alpha)
    y = model.tensor([], Quant(float(np.float32(x.scale * 10 ** draw.rng.uniform(-0.5, 0.5))), draw.zero()))
    model.operator("PRELU", [model.input(shape, x), slopes], [y])
    return model.content(y)


KINDS = ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")


@family(24)
def comparisons(draw: Draw) -> bytes:
    a = draw.quant(-3, -0.1)
    b = draw.pick(a, draw.quant(-3, -0.1))
    return binary(draw, draw.turn(*KINDS), [a, b], None, out="BOOL")


@family(8)
def select(draw: Draw) -> bytes:
    model, quant = Flat(), draw.quant()
    shapes = broadcast_pair(draw) if draw.turn(True, False) else [draw.shape(3)] * 2
    same = shapes[0] == shapes[1]
    condition = model.input(draw.pick(*shapes), None, "BOOL")
    operands = [model.input(shape, quant) for shape in shapes]
    y = model.tensor([], quant)
    kind, options = ("SELECT", "SelectOptions") if same else ("SELECT_V2", "SelectV2Options")
    model.operator(kind, [condition, *operands], [y], options)
    return model.content(y)


@family(16)
def requantize(draw: Draw) -> bytes:
    model = Flat()
    source, target = draw.turn(("INT8", "INT8"), ("UINT8", "INT8"), ("INT8", "UINT8"), ("UINT8", "UINT8"))
    quants = [
        Quant(quant.scale, quant.zero_point + 128 * (kind == "UINT8"))
        for kind, quant in ((source, draw.quant()), (target, draw.quant()))
    ]
    x, y = model.input(draw.shape(3), quants[0], source), model.tensor([], quants[1], target)
    model.operator("QUANTIZE", [x], [y])
    return model.content(y)


@family(8, floats="the model quantizes and dequantizes reals")
def quantize_dequantize(draw: Draw) -> bytes:
    model, quant = Flat(), draw.quant()
    x, q, y = model.input(draw.shape(3), None, "FLOAT32"), model.tensor([], quant), model.tensor([], None, "FLOAT32")
    model.operator("QUANTIZE", [x], [q])
    model.operator("DEQUANTIZE", [q], [y])
    return model.content(*draw.turn((y,), (q,), (q, y)))


@family(6, floats="the model casts the integers to float")
def cast(draw: Draw) -> bytes:
    out = draw.turn("FLOAT32", "INT32", "BOOL")
    return unary(draw, "CAST", draw.quant(), None, "CastOptions", out=out)

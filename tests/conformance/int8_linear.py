"""Convolutions, fully connected layers and matrix products on int8."""

from __future__ import annotations

import numpy as np

from tests.conformance.family import Draw, family
from tests.conformance.flat import Flat, Quant
from toolchain.config import Rounding

SAME, VALID = 0, 1
ACTIVATIONS = 4
"""None, RELU, RELU_N1_TO_1 and RELU6, as the schema numbers them."""


def output_quant(draw: Draw, x: Quant, weight: Quant, depth: int) -> Quant:
    """A grid on which sums of `depth` products of the middling channel fill most of the range, or saturate."""
    step = float(np.median(weight.scales)) * x.scale
    spread = step * 74 * 74 * np.sqrt(depth) / 64
    return Quant(float(np.float32(spread * 10 ** draw.rng.uniform(-0.7, 0.7))), draw.zero())


def weight_quant(draw: Draw, outputs: int, axis: int = 0) -> Quant:
    return draw.turn(draw.decades(outputs, axis), Quant(draw.scale(-3, -1)), draw.decades(outputs, axis))


def bias(draw: Draw, model: Flat, x: Quant, weight: Quant, outputs: int) -> int:
    scales = tuple(float(np.float32(x.scale * scale)) for scale in weight.scales)
    values = draw.rng.integers(-20000, 20000, outputs).astype(np.int32)
    return model.constant(values, Quant(scales if len(scales) > 1 else scales[0]))


def window(draw: Draw, extent: int) -> tuple[int, int]:
    """(kernel, dilation) that fit `extent` without padding."""
    kernel = draw.integer(1, min(extent, 4))
    most = (extent - 1) // max(kernel - 1, 1)
    return kernel, draw.integer(1, max(1, min(most, 2)))


@family(30)
def conv_2d(draw: Draw) -> bytes:
    model, x_quant = Flat(), draw.quant()
    shape = (draw.pick(1, 1, 2), draw.integer(1, 9), draw.integer(1, 9), draw.integer(1, 9))
    outputs = draw.integer(1, 9)
    (ky, dy), (kx, dx) = window(draw, shape[1]), window(draw, shape[2])
    x = model.input(shape, x_quant)
    w_quant = weight_quant(draw, outputs)
    w = model.constant(draw.int8(outputs, ky, kx, shape[3], low=-127), w_quant)
    b = bias(draw, model, x_quant, w_quant, outputs)
    y = model.tensor([], output_quant(draw, x_quant, w_quant, ky * kx * shape[3]))
    model.operator(
        "CONV_2D", [x, w, b], [y], "Conv2DOptions", padding=draw.pick(SAME, VALID), strideW=draw.integer(1, 3),
        strideH=draw.integer(1, 3), dilationWFactor=dx, dilationHFactor=dy,
        fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


@family(30)
def depthwise_conv_2d(draw: Draw) -> bytes:
    model, x_quant = Flat(), draw.quant()
    shape = (1, draw.integer(1, 9), draw.integer(1, 9), draw.integer(1, 9))
    multiplier = draw.pick(1, 1, 2, 3)
    outputs = shape[3] * multiplier
    (ky, dy), (kx, dx) = window(draw, shape[1]), window(draw, shape[2])
    x = model.input(shape, x_quant)
    w_quant = weight_quant(draw, outputs, 3)
    w = model.constant(draw.int8(1, ky, kx, outputs, low=-127), w_quant)
    b = bias(draw, model, x_quant, w_quant, outputs)
    y = model.tensor([], output_quant(draw, x_quant, w_quant, ky * kx))
    stride = draw.integer(1, 3)
    model.operator(
        "DEPTHWISE_CONV_2D", [x, w, b], [y], "DepthwiseConv2DOptions", padding=draw.pick(SAME, VALID),
        strideW=stride, strideH=stride, depthMultiplier=multiplier, dilationWFactor=dx, dilationHFactor=dy,
        fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


@family(20)
def transpose_conv(draw: Draw) -> bytes:
    model, x_quant = Flat(), draw.quant()
    shape = (1, draw.integer(1, 6), draw.integer(1, 6), draw.integer(1, 6))
    outputs, kernel, stride = draw.integer(1, 6), (draw.integer(1, 4), draw.integer(1, 4)), draw.integer(1, 3)
    padding = draw.pick(SAME, VALID)
    spatial = [n * stride if padding == SAME else (n - 1) * stride + k for n, k in zip(shape[1:3], kernel, strict=True)]
    x = model.input(shape, x_quant)
    w_quant = weight_quant(draw, outputs)
    w = model.constant(draw.int8(outputs, *kernel, shape[3], low=-127), w_quant)
    size = model.constant([1, *spatial, outputs])
    inputs = [size, w, x, *([bias(draw, model, x_quant, w_quant, outputs)] if draw.integer(0, 1) else [])]
    y = model.tensor([], output_quant(draw, x_quant, w_quant, kernel[0] * kernel[1] * shape[3]))
    model.operator(
        "TRANSPOSE_CONV", inputs, [y], "TransposeConvOptions", padding=padding, strideW=stride, strideH=stride,
        fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


def dense(draw: Draw, w_quant: Quant, outputs: int) -> bytes:
    model, x_quant = Flat(), draw.quant()
    depth, lead = draw.integer(1, 40), draw.pick((1,), (3,), (1, 4), (2, 1, 3))
    x = model.input((*lead, depth), x_quant)
    w = model.constant(draw.int8(outputs, depth, low=-127), w_quant)
    b = bias(draw, model, x_quant, w_quant, outputs) if draw.integer(0, 4) else -1
    y = model.tensor([], output_quant(draw, x_quant, w_quant, depth))
    model.operator(
        "FULLY_CONNECTED", [x, w, b], [y], "FullyConnectedOptions", keepNumDims=bool(draw.integer(0, 1)),
        fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


# LiteRT's kernel of fully connected layers rounds once; TensorFlow Lite Micro, the default policy, twice.


@family(20, rounding=Rounding.SINGLE)
def fully_connected(draw: Draw) -> bytes:
    return dense(draw, Quant(draw.scale(-3, -1)), draw.integer(1, 12))


@family(12, rounding=Rounding.SINGLE)
def fully_connected_per_channel(draw: Draw) -> bytes:
    outputs = draw.integer(2, 12)
    return dense(draw, draw.decades(outputs), outputs)


def matrices(draw: Draw, *, adjoint: tuple[bool, bool], broadcast: bool, constant: bool) -> bytes:
    model, a_quant, b_quant = Flat(), draw.quant(), draw.quant()
    rows, inner, columns, lead = draw.integer(1, 6), draw.integer(1, 9), draw.integer(1, 6), draw.integer(2, 3)
    shapes = [(lead, rows, inner), (1 if broadcast else lead, inner, columns)]
    shapes = [(n, q, p) if flip else (n, p, q) for (n, p, q), flip in zip(shapes, adjoint, strict=True)]
    a = model.input(shapes[0], a_quant)
    b = model.constant(draw.int8(*shapes[1]), b_quant) if constant else model.input(shapes[1], b_quant)
    y = model.tensor([], output_quant(draw, a_quant, b_quant, inner))
    model.operator("BATCH_MATMUL", [a, b], [y], "BatchMatMulOptions", adjX=adjoint[0], adjY=adjoint[1])
    return model.content(y)


@family(16)
def batch_matmul(draw: Draw) -> bytes:
    adjoint = bool(draw.integer(0, 1)), bool(draw.integer(0, 1))
    broadcast = draw.integer(0, 1) == 1 and not adjoint[0]
    return matrices(draw, adjoint=adjoint, broadcast=broadcast, constant=bool(draw.index % 2))


@family(
    4,
    exception="LiteRT reads beyond a broadcast right matrix when the left ones are transposed",
    real=lambda a, b: np.swapaxes(a, 1, 2) @ b,
)
def batch_matmul_broadcast_adjoint(draw: Draw) -> bytes:
    return matrices(draw, adjoint=(True, False), broadcast=True, constant=False)

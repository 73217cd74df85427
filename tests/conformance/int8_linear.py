"""Convolutions, fully connected layers and matrix products on int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    return Quant(float(np.float32(spread * 10 ** draw.rng.uniform(-1.5, 1.5))), draw.zero())


def bias(draw: Draw, model: Flat, x: Quant, weight: Quant, outputs: int) -> int:
    scales = tuple(float(np.float32(x.scale * scale)) for scale in weight.scales)
    values = draw.rng.integers(-20000, 20000, outputs).astype(np.int32)
    return model.constant(values, Quant(scales if len(scales) > 1 else scales[0]))


def window(draw: Draw, extent: int) -> tuple[int, int]:
    """(kernel, dilation) that fit `extent` without padding."""
    kernel = draw.integer(1, min(extent, 4))
    most = (extent - 1) // max(kernel - 1, 1)
    return kernel, draw.integer(1, max(1, min(most, 2)))


@dataclass(frozen=True)
class Weights:
    """How a file stores weights: int8, packed int4, or uint8 with a zero point beside uint8 activations."""

    kind: str = "INT8"

    @property
    def activations(self) -> str:
        return "UINT8" if self.kind == "UINT8" else "INT8"

    def shifted(self, quant: Quant) -> Quant:
        """The grid of an activation."""
        return Quant(quant.scale, quant.zero_point + 128) if self.kind == "UINT8" else quant

    def quant(self, draw: Draw, outputs: int, axis: int = 0) -> Quant:
        if self.kind == "UINT8":
            return Quant(draw.scale(-3, -1), draw.turn(128, draw.integer(0, 255), draw.integer(1, 255)))
        per_channel = draw.turn(True, False, True)
        return draw.decades(outputs, axis) if per_channel else Quant(draw.scale(-3, -1))

    def constant(self, draw: Draw, model: Flat, shape: Sequence[int], quant: Quant) -> int:
        low, high = {"INT8": (-127, 127), "INT4": (-7, 7), "UINT8": (1 if draw.index % 2 else 0, 255)}[self.kind]
        return model.constant(draw.rng.integers(low, high + 1, shape).astype(np.int16), quant, self.kind)


INT8 = Weights()


def conv(draw: Draw, weights: Weights = INT8) -> bytes:
    model, x_quant = Flat(), draw.quant()
    groups = draw.pick(1, 1, 1, 2, 3) if weights.kind == "INT8" else 1
    depth, outputs = draw.integer(1, 9 // groups), groups * draw.integer(1, 9 // groups)
    shape = (draw.pick(1, 1, 2), draw.integer(1, 9), draw.integer(1, 9), groups * depth)
    (ky, dy), (kx, dx) = window(draw, shape[1]), window(draw, shape[2])
    x = model.input(shape, weights.shifted(x_quant), weights.activations)
    w_quant = weights.quant(draw, outputs)
    w = weights.constant(draw, model, (outputs, ky, kx, depth), w_quant)
    b = bias(draw, model, x_quant, w_quant, outputs)
    y = model.tensor([], weights.shifted(output_quant(draw, x_quant, w_quant, ky * kx * depth)), weights.activations)
    model.operator(
        "CONV_2D", [x, w, b], [y], "Conv2DOptions", padding=draw.pick(SAME, VALID), strideW=draw.integer(1, 3),
        strideH=draw.integer(1, 3), dilationWFactor=dx, dilationHFactor=dy,
        fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


def depthwise(draw: Draw, weights: Weights = INT8) -> bytes:
    model, x_quant = Flat(), draw.quant()
    shape = (1, draw.integer(1, 9), draw.integer(1, 9), draw.integer(1, 9))
    multiplier = draw.pick(1, 1, 2, 3)
    outputs = shape[3] * multiplier
    (ky, dy), (kx, dx) = window(draw, shape[1]), window(draw, shape[2])
    x = model.input(shape, weights.shifted(x_quant), weights.activations)
    w_quant = weights.quant(draw, outputs, 3)
    w = weights.constant(draw, model, (1, ky, kx, outputs), w_quant)
    b = bias(draw, model, x_quant, w_quant, outputs)
    y = model.tensor([], weights.shifted(output_quant(draw, x_quant, w_quant, ky * kx)), weights.activations)
    model.operator(
        "DEPTHWISE_CONV_2D", [x, w, b], [y], "DepthwiseConv2DOptions", padding=draw.pick(SAME, VALID),
        strideW=draw.integer(1, 3), strideH=draw.integer(1, 3), depthMultiplier=multiplier, dilationWFactor=dx,
        dilationHFactor=dy, fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


def transposed(draw: Draw, weights: Weights = INT8) -> bytes:
    model, x_quant = Flat(), draw.quant()
    shape = (1, draw.integer(1, 6), draw.integer(1, 6), draw.integer(1, 6))
    outputs, kernel, stride = (
        draw.integer(1, 6),
        (draw.integer(1, 4), draw.integer(1, 4)),
        (draw.integer(1, 3), draw.integer(1, 3)),
    )
    padding = draw.pick(SAME, VALID)
    sides = zip(shape[1:3], kernel, stride, strict=True)
    spatial = [n * s if padding == SAME else (n - 1) * s + k for n, k, s in sides]
    x = model.input(shape, weights.shifted(x_quant), weights.activations)
    w_quant = weights.quant(draw, outputs)
    w = weights.constant(draw, model, (outputs, *kernel, shape[3]), w_quant)
    size = model.constant([1, *spatial, outputs])
    inputs = [size, w, x, *([bias(draw, model, x_quant, w_quant, outputs)] if draw.integer(0, 1) else [])]
    y = model.tensor(
        [], weights.shifted(output_quant(draw, x_quant, w_quant, kernel[0] * kernel[1] * shape[3])), weights.activations
    )
    model.operator(
        "TRANSPOSE_CONV", inputs, [y], "TransposeConvOptions", padding=padding, strideW=stride[1], strideH=stride[0],
        fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


def dense(draw: Draw, w_quant: Quant, outputs: int, weights: Weights = INT8) -> bytes:
    model, x_quant = Flat(), draw.quant()
    depth, lead = draw.integer(1, 40), draw.pick((1,), (3,), (1, 4), (2, 1, 3))
    x = model.input((*lead, depth), weights.shifted(x_quant), weights.activations)
    w = weights.constant(draw, model, (outputs, depth), w_quant)
    b = bias(draw, model, x_quant, w_quant, outputs) if draw.integer(0, 4) else -1
    y = model.tensor([], weights.shifted(output_quant(draw, x_quant, w_quant, depth)), weights.activations)
    model.operator(
        "FULLY_CONNECTED", [x, w, b], [y], "FullyConnectedOptions", keepNumDims=bool(draw.integer(0, 1)),
        fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


@family(30)
def conv_2d(draw: Draw) -> bytes:
    return conv(draw)


@family(30)
def depthwise_conv_2d(draw: Draw) -> bytes:
    return depthwise(draw)


@family(20)
def transpose_conv(draw: Draw) -> bytes:
    return transposed(draw)


@family(12)
def conv_2d_uint8(draw: Draw) -> bytes:
    return conv(draw, Weights("UINT8"))


@family(12)
def depthwise_conv_2d_uint8(draw: Draw) -> bytes:
    return depthwise(draw, Weights("UINT8"))


@family(8)
def transpose_conv_uint8(draw: Draw) -> bytes:
    return transposed(draw, Weights("UINT8"))


@family(16, rounding=Rounding.LITERT)
def fully_connected_uint8(draw: Draw) -> bytes:
    weights = Weights("UINT8")
    return dense(draw, weights.quant(draw, 1), draw.integer(1, 12), weights)


@family(10)
def conv_2d_int4(draw: Draw) -> bytes:
    return conv(draw, Weights("INT4"))


@family(10)
def depthwise_conv_2d_int4(draw: Draw) -> bytes:
    return depthwise(draw, Weights("INT4"))


@family(10, rounding=Rounding.LITERT)
def fully_connected_int4(draw: Draw) -> bytes:
    outputs = draw.integer(2, 12)
    quant = draw.turn(draw.decades(outputs), Quant(draw.scale(-3, -1)))
    return dense(draw, quant, outputs, Weights("INT4"))


# LiteRT's kernel of fully connected layers rounds once; TensorFlow Lite Micro, the default policy, twice.


@family(20, rounding=Rounding.LITERT)
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

"""16-bit activations, 8-bit weights: random files of every operator that LiteRT has in this form.

Of fully connected layers LiteRT's kernels round with the whole multiplier, TensorFlow Lite Micro with 16 bits
of it; the first is policy `litert`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.conformance.family import Draw, Family
from tests.conformance.flat import Flat, Quant
from toolchain.config import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from toolchain.ir.types import Array

SAME, VALID = 0, 1
ACTIVATIONS = 4
INT16: dict[str, Family] = {}
UNIT = Quant(1 / 32768)


def samples(draw: Draw, details: Sequence[Any]) -> list[Array]:
    """Integers over the whole range, or reals."""
    return [noise(draw, detail["shape"], detail["dtype"]) for detail in details]


def positive(draw: Draw, details: Sequence[Any]) -> list[Array]:
    return [draw.rng.integers(1, 32768, detail["shape"]).astype(np.int16) for detail in details]


def noise(draw: Draw, shape: Sequence[int], dtype: type) -> Array:
    if dtype is np.float32:
        return draw.rng.normal(0, 3, shape).astype(np.float32)
    info = np.iinfo(dtype)
    return draw.rng.integers(info.min, info.max + 1, shape).astype(dtype)


def family(count: int, **facts: Any) -> Callable[[Callable[[Draw], bytes]], Callable[[Draw], bytes]]:
    """Register a builder of `count` cases of this module."""

    def register(build: Callable[[Draw], bytes]) -> Callable[[Draw], bytes]:
        INT16[build.__name__] = Family(build.__name__, build, count, **{"samples": samples, **facts})
        return build

    return register


def activation(draw: Draw) -> Quant:
    return Quant(draw.scale(-4.5, -3.0))


def output(draw: Draw, x: Quant, w: Quant, depth: int) -> Quant:
    """A scale under which most sums of `depth` products fit, or some saturate."""
    spread = x.scales[0] * float(np.mean(w.scales)) * 32768 * 40 * depth**0.5
    return Quant(float(np.float32(spread * 10 ** draw.rng.uniform(-1.0, 0.5) / 32768)))


def weights(draw: Draw, outputs: int, axis: int = 0) -> Quant:
    return draw.decades(outputs, axis) if draw.index % 4 else Quant(draw.scale(-4, -1))


def bias(draw: Draw, model: Flat, x: Quant, w: Quant, outputs: int, kind: str = "INT64") -> int:
    """int64 or int32 of some thousand steps."""
    values = draw.rng.integers(-(1 << 20), 1 << 20, outputs)
    scales = tuple(x.scales[0] * scale for scale in w.scales)
    return model.constant(values.astype(kind.lower()), Quant(scales), kind)


def bias_kind(draw: Draw) -> tuple[str, int]:
    """(element type, the option's number of it)."""
    return draw.pick(("INT64", 4), ("INT64", 4), ("INT32", 2))


def window(draw: Draw, extent: int) -> tuple[int, int]:
    """(kernel, dilation) that fit an extent."""
    kernel = draw.integer(1, min(3, extent))
    return kernel, draw.pick(1, 2) if kernel == 1 or (kernel - 1) * 2 < extent else 1


@family(20)
def conv_2d(draw: Draw) -> bytes:
    model, x_quant = Flat(), activation(draw)
    shape, outputs = (1, draw.integer(1, 8), draw.integer(1, 8), draw.pick(1, 3, 4, 9)), draw.integer(1, 9)
    (ky, dy), (kx, dx) = window(draw, shape[1]), window(draw, shape[2])
    x, w_quant = model.input(shape, x_quant, "INT16"), weights(draw, outputs)
    w = model.constant(draw.int8(outputs, ky, kx, shape[3], low=-127), w_quant)
    kind, number = bias_kind(draw)
    b = bias(draw, model, x_quant, w_quant, outputs, kind)
    y = model.tensor([], output(draw, x_quant, w_quant, ky * kx * shape[3]), "INT16")
    model.operator(
        "CONV_2D", [x, w, b], [y], "Conv2DOptions", padding=draw.pick(SAME, VALID), strideW=draw.integer(1, 2),
        strideH=draw.integer(1, 2), dilationWFactor=dx, dilationHFactor=dy, quantizedBiasType=number,
        fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


@family(2)
def conv_2d_of_many_channels(draw: Draw) -> bytes:
    """More products than 32 bits hold."""
    model, x_quant = Flat(), activation(draw)
    x, w_quant = model.input((1, 3, 3, 200), x_quant, "INT16"), draw.decades(3)
    w = model.constant(draw.int8(3, 3, 3, 200, low=-127), w_quant)
    b = bias(draw, model, x_quant, w_quant, 3)
    y = model.tensor([], output(draw, x_quant, w_quant, 1800), "INT16")
    model.operator("CONV_2D", [x, w, b], [y], "Conv2DOptions", strideW=1, strideH=1, quantizedBiasType=4)
    return model.content(y)


@family(14)
def depthwise_conv_2d(draw: Draw) -> bytes:
    model, x_quant = Flat(), activation(draw)
    shape = (1, draw.integer(1, 8), draw.integer(1, 8), draw.integer(1, 20))
    outputs = shape[3] * draw.pick(1, 1, 2)
    (ky, dy), (kx, dx) = window(draw, shape[1]), window(draw, shape[2])
    x, w_quant = model.input(shape, x_quant, "INT16"), weights(draw, outputs, 3)
    w = model.constant(draw.int8(1, ky, kx, outputs, low=-127), w_quant)
    b = bias(draw, model, x_quant, w_quant, outputs)
    y, stride = model.tensor([], output(draw, x_quant, w_quant, ky * kx), "INT16"), draw.integer(1, 2)
    model.operator(
        "DEPTHWISE_CONV_2D", [x, w, b], [y], "DepthwiseConv2DOptions", padding=draw.pick(SAME, VALID),
        strideW=stride, strideH=stride, depthMultiplier=outputs // shape[3], dilationWFactor=dx, dilationHFactor=dy,
        fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


@family(10)
def transpose_conv(draw: Draw) -> bytes:
    model, x_quant = Flat(), activation(draw)
    shape, outputs = (1, draw.integer(1, 5), draw.integer(1, 5), draw.integer(1, 5)), draw.integer(1, 5)
    kernel, stride, padding = (draw.integer(1, 3), draw.integer(1, 3)), draw.integer(1, 3), draw.pick(SAME, VALID)
    spatial = [n * stride if padding == SAME else (n - 1) * stride + k for n, k in zip(shape[1:3], kernel, strict=True)]
    x, w_quant = model.input(shape, x_quant, "INT16"), weights(draw, outputs)
    w = model.constant(draw.int8(outputs, *kernel, shape[3], low=-127), w_quant)
    size, (kind, number) = model.constant([1, *spatial, outputs]), bias_kind(draw)
    inputs = [size, w, x, *([bias(draw, model, x_quant, w_quant, outputs, kind)] if draw.integer(0, 2) else [])]
    y = model.tensor([], output(draw, x_quant, w_quant, kernel[0] * kernel[1] * shape[3]), "INT16")
    model.operator(
        "TRANSPOSE_CONV", inputs, [y], "TransposeConvOptions", padding=padding, strideW=stride, strideH=stride,
        quantizedBiasType=number, fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


@family(12, rounding=Rounding.LITERT)
def fully_connected(draw: Draw) -> bytes:
    model, x_quant, outputs = Flat(), activation(draw), draw.integer(2, 12)
    depth, lead = draw.pick(1, 7, 40, 700), draw.pick((1,), (3,), (1, 4))
    x, w_quant = model.input((*lead, depth), x_quant, "INT16"), draw.decades(outputs)
    w = model.constant(draw.int8(outputs, depth, low=-127), w_quant)
    b = bias(draw, model, x_quant, w_quant, outputs) if draw.integer(0, 3) else -1
    y = model.tensor([], output(draw, x_quant, w_quant, depth), "INT16")
    model.operator(
        "FULLY_CONNECTED", [x, w, b], [y], "FullyConnectedOptions", keepNumDims=bool(draw.integer(0, 1)),
        quantizedBiasType=4, fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


@family(8)
def batch_matmul(draw: Draw) -> bytes:
    model, a_quant, b_quant, adjoint = Flat(), activation(draw), activation(draw), bool(draw.index % 2)
    rows, inner, columns, lead = draw.integer(1, 5), draw.integer(1, 9), draw.integer(1, 5), draw.integer(1, 3)
    a = model.input((lead, rows, inner), a_quant, "INT16")
    b = model.input((lead, columns, inner) if adjoint else (lead, inner, columns), b_quant, "INT16")
    spread = a_quant.scales[0] * b_quant.scales[0] * 32768 * inner**0.5
    y = model.tensor([], Quant(float(np.float32(spread))), "INT16")
    model.operator("BATCH_MATMUL", [a, b], [y], "BatchMatMulOptions", adjY=adjoint)
    return model.content(y)


def pairwise(draw: Draw, kind: str, quants: tuple[Quant, Quant, Quant], options: str, **fields: Any) -> bytes:
    model, shape = Flat(), draw.shape(4, 5)
    other = draw.turn(shape, shape, (*[1] * 3, shape[3]), (1, 1, 1, 1), (1, shape[1], 1, shape[3]))
    a, b = model.input(shape, quants[0], "INT16"), model.input(other, quants[1], "INT16")
    y = model.tensor([], quants[2], "INT16")
    model.operator(kind, [a, b], [y], options, **fields)
    return model.content(y)


@family(8)
def add(draw: Draw) -> bytes:
    quants = activation(draw), activation(draw), activation(draw)
    code = draw.integer(0, ACTIVATIONS - 1)
    return pairwise(draw, "ADD", quants, "AddOptions", fusedActivationFunction=code, potScaleInt16=False)


@family(6)
def sub(draw: Draw) -> bytes:
    quants = activation(draw), activation(draw), activation(draw)
    code = draw.integer(0, ACTIVATIONS - 1)
    return pairwise(draw, "SUB", quants, "SubOptions", fusedActivationFunction=code, potScaleInt16=False)


@family(8)
def mul(draw: Draw) -> bytes:
    a, b = activation(draw), activation(draw)
    y = Quant(float(np.float32(a.scales[0] * b.scales[0] * 32768 * 10 ** draw.rng.uniform(-1, 1))))
    return pairwise(draw, "MUL", (a, b, y), "MulOptions", fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1))


@family(6)
def extreme(draw: Draw) -> bytes:
    quant = activation(draw)
    return pairwise(draw, draw.turn("MINIMUM", "MAXIMUM"), (quant,) * 3, "MaximumMinimumOptions")


@family(10)
def pool(draw: Draw) -> bytes:
    model, quant = Flat(), activation(draw)
    shape = (1, draw.integer(1, 8), draw.integer(1, 8), draw.pick(1, 5, 17))
    x, y = model.input(shape, quant, "INT16"), model.tensor([], quant, "INT16")
    model.operator(
        draw.turn("AVERAGE_POOL_2D", "MAX_POOL_2D"), [x], [y], "Pool2DOptions", padding=draw.pick(SAME, VALID),
        filterHeight=draw.integer(1, shape[1]), filterWidth=draw.integer(1, shape[2]), strideH=draw.integer(1, 3),
        strideW=draw.integer(1, 3), fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


@family(8)
def reduce(draw: Draw) -> bytes:
    model, quant, shape = Flat(), activation(draw), draw.shape(4, 6)
    kind = draw.turn("MEAN", "MEAN", "REDUCE_MAX", "REDUCE_MIN")
    axes = draw.pick([1, 2], [3], [1], [2, 3], [1, 3])
    x, y = model.input(shape, quant, "INT16"), model.tensor([], activation(draw) if kind == "MEAN" else quant, "INT16")
    model.operator(kind, [x, model.constant(axes)], [y], "ReducerOptions", keepDims=bool(draw.integer(0, 1)))
    return model.content(y)


def reduced(draw: Draw, kind: str) -> bytes:
    model, x_quant = Flat(), Quant(draw.scale(-4.0, -3.5))
    x, y = model.input((1, 5, 5, 7), x_quant, "INT16"), model.tensor([], Quant(draw.scale(-4.0, -3.0)), "INT16")
    model.operator(kind, [x, model.constant([3])], [y], "ReducerOptions", keepDims=False)
    return model.content(y)


@family(3, exception="LiteRT's reference kernel of SUM reads int16 tensors as bytes", real=lambda x: np.sum(x, axis=3))
def sum_of(draw: Draw) -> bytes:
    return reduced(draw, "SUM")


@family(
    3,
    floats="products have no integer form here",
    exception="LiteRT's reference kernel of REDUCE_PROD rounds after every factor, the C at the end",
    real=lambda x: np.prod(x, axis=3),
)
def product_of(draw: Draw) -> bytes:
    return reduced(draw, "REDUCE_PROD")


@family(6)
def softmax(draw: Draw) -> bytes:
    model = Flat()
    x = model.input((draw.integer(1, 3), draw.integer(1, 40)), Quant(draw.scale(-5.0, -2.0)), "INT16")
    y = model.tensor([], UNIT, "INT16")
    model.operator("SOFTMAX", [x], [y], "SoftmaxOptions", beta=draw.pick(1.0, 1.0, 0.5, 3.0))
    return model.content(y)


@family(8)
def sigmoid_and_tanh(draw: Draw) -> bytes:
    model = Flat()
    quant = draw.pick(Quant(draw.scale(-5.0, -1.5)), Quant(2.0**-12), Quant(2.0**-11))
    x, y = model.input((1, 200), quant, "INT16"), model.tensor([], UNIT, "INT16")
    model.operator(draw.turn("LOGISTIC", "TANH"), [x], [y])
    return model.content(y)


def unary(kind: str, x: Quant, y: Quant, options: str | None = None, **fields: Any) -> bytes:
    model = Flat()
    a, b = model.input((1, 200), x, "INT16"), model.tensor([], y, "INT16")
    model.operator(kind, [a], [b], options, **fields)
    return model.content(b)


@family(8)
def rescaled(draw: Draw) -> bytes:
    kind = draw.turn("RELU", "RELU6", "ABS")
    x = activation(draw)
    return unary(kind, x, draw.pick(x, activation(draw)))


@family(4)
def leaky_relu(draw: Draw) -> bytes:
    alpha = draw.pick(0.0, 0.1, 0.25, 1.5)
    return unary("LEAKY_RELU", activation(draw), activation(draw), "LeakyReluOptions", alpha=alpha)


@family(6)
def curve(draw: Draw) -> bytes:
    """EXP and GELU, by interpolation."""
    if draw.index % 3 == 0:
        return unary("EXP", activation(draw), Quant(draw.scale(-4.5, -2.0)))
    return unary("GELU", activation(draw), activation(draw), "GeluOptions", approximate=draw.index % 3 == 1)


@family(4, samples=positive)
def steep_curve(draw: Draw) -> bytes:
    """LOG and RSQRT of positive numbers."""
    return unary(draw.turn("LOG", "RSQRT"), activation(draw), activation(draw))


@family(8)
def requantize(draw: Draw) -> bytes:
    model = Flat()
    kinds = draw.turn(("INT16", "INT8"), ("INT16", "INT16"), ("FLOAT32", "INT16"))
    quants = [draw.quant() if kind == "INT8" else activation(draw) for kind in kinds]
    x = model.input((1, 200), None if kinds[0] == "FLOAT32" else quants[0], kinds[0])
    y = model.tensor([], quants[1], kinds[1])
    model.operator("QUANTIZE", [x], [y])
    return model.content(y)


@family(2)
def dequantize(draw: Draw) -> bytes:
    model = Flat()
    x, y = model.input((1, 50), activation(draw), "INT16"), model.tensor([], None, "FLOAT32")
    model.operator("DEQUANTIZE", [x], [y])
    return model.content(y)


@family(16)
def moved(draw: Draw) -> bytes:
    """Operators that only move values."""
    model, quant = Flat(), activation(draw)
    shape = (1, draw.integer(3, 5), draw.integer(3, 5), draw.integer(2, 5))
    x, y = model.input(shape, quant, "INT16"), model.tensor([], quant, "INT16")
    padding = np.array([[0, 0], [1, 2], [0, 1], [1, 0]], np.int32)
    kind, others, options, fields = draw.turn(
        ("PAD", [padding], "PadOptions", {}),
        ("MIRROR_PAD", [padding], "MirrorPadOptions", {"mode": draw.integer(0, 1)}),
        ("SLICE", [np.array([0, 1, 0, 1], np.int32), np.array([1, 2, -1, 1], np.int32)], "SliceOptions", {}),
        (
            "STRIDED_SLICE",
            list(np.array([[0, 0, 1, 0], [1, shape[1], 3, shape[3]], [1, 2, 1, draw.pick(1, 2)]], np.int32)),
            "StridedSliceOptions",
            {},
        ),
        ("TRANSPOSE", [np.array([0, 3, 1, 2], np.int32)], "TransposeOptions", {}),
        ("GATHER", [np.array([1, 0, 2], np.int32)], "GatherOptions", {"axis": 1}),
        ("RESIZE_NEAREST_NEIGHBOR", [np.array([7, 2], np.int32)], "ResizeNearestNeighborOptions", {}),
        ("RESIZE_BILINEAR", [np.array([draw.integer(1, 9), 6], np.int32)], "ResizeBilinearOptions", {}),
    )
    model.operator(kind, [x, *(model.constant(each) for each in others)], [y], options, **fields)
    return model.content(y)


@family(6)
def resize_bilinear(draw: Draw) -> bytes:
    model, quant = Flat(), activation(draw)
    x = model.input((1, draw.integer(1, 6), draw.integer(1, 6), 3), quant, "INT16")
    size, y = model.constant([draw.integer(1, 9), draw.integer(1, 9)]), model.tensor([], quant, "INT16")
    mode = draw.turn({}, {"alignCorners": True}, {"halfPixelCenters": True})
    model.operator("RESIZE_BILINEAR", [x, size], [y], "ResizeBilinearOptions", **mode)
    return model.content(y)


@family(6)
def joined(draw: Draw) -> bytes:
    """CONCATENATION and PACK of two or three, SPLIT and UNPACK into as many."""
    model, quant, count = Flat(), activation(draw), draw.integer(2, 3)
    kind = draw.turn("CONCATENATION", "PACK", "SPLIT", "UNPACK")
    if kind in {"SPLIT", "UNPACK"}:
        x = model.input((1, 4, count * (2 if kind == "SPLIT" else 1)), quant, "INT16")
        parts = [model.tensor([], quant, "INT16") for _ in range(count)]
        inputs = [model.constant(np.asarray(2, np.int32)), x] if kind == "SPLIT" else [x]
        fields = {"numSplits": count} if kind == "SPLIT" else {"num": count, "axis": 2}
        model.operator(kind, inputs, parts, f"{kind.capitalize()}Options", **fields)
        return model.content(*parts)
    inputs = [model.input((1, 3, 4), quant, "INT16") for _ in range(count)]
    y = model.tensor([], quant, "INT16")
    fields = {"axis": 1} if kind == "CONCATENATION" else {"axis": 1, "valuesCount": count}
    model.operator(kind, inputs, [y], f"{kind.capitalize()}Options", **fields)
    return model.content(y)

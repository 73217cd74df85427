"""Poolings, reductions, and operators that move values, on int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.conformance.family import Draw, family
from tests.conformance.flat import Flat, Quant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolchain.ir.types import Array

SAME, VALID = 0, 1
ACTIVATIONS = 4
INT32, INT64 = 2, 4


def near(draw: Draw, x: Quant) -> Quant:
    """Another grid about as fine."""
    return Quant(float(np.float32(x.scale * 10 ** draw.rng.uniform(-0.5, 0.5))), draw.zero())


@family(24)
def pools(draw: Draw) -> bytes:
    model, quant = Flat(), draw.quant()
    shape = (draw.pick(1, 2), draw.integer(1, 9), draw.integer(1, 9), draw.integer(1, 9))
    padding = draw.pick(SAME, VALID)
    height, width = (draw.integer(1, min(n, 5) if padding == VALID else 5) for n in shape[1:3])
    x, y = model.input(shape, quant), model.tensor([], quant)
    model.operator(
        draw.turn("AVERAGE_POOL_2D", "MAX_POOL_2D"), [x], [y], "Pool2DOptions", padding=padding,
        strideW=draw.integer(1, 3), strideH=draw.integer(1, 3), filterWidth=width, filterHeight=height,
        fusedActivationFunction=draw.integer(0, ACTIVATIONS - 1),
    )  # fmt: skip
    return model.content(y)


def reduced(
    draw: Draw, kind: str, x_quant: Quant, y_quant: Quant, *, axes: list[int] | None = None, keep: bool | None = None
) -> bytes:
    model, shape = Flat(), draw.shape(4, 9)
    axes = axes or draw.pick([1, 2], [3], [-1], [1], [2, 3], [1, 2, 3], [0, 2])
    keep = bool(draw.integer(0, 1)) if keep is None else keep
    x, y = model.input(shape, x_quant), model.tensor([], y_quant)
    model.operator(kind, [x, model.constant(axes)], [y], "ReducerOptions", keepDims=keep)
    return model.content(y)


@family(24)
def mean(draw: Draw) -> bytes:
    quant = draw.quant()
    return reduced(draw, "MEAN", quant, draw.pick(quant, near(draw, quant)))


def sum_quants(draw: Draw) -> tuple[Quant, Quant]:
    quant = draw.quant(-2.5, -1)
    return quant, Quant(float(np.float32(quant.scale * draw.rng.uniform(1, 8))), draw.zero())


@family(
    6,
    exception="LiteRT runs its uint8 kernel on int8, in the sum and in the result",
    real=lambda x: x.sum(axis=(1, 2)),
)
def sums(draw: Draw) -> bytes:
    return reduced(draw, "SUM", *sum_quants(draw), axes=[1, 2], keep=False)


def few(draw: Draw, details: Sequence[Any]) -> list[Array]:
    """Integers whose sums are the same as unsigned bytes."""
    return [draw.rng.integers(0, 3, detail["shape"]).astype(np.int8) for detail in details]


@family(12, samples=few)
def sums_of_positive(draw: Draw) -> bytes:
    quant, target = sum_quants(draw)
    return reduced(draw, "SUM", Quant(quant.scale, 0), Quant(target.scale, draw.pick(0, 20)))


@family(12)
def reduce_max_min(draw: Draw) -> bytes:
    quant = draw.quant()
    return reduced(draw, draw.turn("REDUCE_MAX", "REDUCE_MIN"), quant, quant)


@family(8)
def arg_max_min(draw: Draw) -> bytes:
    model, shape = Flat(), draw.shape(4)
    x, axis = model.input(shape, draw.quant()), model.constant([draw.integer(0, 3)])
    code = draw.pick(INT32, INT64)
    y = model.tensor([], None, {INT32: "INT32", INT64: "INT64"}[code])
    kind, options = draw.turn(("ARG_MAX", "ArgMaxOptions"), ("ARG_MIN", "ArgMinOptions"))
    model.operator(kind, [x, axis], [y], options, outputType=code)
    return model.content(y)


def paddings(draw: Draw, shape: tuple[int, ...], most: int) -> list[list[int]]:
    return [
        [draw.integer(0, min(most, n)), draw.integer(0, min(most, n))] if axis else [0, 0]
        for axis, n in enumerate(shape)
    ]


@family(18)
def pads(draw: Draw) -> bytes:
    model, quant, shape = Flat(), draw.quant(), draw.shape(4, 5)
    kind = draw.turn("PAD", "PADV2", "MIRROR_PAD")
    mode = draw.integer(0, 1)
    smaller = tuple(n - 1 for n in shape) if kind == "MIRROR_PAD" and not mode else shape
    x, y = model.input(shape, quant), model.tensor([], quant)
    inputs = [x, model.constant(paddings(draw, smaller, 3))]
    if kind == "PADV2":
        inputs.append(model.constant(draw.int8(1), quant))
    if kind == "MIRROR_PAD":
        model.operator(kind, inputs, [y], "MirrorPadOptions", mode=mode)
    else:
        model.operator(kind, inputs, [y], "PadOptions" if kind == "PAD" else "PadV2Options")
    return model.content(y)


@family(16)
def concatenation(draw: Draw) -> bytes:
    model, shape, quant = Flat(), list(draw.shape(4, 5)), draw.quant()
    axis, parts = draw.integer(1, 3), []
    for _ in range(draw.integer(2, 4)):
        shape[axis] = draw.integer(1, 5)
        parts.append(model.input(tuple(shape), quant))
    y = model.tensor([], quant)
    model.operator("CONCATENATION", parts, [y], "ConcatenationOptions", axis=draw.pick(axis, axis - 4))
    return model.content(y)


@family(10)
def splits(draw: Draw) -> bytes:
    model, quant, shape, axis = Flat(), draw.quant(), list(draw.shape(4, 5)), draw.integer(1, 3)
    count = draw.integer(1, 3)
    if draw.turn(True, False):
        shape[axis] = count * draw.integer(1, 3)
        x, outputs = model.input(shape, quant), [model.tensor([], quant) for _ in range(count)]
        model.operator("SPLIT", [model.constant(axis), x], outputs, "SplitOptions", numSplits=count)
    else:
        sizes = [draw.integer(1, 3) for _ in range(count)]
        shape[axis] = sum(sizes)
        x, outputs = model.input(shape, quant), [model.tensor([], quant) for _ in range(count)]
        given = [*sizes[:-1], draw.pick(-1, sizes[-1])]
        model.operator(
            "SPLIT_V", [x, model.constant(given), model.constant(axis)], outputs, "SplitVOptions", numSplits=count
        )
    return model.content(*outputs)


@family(16)
def slices(draw: Draw) -> bytes:
    model, quant, shape = Flat(), draw.quant(), draw.shape(4)
    x, y = model.input(shape, quant), model.tensor([], quant)
    begin = [draw.integer(0, n - 1) for n in shape]
    if draw.turn(True, False):
        size = [draw.pick(-1, draw.integer(1, n - b)) for n, b in zip(shape, begin, strict=True)]
        model.operator("SLICE", [x, model.constant(begin), model.constant(size)], [y], "SliceOptions")
        return model.content(y)
    end = [draw.integer(b + 1, n) for n, b in zip(shape, begin, strict=True)]
    steps = [draw.integer(1, 3) for _ in shape]
    for axis in (1, 2):
        if draw.integer(0, 3) == 0:
            begin[axis], end[axis], steps[axis] = shape[axis] - 1, -shape[axis] - 1, -draw.integer(1, 2)
    masks = {"beginMask": draw.integer(0, 15), "endMask": draw.integer(0, 15), "shrinkAxisMask": draw.pick(0, 0, 2, 8)}
    for axis in range(4):  # an axis that is dropped goes forward
        if masks["shrinkAxisMask"] >> axis & 1:
            begin[axis], end[axis], steps[axis] = 0, 1, 1
    model.operator(
        "STRIDED_SLICE", [x, *(model.constant(v) for v in (begin, end, steps))], [y], "StridedSliceOptions", **masks
    )
    return model.content(y)


@family(12)
def packs(draw: Draw) -> bytes:
    model, quant, shape = Flat(), draw.quant(), draw.shape(3, 5)
    if draw.turn(True, False):
        parts, y = [model.input(shape, quant) for _ in range(draw.integer(1, 4))], model.tensor([], quant)
        model.operator("PACK", parts, [y], "PackOptions", valuesCount=len(parts), axis=draw.integer(-3, 3))
        return model.content(y)
    axis = draw.integer(1, 2)
    outputs = [model.tensor([], quant) for _ in range(shape[axis])]
    model.operator(
        "UNPACK",
        [model.input(shape, quant)],
        outputs,
        "UnpackOptions",
        num=len(outputs),
        axis=draw.pick(axis, axis - 3),
    )
    return model.content(*outputs)


@family(10)
def gather(draw: Draw) -> bytes:
    model, quant, shape = Flat(), draw.quant(), draw.shape(4)
    axis = draw.integer(1, 3)
    indices = draw.rng.integers(0, shape[axis], draw.pick((), (3,), (2, 2))).astype(np.int32)
    x, y = model.input(shape, quant), model.tensor([], quant)
    model.operator("GATHER", [x, model.constant(indices)], [y], "GatherOptions", axis=draw.pick(axis, axis - 4))
    return model.content(y)


@family(18)
def reshapes(draw: Draw) -> bytes:
    model, quant, shape = Flat(), draw.quant(), (1, draw.integer(1, 5), 1, draw.integer(2, 6))
    x, y = model.input(shape, quant), model.tensor([], quant)
    kind = draw.turn("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE")
    if kind == "RESHAPE":
        model.operator(kind, [x, model.constant([shape[3], -1])], [y], "ReshapeOptions")
    elif kind == "SQUEEZE":
        model.operator(kind, [x], [y], "SqueezeOptions", squeezeDims=draw.pick([], [2], [-2], [0, 2]))
    elif kind == "EXPAND_DIMS":
        model.operator(kind, [x, model.constant(draw.integer(-5, 4))], [y], "ExpandDimsOptions")
    else:
        order = [int(axis) for axis in draw.rng.permutation(4)]
        model.operator(kind, [x, model.constant(order)], [y], "TransposeOptions")
    return model.content(y)


@family(24)
def resizes(draw: Draw) -> bytes:
    model, quant, shape = Flat(), draw.quant(), draw.shape(4, 8)
    kind, options = draw.turn(
        ("RESIZE_BILINEAR", "ResizeBilinearOptions"), ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions")
    )
    x, y, size = model.input(shape, quant), model.tensor([], quant), [draw.integer(1, 12), draw.integer(1, 12)]
    corners, centers = draw.pick((False, False), (True, False), (False, True))
    model.operator(kind, [x, model.constant(size)], [y], options, alignCorners=corners, halfPixelCenters=centers)
    return model.content(y)


@family(8)
def blocks(draw: Draw) -> bytes:
    model, quant, block = Flat(), draw.quant(), draw.integer(1, 3)
    x, y = (draw.integer(1, 4) for _ in range(2))
    depth = draw.integer(1, 3)
    if draw.turn(True, False):
        source = model.input((1, y * block, x * block, depth), quant)
        target = model.tensor([], quant)
        model.operator("SPACE_TO_DEPTH", [source], [target], "SpaceToDepthOptions", blockSize=block)
    else:
        source = model.input((1, y, x, depth * block * block), quant)
        target = model.tensor([], quant)
        model.operator("DEPTH_TO_SPACE", [source], [target], "DepthToSpaceOptions", blockSize=block)
    return model.content(target)


@family(8)
def repeats(draw: Draw) -> bytes:
    model, quant, shape = Flat(), draw.quant(), draw.shape(3, 4)
    x, y = model.input(shape, quant), model.tensor([], quant)
    kind = draw.turn("TILE", "REVERSE_V2", "BROADCAST_TO")
    if kind == "TILE":
        model.operator(kind, [x, model.constant([draw.integer(1, 3) for _ in shape])], [y], "TileOptions")
    elif kind == "REVERSE_V2":
        model.operator(kind, [x, model.constant([draw.integer(1, 2)])], [y], "ReverseV2Options")
    else:
        wide = [draw.integer(1, 3) if n == 1 else n for n in shape]
        model.operator(kind, [x, model.constant([2, *wide])], [y], "BroadcastToOptions")
    return model.content(y)

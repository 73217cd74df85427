"""Operators that move values or state shapes."""

from __future__ import annotations

import math

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.layer import Layer, handles
from toolchain.ir.types import DType
from toolchain.ops.indexing import Pad
from toolchain.ops.joining import Concat, Split
from toolchain.ops.shape import DepthToSpace, Expand, Reshape, SpaceToDepth, Tile, Transpose

LARGEST_CONSTANT = 1 << 24
"""Elements of constants that are computed at import."""


def reshaped(layer: Layer, x: str, shape: tuple[int, ...], index: int = 0) -> str:
    """The values of `x` as an output of this shape."""
    if layer.builder.shape(x) == shape:
        return layer.result(x, index)
    return layer.emit(Reshape(shape), x, index=index)


@handles("RESHAPE")
def reshape(layer: Layer) -> str:
    """To the shape of the second input, or of the option."""
    wanted = layer.integers(1, "shape") if layer.has(1) else tuple(layer.get("NewShape", ()))
    if wanted.count(-1) > 1 or min(wanted, default=1) < -1:
        raise ValueError(f"cannot reshape {layer.shape} to {list(wanted)}")
    if -1 in wanted:
        known = math.prod(extent for extent in wanted if extent != -1)
        wanted = tuple(math.prod(layer.shape) // max(known, 1) if extent == -1 else extent for extent in wanted)
    return reshaped(layer, layer.x, wanted)


@handles("SQUEEZE")
def squeeze(layer: Layer) -> str:
    """Without the named axes of length one, or all of them."""
    named = {layer.axis(int(axis)) for axis in layer.get("SqueezeDims", ())}
    if any(layer.shape[axis] != 1 for axis in named):
        raise ValueError(f"cannot squeeze axes {sorted(named)} of {layer.shape}")
    dropped = named or {axis for axis, extent in enumerate(layer.shape) if extent == 1}
    return reshaped(layer, layer.x, tuple(n for axis, n in enumerate(layer.shape) if axis not in dropped))


@handles("EXPAND_DIMS")
def expand_dims(layer: Layer) -> str:
    """With one more axis of length one."""
    axis = layer.axis(layer.integers(1, "axis")[0], layer.rank + 1)
    return reshaped(layer, layer.x, (*layer.shape[:axis], 1, *layer.shape[axis:]))


@handles("TRANSPOSE")
def transpose(layer: Layer) -> str:
    """Axes in another order."""
    order = tuple(layer.axis(axis) for axis in layer.integers(1, "permutation"))
    return layer.emit(Transpose(order), layer.x)


@handles("CONCATENATION")
def concatenation(layer: Layer) -> str:
    """The inputs after one another."""
    axis = layer.axis(int(layer.get("Axis", 0)))
    if len({layer.type(index).quant is None for index in range(len(layer.inputs))}) > 1:
        raise NoCFormError("quantized and float operands mixed, expected both int8 or both float32")
    parts = [layer.rescaled(name) if layer.type(0).dtype is DType.INT16 else name for name in layer.inputs]
    return layer.clamped(layer.emit(Concat(axis), *parts))


@handles("PACK")
def pack(layer: Layer) -> str:
    """The inputs along a new axis."""
    axis = layer.axis(int(layer.get("Axis", 0)), layer.rank + 1)
    shape = (*layer.shape[:axis], 1, *layer.shape[axis:])
    parts = [layer.reshape(name, shape) for name in layer.inputs]
    return layer.result(parts[0]) if len(parts) == 1 else layer.emit(Concat(axis), *parts)


@handles("UNPACK")
def unpack(layer: Layer) -> tuple[str, ...]:
    """One output per index of an axis."""
    axis = layer.axis(int(layer.get("Axis", 0)))
    count = layer.shape[axis]
    if len(layer.declared) != count:
        raise ValueError(f"{len(layer.declared)} outputs, expected {count}")
    shape = (*layer.shape[:axis], *layer.shape[axis + 1 :])
    parts = layer.emit_all(Split(axis, (1,) * count), layer.x, indices=range(count)) if count > 1 else (layer.x,)
    return tuple(reshaped(layer, part, shape, index) for index, part in enumerate(parts))


@handles("SPLIT")
def split(layer: Layer) -> tuple[str, ...]:
    """Equal parts; inputs are the axis and the values."""
    x, count = layer.operand(1), len(layer.declared)
    shape = layer.builder.shape(x)
    axis = layer.axis(layer.integers(0, "axis")[0], len(shape))
    if shape[axis] % count:
        raise ValueError(f"{count} parts of axis {axis} of {shape}, expected equal ones")
    return _split(layer, x, axis, (shape[axis] // count,) * count)


@handles("SPLIT_V")
def split_v(layer: Layer) -> tuple[str, ...]:
    """Parts of given sizes, of which one may be open."""
    sizes = layer.integers(1, "sizes")
    axis = layer.axis(layer.integers(2, "axis")[0])
    rest = layer.shape[axis] - sum(size for size in sizes if size >= 0)
    return _split(layer, layer.x, axis, tuple(size if size >= 0 else rest for size in sizes))


def _split(layer: Layer, x: str, axis: int, sizes: tuple[int, ...]) -> tuple[str, ...]:
    if min(sizes) < 1:
        raise ValueError(f"parts of sizes {list(sizes)}, expected positive numbers")
    if len(sizes) == 1:
        return (layer.result(x),)
    return layer.emit_all(Split(axis, sizes), x, indices=range(len(sizes)))


def pairs_of(layer: Layer, index: int, role: str) -> tuple[tuple[int, int], ...]:
    """A constant (n, 2) of integers."""
    flat = layer.integers(index, role)
    if len(flat) % 2:
        raise ValueError(f"{role} of {len(flat)} numbers, expected pairs")
    return tuple(zip(flat[::2], flat[1::2], strict=True))


@handles("PAD", "PADV2")
def pad(layer: Layer) -> str:
    """Zeros, or a constant, around."""
    value = 0.0
    if layer.has(2):
        number = layer.constant_value(2, "value")
        quant = layer.type(2).quant
        if quant != layer.declared[0].quant:
            raise NoCFormError("value and output have different scales, expected one")
        value = float(number.reshape(-1)[0])
        if quant is not None:
            value = quant.scale[0] * (value - quant.zero_point)
    if layer.quantized and layer.type(0).quant != layer.declared[0].quant:
        raise NoCFormError("input and output have different scales, expected one")
    return layer.emit(Pad(pairs_of(layer, 1, "padding"), "constant", value), layer.x)


@handles("MIRROR_PAD")
def mirror_pad(layer: Layer) -> str:
    """Values mirrored around the edge: REFLECT leaves the edge itself out."""
    mode = "symmetric" if int(layer.get("Mode", 0)) else "reflect"
    padding = pairs_of(layer, 1, "padding")
    limits = [extent - (mode == "reflect") for extent in layer.shape]
    if len(padding) != layer.rank or any(max(pair) > most for pair, most in zip(padding, limits, strict=True)):
        raise ValueError(f"padding {padding} does not fit the shape {layer.shape}")
    return layer.emit(Pad(padding, mode), layer.x)  # type: ignore[arg-type]


@handles("TILE")
def tile(layer: Layer) -> str:
    """Repeated along each axis."""
    return layer.emit(Tile(layer.integers(1, "multiples")), layer.x)


@handles("BROADCAST_TO")
def broadcast_to(layer: Layer) -> str:
    """Repeated to a shape."""
    return layer.emit(Expand(layer.integers(1, "shape")), layer.x)


@handles("SPACE_TO_DEPTH")
def space_to_depth(layer: Layer) -> str:
    """Blocks of pixels become channels."""
    layer.check_rank(4)
    return layer.emit(SpaceToDepth(_block(layer)), layer.x)


@handles("DEPTH_TO_SPACE")
def depth_to_space(layer: Layer) -> str:
    """Channels become blocks of pixels."""
    layer.check_rank(4)
    return layer.emit(DepthToSpace(_block(layer)), layer.x)


def _block(layer: Layer) -> int:
    block = int(layer.option("BlockSize"))
    if block < 1:
        raise ValueError(f"block size {block}, expected a positive number")
    return block


@handles("SHAPE")
def shape_of(layer: Layer) -> str:
    """Known at import."""
    return layer.constant(np.asarray(layer.shape, layer.declared[0].dtype.numpy), "shape")


@handles("RANK")
def rank_of(layer: Layer) -> str:
    """Known at import."""
    return layer.constant(np.asarray(layer.rank, np.int32), "rank")


@handles("FILL")
def fill(layer: Layer) -> str:
    """One number in every place."""
    number, shape = layer.constant_value(1, "value"), layer.integers(0, "shape")
    if min(shape, default=1) < 0 or math.prod(shape) > LARGEST_CONSTANT:
        raise ValueError(f"impossible shape {list(shape)}")
    return layer.constant(np.full(shape, number.reshape(-1)[0], number.dtype), "filled", layer.type(1).quant)


@handles("RANGE")
def number_range(layer: Layer) -> str:
    """Numbers from the first input up to the second, by the third."""
    start, limit, step = (layer.constant_value(index, "limit").reshape(-1)[0].item() for index in range(3))
    if not step or not abs((limit - start) / step) < LARGEST_CONSTANT:
        raise ValueError(f"a range from {start} to {limit} by {step}")
    return layer.constant(np.arange(start, limit, step, dtype=layer.type(0).dtype.numpy), "range")

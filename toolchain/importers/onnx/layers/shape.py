"""Operators that move values or change the shape, and the ones that ask for shapes."""

from __future__ import annotations

import math

import numpy as np

from toolchain.importers.layer import NoCFormError, normal_axis
from toolchain.importers.onnx.layer import Layer, handles
from toolchain.ops.joining import Concat, Split
from toolchain.ops.shape import DepthToSpace, Expand, SpaceToDepth, Tile


@handles("Shape")
def shape(layer: Layer) -> str:
    """The shape is static, so this is a constant."""
    start, end = layer.get("start", 0), layer.get("end", None)
    return layer.constant(np.asarray(layer.shape[slice(start, end)], np.int64))


@handles("Size")
def size(layer: Layer) -> str:
    """The number of elements, a constant."""
    return layer.constant(np.asarray(math.prod(layer.shape), np.int64))


@handles("Reshape")
def reshape(layer: Layer) -> str:
    """0 copies an extent, -1 takes what is left."""
    wanted = layer.integers(1, "shape", "target shape")
    if wanted is None:
        raise ValueError("no target shape, expected a constant input")
    return layer.reshape(layer.x, resolved(layer, wanted))


def resolved(layer: Layer, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The target shape with 0 and -1 replaced. Raises ValueError when the elements do not match."""
    found, allow_zero = layer.shape, layer.get("allowzero", 0)
    target = list(wanted)
    for axis, extent in enumerate(target):
        if extent == 0 and not allow_zero:
            if axis >= len(found):
                raise ValueError(f"target shape {list(wanted)} copies axis {axis}, the input has shape {found}")
            target[axis] = found[axis]
    known = math.prod(extent for extent in target if extent != -1)
    if target.count(-1) == 1 and known > 0 and math.prod(found) % known == 0:
        target[target.index(-1)] = math.prod(found) // known
    if min(target, default=1) < 0 or math.prod(target) != math.prod(found):
        raise ValueError(f"target shape {list(wanted)}, the input has shape {found} ({math.prod(found)} elements)")
    return tuple(target)


@handles("Flatten")
def flatten(layer: Layer) -> str:
    """To two axes, split before `axis`."""
    axis = int(layer.get("axis", 1))
    axis += layer.rank if axis < 0 else 0
    if not 0 <= axis <= layer.rank:
        raise ValueError(f"axis {axis}, expected 0 to {layer.rank}")
    return layer.reshape(layer.x, (math.prod(layer.shape[:axis]), math.prod(layer.shape[axis:])))


@handles("Squeeze")
def squeeze(layer: Layer) -> str:
    """Drop axes of extent 1."""
    axes = layer.integers(1, "axes")
    if axes is None:
        dropped = {axis for axis, extent in enumerate(layer.shape) if extent == 1}
    else:
        dropped = {normal_axis(axis, layer.rank) for axis in axes}
    if any(layer.shape[axis] != 1 for axis in dropped):
        raise ValueError(f"axes {sorted(dropped)} of shape {layer.shape}, expected extents of 1")
    return layer.reshape(layer.x, [extent for axis, extent in enumerate(layer.shape) if axis not in dropped])


@handles("Unsqueeze")
def unsqueeze(layer: Layer) -> str:
    """Insert axes of extent 1."""
    axes = layer.integers(1, "axes")
    if axes is None:
        raise ValueError("no axes, expected at least one")
    rank = layer.rank + len(axes)
    new = {normal_axis(axis, rank) for axis in axes}
    if len(new) != len(axes):
        raise ValueError(f"axes {list(axes)}, expected different ones")
    old = iter(layer.shape)
    return layer.reshape(layer.x, [1 if axis in new else next(old) for axis in range(rank)])


@handles("Transpose")
def transpose(layer: Layer) -> str:
    """Permute axes; reversed when no permutation is given."""
    permutation = tuple(int(i) for i in layer.get("perm", range(layer.rank)[::-1]))
    if sorted(permutation) != list(range(layer.rank)):
        raise ValueError(f"perm {list(permutation)}, expected a permutation of {layer.rank} axes")
    return layer.transpose(layer.x, permutation)


@handles("Concat")
def concat(layer: Layer) -> str:
    """Join along an axis; empty inputs vanish."""
    axis = layer.axis(1)
    parts = [name for name in layer.inputs if math.prod(layer.builder.shape(name))]
    return parts[0] if len(parts) == 1 else layer.add(Concat(axis), *parts)


@handles("Split")
def split(layer: Layer) -> tuple[str, ...]:
    """Parts of given sizes, or equal ones (the last smaller where it does not divide)."""
    axis, count = layer.axis(0), len(layer.outputs)
    extent = layer.shape[axis]
    sizes = layer.integers(1, "split")
    if sizes is None:
        part = -(-extent // count)
        sizes = (*(part,) * (count - 1), extent - part * (count - 1))
    if len(sizes) != count or sum(sizes) != extent or min(sizes) < 1:
        raise ValueError(f"parts {list(sizes)} of axis {axis}, expected {count} of sum {extent}")
    return (layer.x,) if count == 1 else layer.add_all(Split(axis, sizes), layer.x, count=count)


@handles("Expand")
def expand(layer: Layer) -> str:
    """Broadcast to a shape (both ways)."""
    wanted = layer.integers(1, "shape", "target shape") or ()
    target = np.broadcast_shapes(layer.shape, wanted)
    return layer.x if target == layer.shape else layer.add(Expand(target), layer.x)


@handles("Tile")
def tile(layer: Layer) -> str:
    """Repeat along axes."""
    repeats = layer.integers(1, "repeats")
    if repeats is None or len(repeats) != layer.rank or min(repeats, default=1) < 1:
        raise ValueError(f"repeats {repeats}, expected {layer.rank} positive numbers")
    return layer.x if set(repeats) <= {1} else layer.add(Tile(repeats), layer.x)


@handles("SpaceToDepth", "DepthToSpace")
def depth_and_space(layer: Layer) -> str:
    """Move blocks of pixels into channels, or back."""
    if layer.rank != 4:
        raise ValueError(f"input of shape {layer.shape}, expected rank 4")
    block = int(layer.get("blocksize", 0))
    if block < 1:
        raise ValueError(f"blocksize {block}, expected 1 or more")
    to_depth = layer.kind == "SpaceToDepth"
    if to_depth and layer.get("mode", "DCR") != "DCR":
        raise NoCFormError(f"mode {layer.get('mode', 'DCR')}, expected DCR")
    op = SpaceToDepth(block) if to_depth else DepthToSpace(block, layer.get("mode", "DCR"))
    return layer.channels_first(layer.add(op, layer.channels_last(layer.x)))


@handles("ConstantOfShape", "Range", "OneHot", "EyeLike", "NonZero")
def only_constant(layer: Layer) -> str:
    """Computed at import when its inputs are constant, which was tried before."""
    raise NoCFormError(f"{len(layer.inputs)} input(s) computed at run time, expected constants")

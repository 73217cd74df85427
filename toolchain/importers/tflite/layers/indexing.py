"""SLICE, STRIDED_SLICE, REVERSE_V2 and GATHER."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.layer import Layer, handles
from toolchain.importers.tflite.layers.shape import reshaped
from toolchain.ops.indexing import END, Gather, Slice


@dataclass(slots=True)
class Cut:
    """Bounds per axis of the input, and the shape that is left when axes are dropped and added."""

    start: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)

    def take(self, part: slice, extent: int, *, drop: bool = False) -> None:
        """Cut the next axis."""
        start, stop, step = part.indices(extent)
        length = len(range(start, stop, step))
        if not length:
            raise ValueError(f"slice {part.start}:{part.stop}:{part.step} of {extent} is empty")
        whole = not self.start and (start, stop, step) == (0, extent, 1) and not drop
        self.start.append(start)
        self.stop.append(END if whole else stop)
        self.step.append(step)
        if not drop:
            self.shape.append(length)

    def op(self) -> Slice:
        """The operator."""
        return Slice(tuple(self.start), tuple(self.stop), tuple(self.step))


def _cut(layer: Layer, cut: Cut) -> str:
    shape = tuple(cut.shape)
    op = cut.op()
    if op.infer(layer.type(0))[0].shape == shape:
        return layer.emit(op, layer.x)
    return reshaped(layer, layer.move(op, layer.x), shape)


@handles("SLICE")
def slice_(layer: Layer) -> str:
    """Begin and size per axis; size -1 goes to the end."""
    begins, sizes = layer.integers(1, "begin"), layer.integers(2, "size")
    cut = Cut()
    for extent, begin, size in zip(layer.shape, begins, sizes, strict=True):
        if begin < 0 or size < -1 or begin + max(size, 0) > extent:
            raise ValueError(f"begin {list(begins)} and size {list(sizes)} of {layer.shape}")
        cut.take(slice(begin, extent if size < 0 else begin + size), extent)
    return _cut(layer, cut)


@handles("STRIDED_SLICE")
def strided_slice(layer: Layer) -> str:
    """TensorFlow's indexing: masks leave bounds open, spread an ellipsis, add or drop axes."""
    begins, ends, steps = (layer.integers(index, role) for index, role in ((1, "begin"), (2, "end"), (3, "strides")))
    masks = {name: int(layer.get(f"{name}Mask", 0)) for name in ("Begin", "End", "Ellipsis", "NewAxis", "ShrinkAxis")}
    masks["NewAxis"] &= ~masks["Ellipsis"]
    count = len(begins)
    spread = next((i for i in range(count) if masks["Ellipsis"] >> i & 1), count)
    named = sum(1 for i in range(count) if i != spread and not masks["NewAxis"] >> i & 1)
    if named > layer.rank or len(ends) != count or len(steps) != count:
        raise ValueError(f"bounds {list(begins)}:{list(ends)}:{list(steps)} of {layer.shape}")
    cut, axes = Cut(), iter(layer.shape)
    for i in range(count + (spread == count)):
        if i == spread:
            for _ in range(layer.rank - named):
                cut.take(slice(None), next(axes))
        elif masks["NewAxis"] >> i & 1:
            cut.shape.append(1)
        else:
            end = ends[i] + begins[i] if layer.get("Offset", False) else ends[i]
            flags = {name: bool(mask >> i & 1) for name, mask in masks.items()}
            _take(cut, next(axes), (begins[i], end, steps[i]), flags)
    return _cut(layer, cut)


def _take(cut: Cut, extent: int, bounds: tuple[int, int, int], flags: dict[str, bool]) -> None:
    begin, end, step = bounds
    if not step:
        raise ValueError("a stride of 0")
    if flags["ShrinkAxis"]:
        begin = 0 if flags["Begin"] else begin
        if not -extent <= begin < extent:
            raise ValueError(f"index {begin} of {extent}")
        begin %= extent
        cut.take(slice(begin, begin + 1), extent, drop=True)
        return
    cut.take(slice(None if flags["Begin"] else begin, None if flags["End"] else end, step), extent)


@handles("REVERSE_V2")
def reverse(layer: Layer) -> str:
    """Backwards along axes."""
    axes = {layer.axis(axis) for axis in layer.integers(1, "axes")}
    cut = Cut()
    for axis, extent in enumerate(layer.shape):
        cut.take(slice(None, None, -1 if axis in axes else 1), extent)
    return _cut(layer, cut)


@handles("GATHER")
def gather(layer: Layer) -> str:
    """Elements by constant indices along one axis."""
    if int(layer.get("BatchDims", 0)):
        raise NoCFormError(f"batch_dims {layer.get('BatchDims', 0)}, expected 0")
    axis = layer.axis(int(layer.get("Axis", 0)))
    index = layer.constant_value(1, "indices")
    if index.size and not 0 <= int(np.min(index)) <= int(np.max(index)) < layer.shape[axis]:
        raise ValueError(f"indices from {np.min(index)} to {np.max(index)} of axis {axis} of {layer.shape}")
    indices = tuple(int(i) for i in index.reshape(-1))
    return layer.emit(Gather(axis, indices, index.shape), layer.x)

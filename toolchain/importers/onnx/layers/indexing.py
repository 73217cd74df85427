"""Slice, Pad and Gather."""

from __future__ import annotations

import math

from toolchain.importers.layer import NoCFormError, normal_axis
from toolchain.importers.onnx.layer import Layer, handles, pairs
from toolchain.ops.indexing import Gather, Pad, Slice


def sliced(layer: Layer, x: str, start: list[int], stop: list[int], step: list[int]) -> str:
    """A normalised slice; the tensor itself when nothing is cut."""
    shape = layer.builder.shape(x)
    if start == [0] * len(shape) and tuple(stop) == shape and set(step) <= {1}:
        return x
    return layer.add(Slice(tuple(start), tuple(stop), tuple(step)), x)


@handles("Slice")
def slice_(layer: Layer) -> str:
    """Bounds are attributes before opset 10, then inputs; out-of-range bounds are clipped as numpy does."""
    starts, ends = layer.integers(1, "starts"), layer.integers(2, "ends")
    if starts is None or ends is None:
        raise ValueError("no starts or ends, expected one per axis")
    axes = layer.integers(3, "axes") or tuple(range(len(starts)))
    steps = layer.integers(4, "steps") or (1,) * len(starts)
    start, stop, step = [0] * layer.rank, list(layer.shape), [1] * layer.rank
    for axis, begin, end, stride in zip(axes, starts, ends, steps, strict=True):
        if stride == 0:
            raise ValueError("a step of 0, expected another number")
        where = normal_axis(axis, layer.rank)
        start[where], stop[where], step[where] = slice(begin, end, stride).indices(layer.shape[where])
        if not range(start[where], stop[where], stride):
            raise ValueError(f"[{begin}:{end}:{stride}] of axis {where} with extent {layer.shape[where]} is empty")
    return sliced(layer, layer.x, start, stop, step)


@handles("Pad")
def pad(layer: Layer) -> str:
    """Pads are attributes before opset 11, then inputs; negative ones cut."""
    mode = layer.get("mode", "constant")
    if mode not in {"constant", "reflect", "edge", "wrap"}:
        raise NoCFormError(f"mode {mode}, expected constant, reflect, edge or wrap")
    padding = _padding(layer)
    x = _cropped(layer, padding)
    grown = tuple((max(begin, 0), max(end, 0)) for begin, end in padding)
    return layer.add(Pad(grown, mode, _fill(layer)), x) if any(map(any, grown)) else x


def _padding(layer: Layer) -> tuple[tuple[int, int], ...]:
    given = layer.integers(1, "pads")
    if given is None:
        given = tuple(layer.get("paddings", ()))
    axes = layer.integers(3, "axes") or tuple(range(layer.rank))
    if len(given) != 2 * len(axes):
        raise ValueError(f"pads {list(given)}, expected {2 * len(axes)} numbers")
    padding = [(0, 0)] * layer.rank
    for axis, pair in zip(axes, pairs(given), strict=True):
        padding[normal_axis(axis, layer.rank)] = pair
    return tuple(padding)


def _cropped(layer: Layer, padding: tuple[tuple[int, int], ...]) -> str:
    start = [max(-begin, 0) for begin, _ in padding]
    stop = [extent - max(-end, 0) for extent, (_, end) in zip(layer.shape, padding, strict=True)]
    if any(first >= last for first, last in zip(start, stop, strict=True)):
        raise ValueError(f"pads {list(padding)} leave nothing of shape {layer.shape}")
    return sliced(layer, layer.x, start, stop, [1] * layer.rank)


def _fill(layer: Layer) -> float:
    if not layer.has(2):
        return float(layer.get("value", 0.0))
    value = layer.constant_value(2, "padding value")
    if value.size != 1:
        raise ValueError(f"padding value of shape {value.shape}, expected a scalar")
    return float(value.reshape(()))


@handles("Gather")
def gather(layer: Layer) -> str:
    """Take slices at constant indices."""
    axis = layer.axis(0)
    indices = layer.constant_value(1, "indices")
    extent = layer.shape[axis]
    flat = [int(i) for i in indices.reshape(-1)]
    wrong = [i for i in flat if not -extent <= i < extent]
    if wrong:
        raise ValueError(f"index {wrong[0]}, expected {-extent} to {extent - 1}")
    positive = tuple(i % extent for i in flat)
    if indices.ndim == 0 or (indices.size and list(positive) == list(range(positive[0], positive[-1] + 1))):
        return _contiguous(layer, axis, positive, indices.shape)
    return layer.add(Gather(axis, positive, indices.shape), layer.x)


def _contiguous(layer: Layer, axis: int, indices: tuple[int, ...], index_shape: tuple[int, ...]) -> str:
    """Neighbouring slices are a Slice, cheaper than a Gather."""
    start, stop = [0] * layer.rank, list(layer.shape)
    start[axis], stop[axis] = indices[0], indices[-1] + 1
    cut = sliced(layer, layer.x, start, stop, [1] * layer.rank)
    if math.prod(index_shape) != stop[axis] - start[axis]:
        raise ValueError(f"indices of shape {index_shape}")
    return layer.reshape(cut, (*layer.shape[:axis], *index_shape, *layer.shape[axis + 1 :]))

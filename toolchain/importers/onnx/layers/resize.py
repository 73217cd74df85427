"""Resize and its predecessor Upsample."""

from __future__ import annotations

import math
from typing import Any

from toolchain.importers.layer import NoCFormError, normal_axis
from toolchain.importers.onnx.layer import Layer, handles
from toolchain.ops.resize import Resize

COORDINATES = {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"}
ROUNDINGS = {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}


@handles("Resize", "Upsample")
def resize(layer: Layer) -> str:
    """Nearest or linear, over the axes between batch and channels in either layout."""
    scales, shape = _target(layer)
    changed = {axis for axis in range(layer.rank) if scales[axis] != 1.0 or shape[axis] != layer.shape[axis]}
    if not changed:
        return layer.x
    mode, coordinate, rounding = _method(layer, scales)
    if layer.rank not in {3, 4}:
        raise NoCFormError(f"input of shape {layer.shape}, expected rank 3 or 4")
    first = not changed & {0, 1}
    if not first and changed & {0, layer.rank - 1}:
        raise NoCFormError(f"scales {list(scales)}, expected 1 for batch and channels")
    spatial = slice(2, None) if first else slice(1, -1)
    op = Resize(shape[spatial], mode, coordinate, rounding, scales[spatial])
    if not first:
        return layer.add(op, layer.x)
    return layer.channels_first(layer.add(op, layer.channels_last(layer.x)))


def _target(layer: Layer) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """(scale, extent) of every axis."""
    at = 2 if layer.kind == "Resize" and layer.opset >= 11 else 1
    axes = [normal_axis(int(axis), layer.rank) for axis in layer.get("axes", range(layer.rank))]
    scales, shape = [1.0] * layer.rank, list(layer.shape)
    for axis, scale in zip(axes, _scales(layer, at), strict=False):
        scales[axis], shape[axis] = scale, math.floor(layer.shape[axis] * scale)
    sizes = layer.integers(3, "sizes") if at == 2 else None
    for axis, extent in zip(axes, _kept_aspect(layer, axes, sizes) if sizes else (), strict=False):
        scales[axis], shape[axis] = extent / layer.shape[axis], extent
    if min(shape) < 1:
        raise ValueError(f"output shape {shape}, expected extents of 1 or more")
    return tuple(scales), tuple(shape)


def _scales(layer: Layer, at: int) -> tuple[float, ...]:
    if layer.has(at):
        return tuple(float(scale) for scale in layer.constant_value(at, "scales").reshape(-1))
    return tuple(float(scale) for scale in layer.get("scales", ()))


def _kept_aspect(layer: Layer, axes: list[int], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes under `keep_aspect_ratio_policy`: one scale for all axes."""
    policy = layer.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return sizes
    choose = min if policy == "not_larger" else max
    scale = choose(extent / layer.shape[axis] for axis, extent in zip(axes, sizes, strict=True))
    return tuple(math.floor(scale * layer.shape[axis] + 0.5) for axis in axes)


def _method(layer: Layer, scales: tuple[float, ...]) -> tuple[Any, Any, Any]:
    """(mode, coordinate, rounding) in the IR's words."""
    mode = str(layer.get("mode", "nearest"))
    if mode not in {"nearest", "linear", "bilinear"}:
        raise NoCFormError(f"mode {mode}, expected nearest or linear")
    if layer.get("antialias", 0):
        raise NoCFormError("antialias=1, expected 0")
    kind = "nearest" if mode == "nearest" else "linear"
    if layer.kind == "Upsample" or layer.opset < 11:
        return kind, "asymmetric", "floor"
    coordinate = str(layer.get("coordinate_transformation_mode", "half_pixel"))
    if coordinate == "half_pixel_symmetric" and all(
        (extent * scale).is_integer() for extent, scale in zip(layer.shape, scales, strict=True)
    ):
        coordinate = "half_pixel"
    rounding = str(layer.get("nearest_mode", "round_prefer_floor"))
    if coordinate not in COORDINATES or rounding not in ROUNDINGS:
        raise NoCFormError(f"{coordinate} with {rounding}, expected one of {', '.join(sorted(COORDINATES))}")
    return kind, coordinate, rounding

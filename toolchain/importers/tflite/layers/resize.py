"""RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR."""

from __future__ import annotations

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.layer import Layer, handles
from toolchain.ops.resize import Resize


@handles("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(layer: Layer) -> str:
    """To a constant size, by TensorFlow's three ways to place pixels."""
    layer.check_rank(4)
    size = layer.integers(1, "size")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size {list(size)}, expected two positive numbers")
    corners, centers = bool(layer.get("AlignCorners", False)), bool(layer.get("HalfPixelCenters", False))
    if corners and centers:
        raise NoCFormError("align_corners together with half_pixel_centers, expected one of them")
    if layer.kind == "RESIZE_BILINEAR":
        coordinate = "half_pixel" if centers else "align_corners" if corners else "asymmetric"
        return layer.emit(Resize(size, "linear", coordinate), layer.x)  # type: ignore[arg-type]
    if corners:
        return layer.emit(Resize(size, "nearest", "align_corners", "round_prefer_ceil"), layer.x)
    if centers:
        return layer.emit(Resize(size, "nearest", "half_pixel", "round_prefer_ceil"), layer.x)
    return layer.emit(Resize(size, "nearest", "asymmetric", "floor"), layer.x)

"""Shapes of a model's inputs: an open batch becomes 1, other open extents need --input-shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolchain.importers.builder import GraphBuilder
    from toolchain.importers.tflite.reading import Stored


def closed_shape(builder: GraphBuilder, name: str, tensor: Stored, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of an input without open extents. A batch may be set where the file has no signature of shapes."""
    open_shape = _open_shape(tensor)
    if given is not None:
        fits = len(given) == len(open_shape) and all(
            extent in (-1, wanted) for extent, wanted in zip(open_shape, given, strict=True)
        )
        if not fits:
            shown = _shown(open_shape)
            raise builder.error(name, f"--input-shape {','.join(map(str, given))}, expected a shape like {shown}")
        return given
    if not tensor.signature:
        return tensor.shape
    closed = tuple(1 if axis == 0 and extent < 0 else extent for axis, extent in enumerate(open_shape))
    if min(closed, default=1) < 0:
        shown = _shown(closed)
        raise builder.error(
            name, f"an open shape ({shown}), expected numbers; pass --input-shape {name}={shown} with numbers"
        )
    return closed


def _open_shape(tensor: Stored) -> tuple[int, ...]:
    """The declared extents, -1 where the user may choose."""
    if tensor.signature and len(tensor.signature) == len(tensor.shape):
        return tensor.signature
    return (-1, *tensor.shape[1:]) if tensor.shape else ()


def _shown(shape: tuple[int, ...]) -> str:
    return ",".join("?" if extent < 0 else str(extent) for extent in shape)

"""How far an output may lie over an input that is read for the last time, from a kernel's order of reads and writes.

Where x dies in the call that writes y, both may share bytes as long as no byte of x is written before its last
read. What decides is the distance offset(x) - offset(y). A kernel that goes upwards through both tolerates every
distance from a least one on; a kernel in another order perhaps only 0. Every `lower` states this for the loops of
its template; a kernel with several bodies states what all of them tolerate (`common`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolchain.ir.types import DType, TensorType

Int = NDArray[np.int64]
FAR = 1 << 60
"""Beyond every address: the place of a read that does not happen, and a distance without limit."""
LANES = 16
"""Channels that depthwise, average and column kernels take at a time."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """y may be written over x where least <= offset(x) - offset(y) <= most, in bytes."""

    least: int
    most: int = FAR

    def allows(self, distance: int) -> bool:
        """Whether x may lie `distance` bytes behind y."""
        return self.least <= distance <= self.most


IN_PLACE = Overlap(0, 0)
"""Exactly the same memory: what any order of work allows that reads an element before it writes its place."""


def common(*bodies: Overlap | None) -> Overlap | None:
    """What all bodies of a kernel tolerate. None forbids any overlap.

    >>> common(Overlap(-64), Overlap(16), Overlap(-8, 96)), common(Overlap(1), IN_PLACE)
    (Overlap(least=16, most=96), None)
    """
    stated = [body for body in bodies if body is not None]
    if len(stated) < len(bodies) or not bodies:
        return None
    least, most = max(body.least for body in stated), min(body.most for body in stated)
    return Overlap(least, most) if least <= most else None


def in_steps(lows: Int, ends: Int, *, writes_first: bool = False) -> Overlap:
    """Return the overlap of a kernel that works in steps, from byte addresses within x and y.

    Step t reads nothing of x below lows[t] (FAR: nothing at all), then writes, after which nothing of y beyond
    ends[t] is written. `writes_first`: a step may write before it has read all. The least distance is the maximum
    over t of ends[t] less the lowest address that is read after the writes of step t.
    """
    needed = np.minimum.accumulate(np.asarray(lows, np.int64)[::-1])[::-1]
    written = np.maximum.accumulate(np.asarray(ends, np.int64))
    if not writes_first:
        needed, written = needed[1:], written[:-1]
    return Overlap(int((written - needed)[written > 0].max(initial=-FAR)))


def elementwise(x: DType, y: DType, elements: int) -> Overlap | None:
    """The overlap of y[i] = f(x[i]) for i upwards.

    None between different types wider than a byte: C lets a compiler assume that such never share memory.
    """
    if x is not y and min(x.bytes, y.bytes) > 1:
        return None
    steps = np.arange(elements, dtype=np.int64)
    return in_steps(steps * x.bytes, (steps + 1) * y.bytes)


def first_inputs(inputs: int, outputs: int, kernel: int, stride: int, dilation: int, pad: int) -> Int:
    """The first input that each output's window meets along an axis, FAR where it meets only padding."""
    places = np.arange(outputs)[:, None] * stride - pad + np.arange(kernel) * dilation
    inside = (places >= 0) & (places < inputs)
    return np.asarray(np.where(inside, places, FAR).min(axis=1), np.int64)


def first_pixels(axes: Sequence[Int], spatial: Sequence[int], batch: int) -> Int:
    """The lowest input pixel of each output pixel, both counted row by row over the batch.

    `axes` has per spatial axis the first input of each output along it.
    """
    pixel = np.arange(batch, dtype=np.int64)
    for first, length in zip(axes, spatial, strict=True):
        pixel = scaled(pixel[:, None], length, first).ravel()
    return pixel


def scaled(places: Int, size: int, offset: Int | int = 0) -> Int:
    """Return places * size + offset, FAR where one of them is."""
    wide = np.asarray(places, np.int64)
    return np.where(wide < FAR, np.minimum(np.where(wide < FAR, wide, 0) * size + offset, FAR), FAR)


def by_pixel(pixels: Int, x: TensorType, y: TensorType, *, writes_first: bool = False) -> Overlap:
    """Each output pixel is written after (or `writes_first`: while) its window is read; `pixels`: `first_pixels`."""
    ends = np.arange(1, pixels.size + 1) * y.shape[-1] * y.dtype.bytes
    return in_steps(scaled(pixels, x.shape[-1] * x.dtype.bytes), ends, writes_first=writes_first)


def by_channel(pixels: Int, x: TensorType, y: TensorType, groups: int = 1) -> Overlap:
    """Channel after channel of an output pixel reads the window, or its group's part, and is written.

    The last but one channel of a group leaves the group's inputs needed, the last one does not.
    """
    depth, outputs = x.shape[-1] // groups, y.shape[-1] // groups
    group = np.arange(groups)
    lows = scaled(pixels[:, None], x.shape[-1], group * depth)
    ends = (np.arange(pixels.size)[:, None] * groups + group + 1) * outputs
    both = np.stack([ends - 1, ends], -1).ravel()
    return in_steps(scaled(np.repeat(lows.ravel(), 2), x.dtype.bytes), both * y.dtype.bytes)


def by_lanes(pixels: Int, x: TensorType, lanes: int = LANES) -> Overlap:
    """A pixel of as many outputs as inputs, some channels at a time: read from the window, then written."""
    channels = x.shape[-1]
    first = np.arange(0, channels, lanes)
    lows = scaled(pixels[:, None], channels, first)
    ends = np.arange(pixels.size)[:, None] * channels + np.minimum(first + lanes, channels)
    return in_steps(scaled(lows.ravel(), x.dtype.bytes), ends.ravel() * x.dtype.bytes)


def by_row(
    x: TensorType, y: TensorType, in_y: int, out_y: int, kernel: int, stride: int, dilation: int, pad: int
) -> Overlap:
    """Before an output row is written, all input rows of its windows are copied aside, each once."""
    beyond = np.clip(np.arange(out_y) * stride - pad + (kernel - 1) * dilation + 1, 0, in_y)
    copied = np.concatenate([[0], np.maximum.accumulate(beyond)[:-1]])
    lows = np.where(beyond > copied, copied, FAR)
    pixels = first_pixels([lows], [in_y], x.shape[0])
    row = x.elements // (x.shape[0] * in_y) * x.dtype.bytes
    ends = np.arange(1, pixels.size + 1) * (y.elements // (y.shape[0] * out_y) * y.dtype.bytes)
    return in_steps(scaled(pixels, row), ends)


def in_bands(
    x: TensorType, y: TensorType, band: int, in_y: int, out_y: int, kernel: int, stride: int, dilation: int, pad: int
) -> Overlap | None:
    """A few channels of a picture after the others, each band of output rows after all input rows it reads.

    Only in place does an output lie over an input of its own channel, which must have been read; so must one row
    more, into which blocks of outputs reach that are wider than what is left of a row.
    """
    ends = np.minimum(np.arange(0, out_y, band) + band, out_y)
    read = np.clip((ends - 1) * stride - pad + (kernel - 1) * dilation + 1, 0, in_y)
    in_row, out_row = (t.elements // (t.shape[0] * rows) for t, rows in ((x, in_y), (y, out_y)))
    free = read * in_row
    free[-1] = in_y * in_row if x.shape[0] > 1 else FAR
    return IN_PLACE if (np.minimum(ends + 1, out_y) * out_row <= free).all() else None

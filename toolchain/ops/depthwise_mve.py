"""Convolutions of each channel for itself on cores with MVE: one dot product per output.

A channel lies as a plane of bytes, its padding around it, in scratch. A vector gathers 16 bytes of it: all inputs
under one output, or under two or four neighbours, each of which has weights of its own for the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from toolchain.ir.types import Array, TensorType
from toolchain.ops import helium
from toolchain.ops.base import Bodies, Body, Call, Constant, Operands, Plain, fields_of_bodies
from toolchain.ops.linear import LinearSpec
from toolchain.ops.overlap import FAR, IN_PLACE, Overlap, common

LANES = 16
BAND_BYTES = 1152
"""Scratch for a plane, unless a few rows of it take more."""
FARTHEST = 255
"""Bytes in the plane between the first input under a vector and its last."""
WIDEST_STEP = (1 << 16) // 8
"""Bytes between neighbouring inputs of a channel."""
BLOCKS = ((2, 2), (1, 4), (4, 1))
"""(rows, columns) of four outputs that are rescaled together."""
ROW_COST, BLOCK_COST, PART_COST = 5, {4: 18, 2: 20, 1: 26}, 9
"""Instructions, for the choice between layouts: to begin a row, for a block by its `at_once`, to begin more blocks."""
HELPERS = ("copy_mve", "fill_mve", "gather_rows_mve", "limit_mve", "depthwise_mve")


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of the picture; `in_step` and `out_step` are bytes from an element to the next."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    pad: int
    in_step: int
    out_step: int

    @property
    def window(self) -> int:
        """Places from the first to the last tap."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def length(self) -> int:
        """Places that all windows together span."""
        return (self.outputs - 1) * self.stride + self.window


@dataclass(frozen=True, slots=True)
class Layout:
    """How one layer is done: axes in the plane's order, outputs of a block, of a vector and of a band."""

    y: Axis
    x: Axis
    block: tuple[int, int]
    at_once: int
    band: int
    swapped: bool

    @property
    def places(self) -> tuple[int, ...]:
        """Of the first input under each output of a block, in the plane."""
        rows, columns = self.block
        row, column = self.y.stride * self.x.length, self.x.stride
        return tuple(y * row + x * column for y, x in product(range(rows), range(columns)))

    @property
    def window(self) -> tuple[int, ...]:
        """Places of the taps of one output in the plane, row by row."""
        row, column = self.y.dilation * self.x.length, self.x.dilation
        return tuple(y * row + x * column for y, x in product(range(self.y.kernel), range(self.x.kernel)))

    @property
    def taps(self) -> tuple[int, ...]:
        """The places that a vector gathers."""
        return tuple(sorted({place + tap for place in self.places[: self.at_once] for tap in self.window}))

    @property
    def lanes(self) -> Array:
        """Int (outputs of a vector, taps of an output): the lane of each output's taps."""
        places = [[self.taps.index(place + tap) for tap in self.window] for place in self.places[: self.at_once]]
        return np.asarray(places)

    @property
    def fits(self) -> bool:
        """Whether a vector reaches the taps, and the weights of its outputs are the first's, some lanes behind."""
        return (
            max(self.taps) <= FARTHEST
            and len(self.taps) <= LANES
            and max(self.y.inputs, self.y.length, self.x.inputs, self.x.length, *self.places) < helium.WIDEST
            and not (self.lanes - self.lanes[:, :1] - self.lanes[0] + self.lanes[0, 0]).any()
        )

    @property
    def rows(self) -> int:
        """Rows of the plane."""
        return (self.band - 1) * self.y.stride + self.y.window

    @property
    def cost(self) -> int:
        """Instructions of a channel, roughly."""
        whole = (self.y.outputs // self.block[0], self.x.outputs // self.block[1])
        rows, columns = -(-self.y.outputs // self.block[0]), -(-self.x.outputs // self.block[1])
        parts = (1 + rows - whole[0]) * (1 + columns - whole[1])
        filling = self.y.inputs * (ROW_COST + -(-self.x.inputs // 8) * 4)
        starts = rows * (1 + columns - whole[1]) * ROW_COST + parts * PART_COST
        return filling + starts + rows * columns * BLOCK_COST[self.at_once]


def choose(x: TensorType, axes: Sequence[Sequence[int]]) -> Layout | None:
    """Return the layout with the least work; None where none takes the layer.

    `axes`: (inputs, outputs, kernel, stride, dilation, padding) along y and x.
    """
    channels = x.shape[-1]
    steps = ((axes[1][0] * channels, axes[1][1] * channels), (channels, channels))
    along_y, along_x = (Axis(*(*axis, *step)) for axis, step in zip(axes, steps, strict=True))
    found = [layout for layout in _layouts(along_y, along_x) if layout.fits]
    return min((each for each in found if each.x.in_step <= WIDEST_STEP), key=lambda each: each.cost, default=None)


def _layouts(along_y: Axis, along_x: Axis) -> Iterator[Layout]:
    for swapped, block, at_once in product((False, True), BLOCKS, (4, 2, 1)):
        rows, columns = (along_x, along_y) if swapped else (along_y, along_x)
        if rows.outputs < block[0] or columns.outputs < block[1]:
            continue
        band = _band(rows, columns.length, block[0])
        if not swapped or band == rows.outputs:
            yield Layout(rows, columns, block, at_once, band, swapped)


def _band(rows: Axis, width: int, least: int) -> int:
    """Output rows at a time: as many as BAND_BYTES hold, evenly, none of the bands with less than `least`."""
    most = max((BAND_BYTES // width - rows.window) // rows.stride + 1, 2 * least)
    band = -(-rows.outputs // -(-rows.outputs // most))
    while 0 < rows.outputs % band < least:
        band += 1
    return band


def with_body(call: Call, operands: Operands, spec: LinearSpec | None, axes: Sequence[Sequence[int]]) -> Call:
    """Return the call of a kernel that has a body for MVE besides those of `call`, where there is one for the layer."""
    x, y = operands.inputs[0].type, operands.outputs[0].type
    layout = choose(x, axes) if spec is not None and helium.requantizes(spec) else None
    kernel = call.kernel
    if spec is None or layout is None:
        stem, _, dtype = kernel.symbol.rpartition("_")
        symbol = kernel.symbol if spec is None or dtype != "s8" else f"{stem}0_{dtype}"
        return replace(call, kernel=replace(kernel, symbol=symbol, variant=(*kernel.variant, ("mve", False))))
    facts = {"rectified": False, **dict(kernel.variant), **helium.variant(spec, mve=True)}
    kernel = replace(
        kernel,
        variant=tuple(facts.items()),
        helpers=(),
        portable_helpers=kernel.helpers_of(Body.PORTABLE),
        dsp_helpers=kernel.helpers_of(Body.DSP),
        mve_helpers=HELPERS,
    )
    others = {body: _record_of(call, body) for body in (Body.PORTABLE, Body.DSP)}
    mve = {**_sizes(x), **fields(spec, layout, x)}
    record = fields_of_bodies(others[Body.PORTABLE], others[Body.DSP], mve)
    overlaps = (common(*call.overlaps, overlap(x, y, layout)),)
    return replace(
        call, kernel=kernel, record=record, scratch=max(call.scratch or 0, scratch(layout)), overlaps=overlaps
    )


def _record_of(call: Call, body: Body) -> dict[str, Plain]:
    found = {name: field.of(body) if isinstance(field, Bodies) else field for name, field in call.record.items()}
    return {name: value for name, value in found.items() if value is not None}


def _sizes(x: TensorType) -> dict[str, Plain]:
    return {"batch": x.shape[0], "channels": x.shape[-1]}


def fields(spec: LinearSpec, layout: Layout, x: TensorType) -> dict[str, Plain]:
    """The record of the kernel."""
    rows, columns = layout.y, layout.x
    left, first = max(columns.pad, 0), max(-columns.pad, 0)
    lanes = [int(lane) for lane in layout.lanes[1:, 0] - layout.lanes[0, 0]]
    gathered = layout.taps + (0,) * (LANES - len(layout.taps))
    return {
        "in_picture": x.elements // x.shape[0],
        "in_y": rows.inputs,
        "out_y": rows.outputs,
        "out_x": columns.outputs,
        "stride_y": rows.stride,
        "stride_x": columns.stride,
        "pad_y": rows.pad,
        "window_y": rows.window,
        "in_step_y": rows.in_step,
        "in_step_x": columns.in_step,
        "out_step_y": rows.out_step,
        "out_step_x": columns.out_step,
        "plane_x": columns.length,
        "left": min(left, columns.length),
        "first_x": first,
        "columns": max(min(columns.inputs - first, columns.length - left), 0),
        "band_y": layout.band,
        "block_y": layout.block[0],
        "block_x": layout.block[1],
        "taps": gathered,
        "order": _order(layout),
        "at_once": layout.at_once,
        "places": layout.places[1:],
        "lanes": tuple(lanes + [0] * (3 - len(lanes))),
        "weights": len(layout.window),
        "zero_x": spec.zero_x,
        "weight": Constant(_weights(spec, layout)),
        **helium.scaling_fields(spec),
    }


def _order(layout: Layout) -> tuple[int, ...]:
    """Which weight each lane has for the first output, -1 where it has no tap."""
    order = np.full(LANES, -1)
    order[layout.lanes[0]] = np.arange(len(layout.window))
    return tuple(order.tolist())


def _weights(spec: LinearSpec, layout: Layout) -> Array:
    """Int8 (channels, taps): the weights in the plane's order."""
    rows, columns = (layout.x, layout.y) if layout.swapped else (layout.y, layout.x)
    kernel = spec.weight.reshape(-1, rows.kernel, columns.kernel)
    taps = (kernel.swapaxes(1, 2) if layout.swapped else kernel).reshape(len(kernel), -1)
    return np.ascontiguousarray(taps)


def scratch(layout: Layout) -> int:
    """Bytes of the plane; what lies behind is not read, as lanes without a tap gather its first byte."""
    return layout.rows * layout.x.length


def overlap(x: TensorType, y: TensorType, layout: Layout) -> Overlap | None:
    """In place alone do outputs lie over inputs of their own channel, of which the band's have been read."""
    rows = layout.y
    ends = np.minimum(np.arange(0, rows.outputs, layout.band) + layout.band, rows.outputs)
    read = np.clip((ends - 1) * rows.stride - rows.pad + rows.window, 0, rows.inputs) * rows.in_step
    read[-1] = x.elements // x.shape[0] if x.shape[0] > 1 else FAR
    written = ends * rows.out_step
    written[-1] = y.elements // y.shape[0]
    return IN_PLACE if (written <= read).all() else None

"""Convolutions of each channel for itself on cores with DSP instructions, whatever the kernel and outputs per channel.

Bands of rows of four channels lie in scratch as words of two int16, zero point subtracted and zeros around: a column
and the one under the next tap. Columns are sorted by their rest when divided by the stride, so that neighbouring
outputs read neighbouring words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from toolchain.ir.types import Array, DType
from toolchain.ops.base import Bodies, Body, Call, Constant, Operands, Plain, fields_of_bodies
from toolchain.ops.linear import WIDEST, LinearSpec
from toolchain.ops.overlap import common, in_bands

LANES = 4
"""Channels at a time."""
WORD = 4
BLOCK = 4
"""Outputs at a time; blocks may read as many words, less one, behind a row."""
BAND_BYTES = 2048
"""Scratch for a band, unless the rows of one window take more, or the network leaves room."""
LARGEST_BYTES = 4096
"""Scratch that is taken for one window's rows even where the network leaves no room."""
HELPERS = ("clamp_s8", "saturated_s8", "four_bytes", "int16_pairs", "smlad", "scaled_sum", "taps_s8")
LARGEST_PHASES = 2
"""Largest stride of which pairs of taps all have the same rest."""
NAMES = ("in", "out", "kernel", "stride", "dilation", "pad")
"""What axes hold."""
LARGEST_SHIFT = 22
"""The largest shift to the right by which a zero point leaves room for sums in 32 bits."""


@dataclass(frozen=True, slots=True)
class Planes:
    """How the rows of a layer lie in scratch; `window`, `stride`: rows under an output, and to the next one's."""

    phases: int
    phase_x: int
    pairs: int
    window: int
    stride: int
    outputs: int

    def bytes(self, band: int) -> int:
        """Scratch for `band` rows of outputs, with the words behind that blocks may read."""
        return 2 * WORD * self.pairs + WORD * (LANES * self.plane(band) + BLOCK - 1)

    def plane(self, band: int) -> int:
        """Words of a channel."""
        return ((band - 1) * self.stride + self.window) * self.phases * self.phase_x

    def band(self, most_bytes: int) -> int:
        """Output rows at a time: as many as `most_bytes` hold, evenly."""
        row = WORD * LANES * self.phases * self.phase_x
        most = max(1 + (most_bytes - self.bytes(1)) // (self.stride * row), 1)
        return -(-self.outputs // -(-self.outputs // most))


def planes_of(axes: Sequence[Sequence[int]]) -> Planes:
    """The planes for (inputs, outputs, kernel, stride, dilation, padding) along y and x."""
    (_, out_y, kernel_y, stride_y, dilation_y, _), (_, out_x, kernel_x, stride_x, dilation_x, _) = axes
    phases = stride_x if stride_x > LARGEST_PHASES else 1
    last = (kernel_x - 1) // 2 * 2 * dilation_x // stride_x
    window = (kernel_y - 1) * dilation_y + 1
    return Planes(phases, out_x + last, kernel_y * -(-kernel_x // 2), window, stride_y, out_y)


def with_body(call: Call, operands: Operands, spec: LinearSpec | None, axes: Sequence[Sequence[int]]) -> Call:
    """Return the call of a kernel that has this body besides plain C, where it takes the layer.

    `call`: plain C with weights [y][x][output], or [output][y][x] where channels have several outputs.
    """
    planes = planes_of(axes)
    x, y = operands.inputs[0].type, operands.outputs[0].type
    if spec is None or not _takes(call, operands, spec, planes):
        return replace(call, kernel=replace(call.kernel, variant=(*call.kernel.variant, ("taps", False))))
    band = planes.band(max(BAND_BYTES, call.scratch or 0, operands.room))
    kernel = replace(
        call.kernel,
        symbol=call.kernel.symbol.replace("depthwise", "tapwise").replace("conv", "taps"),
        variant=(*call.kernel.variant, ("taps", True)),
        helpers=(),
        portable_helpers=call.kernel.helpers_of(Body.PORTABLE),
        dsp_helpers=HELPERS,
    )
    own = {**_geometry(operands, axes), **_fields(planes, band), **_numbers(spec, call)}
    plain = {name: value for name, value in call.record.items() if not isinstance(value, Bodies)}
    dsp = {f"taps.{name}": value for name, value in own.items()}
    record = fields_of_bodies(plain, dsp, dsp)
    overlap = in_bands(x, y, band, *axes[0]) if x.shape[-1] == y.shape[-1] else None
    scratch = max(call.scratch or 0, planes.bytes(band))
    return replace(call, kernel=kernel, record=record, scratch=scratch, overlaps=(common(*call.overlaps, overlap),))


def _takes(call: Call, operands: Operands, spec: LinearSpec, planes: Planes) -> bool:
    if spec.dtype is not DType.INT8 or spec.wide or spec.rescale != "requantize" or call.kernel.dsp_helpers:
        return False
    depthwise = operands.inputs[1].type.shape[-1] == 1 and operands.inputs[0].type.shape[-1] >= LANES
    return depthwise and _moderate(spec) and planes.bytes(1) <= max(LARGEST_BYTES, call.scratch or 0, operands.room)


def _moderate(spec: LinearSpec) -> bool:
    """Whether rescaling is one multiplication of doubled sums and one shift of at least a bit."""
    weights = np.abs(spec.weight.reshape(len(spec.weight), -1).astype(np.int64)).sum(axis=1)
    sums = weights * WIDEST[DType.INT8] + np.abs(spec.bias.astype(np.int64))
    shift = _shifts(spec)
    return bool((sums < 1 << 30).all() and (shift <= -1).all() and (shift >= -LARGEST_SHIFT).all())


def _shifts(spec: LinearSpec) -> Array:
    """The shifts, -1 of outputs that are zero whatever it is."""
    return np.where(spec.multiplier == 0, -1, spec.shift).astype(np.int32)


def _geometry(operands: Operands, axes: Sequence[Sequence[int]]) -> dict[str, Plain]:
    x, y = operands.inputs[0].type.shape, operands.outputs[0].type.shape
    sizes = [zip(NAMES, along, strict=True) for along in axes]
    named = {f"{name}_{axis}": size for axis, along in zip("yx", sizes, strict=True) for name, size in along}
    return {"batch": x[0], "channels": x[-1], "outputs": y[-1] // x[-1], **named}


def _fields(planes: Planes, band: int) -> dict[str, Plain]:
    return {
        "phases": planes.phases,
        "phase_x": planes.phase_x,
        "plane": planes.plane(band),
        "window_y": planes.window,
        "kept_y": max(planes.window - planes.stride, 0),
        "band_y": band,
        "pairs": planes.pairs,
    }


def _numbers(spec: LinearSpec, call: Call) -> dict[str, Plain]:
    """What the layer computes, with the weights in the order of `call`."""
    weight, taps = call.record["weight"], int(np.prod(spec.weight.shape[1:]))
    by_output = isinstance(weight, Constant) and weight.data.shape == spec.weight.shape
    offset = "zero_x" in call.record
    return {
        "zero_x": spec.zero_x if offset else 0,
        "zero_y": spec.zero_y,
        "limited": (spec.low, spec.high) != DType.INT8.limits,
        "low": spec.low,
        "high": spec.high,
        "tap_step": 1 if by_output else len(spec.weight),
        "output_step": taps if by_output else 1,
        "scale_step": int(spec.per_channel),
        "weight": Constant(weight.data if isinstance(weight, Constant) else spec.weight),
        "bias": Constant(spec.bias if offset else spec.folded_bias()),
        "multiplier": Constant(spec.multiplier),
        "shift": Constant(_shifts(spec)),
    }

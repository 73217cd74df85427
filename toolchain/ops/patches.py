"""Layers computed as patches times weights: convolutions, and fully connected layers of many rows.

Two output pixels at a time, three with DSP instructions: the inputs under each are copied side by side into scratch,
then every weight that is read serves them all. The copies let the output be written over the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolchain.ir.types import DType
from toolchain.ops import helium, pairs
from toolchain.ops.base import Call, Constant, Operands, Plain, fields_of_bodies
from toolchain.ops.linear import Clamp, LinearSpec, linear_call_parts, linear_kernel, weights_of
from toolchain.ops.overlap import Int, Overlap, common, in_steps, scaled

STEP = 32
"""Bytes to whose multiple patches of int8 inputs are filled up with zeros, for vector units."""
PIXELS = 2
DSP_PIXELS = 3
UNSIGNED = 128
"""What makes an int8 input non-negative: so it lies in a patch."""


def patch_call(
    operands: Operands, clamp: Clamp | None, spec: LinearSpec | None, geometry: Mapping[str, Any], pixels: Int
) -> Call:
    """Return the call for `geometry` (sizes, strides, padding, as the kernel's record has them).

    `pixels`: the lowest input pixel under each output pixel (`overlap.first_pixels`).
    """
    weight = weights_of(operands, spec)
    rows = weight.reshape(len(weight), -1)
    variant, fields = linear_call_parts(operands, clamp, rows.T if spec is None else rows, spec, padded=False)
    overlap = _overlap(operands, pixels, PIXELS)
    if spec is not None and spec.dtype is DType.INT8:
        fields |= {"bias": Constant(spec.folded_bias(spec.zero_x + UNSIGNED)), "zero_x": spec.zero_x}
        dsp_overlap = _overlap(operands, pixels, DSP_PIXELS)
        return _int8_call(spec, variant, geometry, fields, (overlap, dsp_overlap))
    kernel = linear_kernel("conv", "conv", variant | {"dsp": False, "mve": False}, f"products_{variant['short']}")
    scratch = PIXELS * rows.shape[1] * operands.inputs[0].type.dtype.bytes
    record = {**geometry, "pointwise": _pointwise(geometry), **fields}
    return Call(kernel, record, scratch=scratch, overlaps=(overlap,))


def _int8_call(
    spec: LinearSpec,
    variant: dict[str, Any],
    geometry: Mapping[str, Any],
    fields: dict[str, Plain],
    overlaps: tuple[Overlap, Overlap],
) -> Call:
    """The call with the bodies that the numbers allow; `overlaps` of plain C, of that for DSP."""
    rows = spec.weight.reshape(len(spec.weight), -1)
    pointwise = _pointwise(geometry)
    scratch = PIXELS * (-(-rows.shape[1] // STEP) * STEP)
    overlap: Overlap | None = overlaps[0]
    dsp = mve = portable = {**geometry, "pointwise": pointwise, **fields}
    still = pairs.settled(spec)
    if still is not None:
        mve = dsp = pairs.record(still, {**geometry, "zero_x": spec.zero_x, "pointwise": pointwise})
        overlap = common(*overlaps)
        scratch = max(scratch, _dsp_scratch(rows.shape[1], geometry))
    helium_takes = helium.takes(spec, geometry)
    if helium_takes:
        mve = helium.conv_record(spec, rows, geometry, pointwise=pointwise)
        scratch = max(scratch, helium.conv_scratch(rows))
    kernel = linear_kernel(
        "conv",
        "conv",
        variant | {"dsp": still is not None, **helium.variant(spec, mve=helium_takes)},
        "flip_run",
        "products_s8",
        "turned_s8",
        dsp=() if still is None else pairs.CONV_HELPERS,
        mve=helium.CONV_HELPERS if helium_takes else (),
    )
    return Call(kernel, fields_of_bodies(portable, dsp, mve), scratch=scratch, overlaps=(overlap,))


def _pointwise(geometry: Mapping[str, Any]) -> bool:
    """Whether each output pixel lies under the input pixel of the same place alone."""
    same = all(geometry[f"in_{axis}"] == geometry[f"out_{axis}"] for axis in "yx")
    sizes = {geometry[f"{name}_{axis}"] for name in ("kernel", "stride") for axis in "yx"}
    return same and sizes == {1}


def _dsp_scratch(inputs: int, geometry: Mapping[str, Any]) -> int:
    """Bytes: inputs widened to 16 bits; then, where needed, what padding holds, or patches of single bytes."""
    channels, quads = geometry["in_channels"], -(-inputs // pairs.QUAD) * pairs.QUAD
    beside = 0 if _pointwise(geometry) else DSP_PIXELS * quads if channels % pairs.QUAD else channels
    return DSP_PIXELS * quads * 2 + beside


def _overlap(operands: Operands, pixels: Int, at_once: int) -> Overlap:
    """`at_once` output pixels are written after the windows of all of them were read."""
    x, y = operands.inputs[0].type, operands.outputs[0].type
    starts = np.arange(0, pixels.size, at_once)
    ends = np.minimum(starts + at_once, pixels.size) * y.shape[-1] * y.dtype.bytes
    lows = np.minimum.reduceat(pixels, starts)
    return in_steps(scaled(lows, x.shape[-1] * x.dtype.bytes), ends)

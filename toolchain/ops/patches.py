"""Layers computed as patches times weights: convolutions, and fully connected layers of many rows.

Two output pixels at a time, three with DSP instructions: the inputs under each are copied side by side into scratch,
then every weight that is read serves them all. The copies let the output be written over the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolchain.ops.base import Call, Constant, Operands, bodies
from toolchain.ops.linear import Clamp, LinearSpec, constant, linear_call_parts, linear_kernel
from toolchain.ops.overlap import Int, Overlap, common, in_steps, scaled
from toolchain.ops.pairs import PAIR, QUAD, pairs_fields, pairs_reason, settled

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
    weight = constant(operands.inputs[1])
    rows = weight.reshape(len(weight), -1)
    inputs = rows.shape[1]
    variant, fields = linear_call_parts(operands, clamp, rows.T if spec is None else rows, spec, padded=False)
    overlap = _overlap(operands, pixels, PIXELS)
    if spec is None:
        kernel = linear_kernel("conv", "conv", variant, "products_f32")
        return Call(kernel, {**geometry, **fields}, scratch=PIXELS * inputs * 4, overlaps=(overlap,))
    fields["bias"] = Constant(spec.folded_bias(spec.zero_x + UNSIGNED))
    record = {**geometry, "zero_x": spec.zero_x}
    scratch = PIXELS * (-(-inputs // STEP) * STEP)
    still = settled(spec)
    if len(rows) < PAIR or pairs_reason(still):
        kernel = linear_kernel("conv", "conv", variant | {"plain": True}, "products_s8")
        return Call(kernel, record | fields, scratch=scratch, overlaps=(overlap,))
    pointwise = _pointwise(geometry)
    record |= {"pointwise": bodies(None, pointwise), **pairs_fields(still, fields)}
    kernel = linear_kernel("conv", "conv", variant, "products_s8", dsp=("pairs_s8", "pixels_s8"))
    dsp_scratch = _dsp_scratch(inputs, geometry["in_channels"], pointwise=pointwise)
    overlaps = (common(overlap, _overlap(operands, pixels, DSP_PIXELS)),)
    return Call(kernel, record, scratch=max(scratch, dsp_scratch), overlaps=overlaps)


def _pointwise(geometry: Mapping[str, Any]) -> bool:
    """Whether the windows are the input's pixels in their order."""
    moves = [
        geometry[f"{name}_{axis}"] != one for name, one in (("kernel", 1), ("stride", 1), ("pad", 0)) for axis in "yx"
    ]
    return not any(moves) and all(geometry[f"in_{axis}"] == geometry[f"out_{axis}"] for axis in "yx")


def _dsp_scratch(inputs: int, channels: int, *, pointwise: bool) -> int:
    """Bytes: inputs widened to 16 bits; then, where needed, what padding holds, or patches of single bytes."""
    padded = -(-inputs // QUAD) * QUAD
    beside = 0 if pointwise else DSP_PIXELS * padded if channels % QUAD else channels
    return DSP_PIXELS * padded * 2 + beside


def _overlap(operands: Operands, pixels: Int, at_once: int) -> Overlap:
    """`at_once` output pixels are written after the windows of all of them were read."""
    x, y = operands.inputs[0].type, operands.outputs[0].type
    starts = np.arange(0, pixels.size, at_once)
    ends = np.minimum(starts + at_once, pixels.size) * y.shape[-1] * y.dtype.bytes
    lows = np.minimum.reduceat(pixels, starts)
    return in_steps(scaled(lows, x.shape[-1] * x.dtype.bytes), ends)

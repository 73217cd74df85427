"""Convolutions of int8 in groups of several inputs, or with dilation along x: each group as patches times weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from toolchain.ir.types import DType
from toolchain.ops import pairs
from toolchain.ops.base import Call, Constant, Operands, fields_of_bodies
from toolchain.ops.linear import Clamp, LinearSpec, linear_call_parts, linear_kernel
from toolchain.ops.overlap import Int, Overlap, common, in_steps, scaled
from toolchain.ops.patches import DSP_PIXELS, PIXELS, STEP, UNSIGNED


def takes(spec: LinearSpec) -> bool:
    """Whether there is a kernel here for the layer."""
    return spec.dtype is DType.INT8 and not spec.wide and spec.weight.shape[-1] > 1


def groups_call(
    operands: Operands, clamp: Clamp | None, spec: LinearSpec, geometry: Mapping[str, Any], pixels: Int
) -> Call:
    """Return the call for `geometry` (sizes, strides, padding, groups, as the kernel's record has them).

    `pixels`: the lowest input pixel under each output pixel (`overlap.first_pixels`).
    """
    rows = spec.weight.reshape(len(spec.weight), -1)
    flat = replace(spec, weight=rows)
    variant, fields = linear_call_parts(operands, clamp, rows, flat, padded=False)
    fields |= {"bias": Constant(flat.folded_bias(spec.zero_x + UNSIGNED)), "zero_x": spec.zero_x}
    portable = dsp = {**geometry, **fields}
    even = geometry["group_outputs"] % pairs.PAIR == 0
    settled = pairs.settled(flat) if even else None
    scratch = PIXELS * (-(-rows.shape[1] // STEP) * STEP)
    groups = len(rows) // geometry["group_outputs"]
    overlap: Overlap | None = _overlap(operands, pixels, groups, PIXELS)
    if settled is not None:
        dsp = pairs.record(settled, {**geometry, "zero_x": spec.zero_x})
        quads = -(-rows.shape[1] // pairs.QUAD)
        scratch = max(scratch, DSP_PIXELS * pairs.QUAD * quads * (2 + 1))
        overlap = common(overlap, _overlap(operands, pixels, groups, DSP_PIXELS))
    kernel = linear_kernel(
        "groups",
        "conv_groups",
        variant | {"dsp": settled is not None},
        "products_s8",
        "outputs_s8",
        dsp=() if settled is None else pairs.CONV_HELPERS,
    )
    return Call(kernel, fields_of_bodies(portable, dsp, dsp), scratch=scratch, overlaps=(overlap,))


def _overlap(operands: Operands, pixels: Int, groups: int, at_once: int) -> Overlap:
    """Some output pixels at a time are written group by group, after what each group reads."""
    x, y = operands.inputs[0].type.shape[-1], operands.outputs[0].type.shape[-1]
    starts, group = np.arange(0, pixels.size, at_once), np.arange(groups)
    last = np.minimum(starts + at_once, pixels.size) - 1
    lows = scaled(np.minimum.reduceat(pixels, starts)[:, None], x, group * (x // groups))
    ends = last[:, None] * y + (group + 1) * (y // groups)
    return in_steps(lows.ravel(), ends.ravel())

"""Layers computed as patches times weights: convolutions, and fully connected layers of many rows.

Two output pixels at a time: the inputs under each are copied side by side into scratch, then every weight that is
read serves both. The copies let the output be written over the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolchain.ir.types import DType
from toolchain.ops import helium
from toolchain.ops.base import Call, Constant, Operands
from toolchain.ops.linear import Clamp, LinearSpec, constant, linear_call_parts, linear_kernel
from toolchain.ops.overlap import Int, Overlap, in_steps, scaled

STEP = 32
"""Bytes to whose multiple patches of int8 inputs are filled up with zeros, for vector units."""
PIXELS = 2
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
    inner, scratch = f"products_{variant['short']}", inputs * operands.inputs[0].type.dtype.bytes
    if spec is not None and spec.dtype is DType.INT8:
        scratch = -(-inputs // STEP) * STEP
        fields |= {"bias": Constant(spec.folded_bias(spec.zero_x + UNSIGNED)), "zero_x": spec.zero_x}
    overlaps = (_overlap(operands, pixels),)
    record = {**geometry, **fields}
    helpers: tuple[str, ...] = (inner,)
    variant["mve"] = spec is not None and helium.requantizes(spec)
    if spec is not None and variant["mve"]:
        pointwise = {"pointwise": int(_pointwise(geometry))}
        record = helium.split(record, helium.products(spec, rows) | pointwise, helium.UNUSED)
        helpers += helium.CONV_HELPERS
    kernel = linear_kernel("conv", "conv", variant, *helpers)
    return Call(kernel, record, scratch=PIXELS * scratch, overlaps=overlaps)


def _pointwise(geometry: Mapping[str, Any]) -> bool:
    """Whether each output pixel lies under the input pixel of the same place alone."""
    same = all(geometry[f"in_{axis}"] == geometry[f"out_{axis}"] for axis in "yx")
    sizes = {geometry[f"{name}_{axis}"] for name in ("kernel", "stride") for axis in "yx"}
    return same and sizes == {1}


def _overlap(operands: Operands, pixels: Int) -> Overlap:
    """PIXELS output pixels are written after the windows of all of them were read."""
    x, y = operands.inputs[0].type, operands.outputs[0].type
    starts = np.arange(0, pixels.size, PIXELS)
    ends = np.minimum(starts + PIXELS, pixels.size) * y.shape[-1] * y.dtype.bytes
    lows = np.minimum.reduceat(pixels, starts)
    return in_steps(scaled(lows, x.shape[-1] * x.dtype.bytes), ends)

"""Convolutions of each channel for itself, one output per input channel.

Of 3x3 kernels some channels are taken at a time. Cores with DSP instructions put bands of rows as pairs of int16 into
planes in scratch, zero points around, then two taps are one multiplication. The int16 are 256 times as large, so that
the upper half of a sum times its multiplier keeps a fraction. Plain C keeps the three rows under a row of outputs, with
their padding: then no tap is left out, and the zero point is in the bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from toolchain.config import Rounding
from toolchain.ir.types import DType, TensorType
from toolchain.ops.base import Call, Constant, Kernel, Operands, Plain, fields_of_bodies
from toolchain.ops.linear import WIDEST, Clamp, LinearSpec, dot_helper, linear_call_parts, linear_kernel, weights_of
from toolchain.ops.overlap import Overlap, by_lanes, by_row, common, first_inputs, first_pixels, in_bands
from toolchain.ops.shifts import LAST, one_shift

PLANES = 4
"""Channels at a time."""
GEOMETRY = ("batch", "channels", "in_y", "in_x", "out_y", "out_x", "stride_y", "stride_x", "pad_y", "pad_x")
"""Fields of the geometry that the body for DSP instructions takes."""
DSP_BLOCKS = {1: ((3, 62), (5, 88), (6, 105)), 2: ((3, 80), (6, 125))}
"""Of each stride along x: how many outputs a block may have, and what it costs."""
BAND_BYTES = 1152
"""Scratch for the planes of a band, unless the rows of one window take more, or the network leaves room."""
LANES = 8
"""Channels that plain C takes at a time at most."""
ROWS = 3
"""Rows of these that it keeps."""
BLOCKS = (2, 3)
"""Outputs of a row that plain C takes at a time, with a vector unit and without."""
ANY_KERNEL = ("kernel_y", "kernel_x", "dilation_y", "dilation_x")
"""Fields of the geometry that kernels for 3x3 do without,"""
LIMITS = ("low", "high")
"""and those that rectified ones do without, too."""
SCALE_BITS = 8
"""Inputs are multiplied by two to this power, so that scaled sums keep their fraction."""
LARGEST_SUM = 1 << (31 - SCALE_BITS)
LARGEST_SHIFT = 16
"""The largest right shift by which a zero point is a rounding constant that leaves room for sums in 32 bits."""


def depthwise_call(
    operands: Operands,
    clamp: Clamp | None,
    spec: LinearSpec | None,
    geometry: Mapping[str, Any],
    axes: Sequence[Sequence[int]],
    *,
    padded: bool,
) -> Call:
    """Return the call for `geometry` (sizes, strides, padding, as the kernel's record has them) and its two axes."""
    x, y = (tensor.type for tensor in (operands.inputs[0], operands.outputs[0]))
    weight = np.moveaxis(weights_of(operands, spec)[..., 0], 0, -1)
    narrow = spec is not None and spec.dtype is DType.INT8
    variant, fields = linear_call_parts(operands, clamp, weight, spec, padded=padded)
    if spec is None or not narrow or not _fits_planes(spec, axes):
        rows, overlap = _kept_rows(x, y, axes)
        kernel = linear_kernel("depthwise", "depthwise", variant | {"planes": False}, *_windows(variant))
        record = {**geometry, "kept_rows": rows, **fields}
        return Call(kernel, {**record}, scratch=rows * _row_bytes(x), overlaps=(overlap,))
    columns = _row_columns(axes)
    planes = _planes(axes, max(BAND_BYTES, operands.room, ROWS * LANES * columns))
    given = (*ANY_KERNEL, *(LIMITS if _rectified(spec) else ()))
    portable = {**geometry, **spec.record(weight, offset=True), "row_x": columns}
    dsp = _planes_record(spec, geometry, portable["weight"], planes)
    portable = {name: value for name, value in portable.items() if name not in given}
    overlaps = (common(*(in_bands(x, y, band, *axes[0]) for band in (1, planes["band_y"]))),)
    kernel = _planes_kernel(linear_kernel("depthwise", "depthwise", variant), spec)
    scratch = max(ROWS * LANES * columns, planes["plane_bytes"])
    return Call(kernel, fields_of_bodies(portable, dsp, dsp), scratch=scratch, overlaps=overlaps)


def _row_columns(axes: Sequence[Sequence[int]]) -> int:
    """Columns that plain C keeps of an input row, its padding and what a last block of outputs reaches included."""
    _, (in_x, out_x, kernel, stride, _, pad) = axes
    outputs = max(-(-out_x // at_once) * at_once for at_once in BLOCKS)
    columns = max((outputs - 1) * stride + kernel, pad + in_x)
    return columns + columns % stride


def _windows(variant: dict[str, Any]) -> tuple[str, str]:
    """The helpers of plain C: which taps meet the picture, and the sums over them."""
    return "taps_within", f"window_{dot_helper(variant).removeprefix('dot_')}"


def _row_bytes(x: TensorType) -> int:
    return math.prod(x.shape[-2:]) * x.dtype.bytes


def _kept_rows(x: TensorType, y: TensorType, axes: Sequence[Sequence[int]]) -> tuple[int, Overlap]:
    """(input rows that plain C copies aside, how far the output may lie over the input).

    Rows are kept where the output would otherwise lag behind the input by a row or more, which adds up over the
    layers of a network: then it is written in place.
    """
    (in_y, _, kernel, _, dilation, _), along_x = axes
    lanes = by_lanes(first_pixels([first_inputs(*axis) for axis in axes], (in_y, along_x[0]), x.shape[0]), x, 1)
    rows = (kernel - 1) * dilation + 1
    if 2 * rows > in_y or lanes.least < _row_bytes(x):
        return 0, lanes
    return rows, by_row(x, y, *axes[0])


def _largest_sums(spec: LinearSpec) -> Any:
    """What no accumulator of each channel exceeds."""
    weights = np.abs(spec.weight.reshape(len(spec.weight), -1).astype(np.int64)).sum(axis=1)
    return weights * WIDEST[DType.INT8] + np.abs(spec.bias.astype(np.int64))


def _fits_planes(spec: LinearSpec, axes: Sequence[Sequence[int]]) -> bool:
    """Whether the body for DSP instructions takes the layer: a kernel of 3x3 and sums that 2^SCALE_BITS times fit."""
    along_y, along_x = axes
    whole = all((kernel, dilation) == (3, 1) and pad >= 0 for _, _, kernel, _, dilation, pad in axes)
    strides = along_y[3] <= along_y[2] and along_x[3] in DSP_BLOCKS
    return whole and strides and len(spec.weight) >= PLANES and bool((_largest_sums(spec) < LARGEST_SUM).all())


def _rectified(spec: LinearSpec) -> bool:
    """Whether rescaling is one multiplication: outputs are all of int8 from the zero point on, shifts moderate.

    Sums below the zero point need no rounding of their own then.
    """
    moderate = bool(((spec.shift <= 0) & (spec.shift >= -LARGEST_SHIFT)).all())
    return (spec.zero_y, spec.low, spec.high) == (-128, -128, 127) and moderate


def _planes(axes: Sequence[Sequence[int]], most_bytes: int) -> dict[str, int]:
    """The layout for DSP instructions: how wide planes are, outputs of a block, rows of a band, bytes of its planes.

    Behind the right edge of a plane's row lies the left edge of the next plane's, which holds zero points, too.
    """
    (_, out_y, kernel, stride, _, _), (in_x, out_x, kernel_x, stride_x, _, pad_x) = axes
    needed = (out_x - 1) * stride_x + kernel_x
    width = _even(max(in_x + pad_x, needed - pad_x))
    row = 2 * PLANES * width
    most = max((most_bytes // row - kernel) // stride + 1, 1)
    band = -(-out_y // -(-out_y // most))
    block = _block(out_x, stride_x)
    blocks = -(-out_x // block)
    read = (blocks - 1) * block * stride_x + _even((block - 1) * stride_x + kernel_x)
    rows = (band - 1) * stride + kernel
    plane_bytes = rows * row + 2 * max(read - width, 0)
    return {"plane_x": width, "block": block, "blocks": blocks, "band_y": band, "plane_bytes": plane_bytes}


def _even(count: int) -> int:
    return count + count % 2


def _block(outputs: int, stride: int) -> int:
    """Outputs of a block: the cheapest choice for a row. Blocks side by side begin at even columns."""
    sizes = [(-(-outputs // size) * cost, size) for size, cost in DSP_BLOCKS[stride]]
    return min((cost, size) for cost, size in sizes if size >= outputs or size * stride % 2 == 0)[1]


def _planes_record(
    spec: LinearSpec, geometry: Mapping[str, Any], weight: Plain, planes: Mapping[str, int]
) -> dict[str, Plain]:
    """The fields of struct planes_s8."""
    told = one_shift(spec) if spec.per_channel else None
    bias = (spec.folded_bias().astype(np.int64) << SCALE_BITS).astype(np.int32)
    scaling: dict[str, Plain] = {
        "bias": Constant(bias),
        "multiplier": Constant(spec.multiplier),
        "shift": Constant(spec.shift if told is None else np.array([told], np.int32)),
        "told": 0 if told is None else LAST,
        "multiplier_step": int(spec.per_channel),
        "shift_step": int(spec.per_channel and told is None),
    }
    numbers = {name: getattr(spec, name) for name in ("zero_x", "zero_y", "low", "high")}
    sizes = {name: geometry[name] for name in GEOMETRY}
    fields: dict[str, Plain] = {**sizes, "weight": weight, **scaling, **numbers, **planes}
    return {f"planes.{name}": value for name, value in fields.items()}


def _planes_kernel(kernel: Kernel, spec: LinearSpec) -> Kernel:
    rectified = _rectified(spec)
    facts = {**dict(kernel.variant), "offset": True, "planes": True, "rectified": rectified}
    facts["single"] = spec.rounding is Rounding.SINGLE
    each = "channels" if facts["one_shift"] else "shifts"
    words = ("depthwise3x3", *(("relu",) if rectified else ()), *((each,) if spec.per_channel else ()), "s8")
    shared = ("four_bytes", "int16_pairs", "depthwise_planes", "depthwise_taps")
    own = ("depthwise_blocks", "depthwise_relu_s8")
    clamped = ("requantize", "depthwise_clamped_blocks", "depthwise_clamped_s8")
    return replace(
        kernel,
        symbol="_".join(words),
        variant=tuple(facts.items()),
        helpers=("clamp_s8",),
        portable_helpers=("product_upper" if rectified else "requantize", "sums_3x3"),
        dsp_helpers=(*shared, *(own if rectified else clamped)),
    )

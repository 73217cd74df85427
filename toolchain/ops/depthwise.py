"""Convolutions of each channel for itself, one output per input channel.

Of 3x3 kernels some channels are taken at a time. Cores with DSP instructions put bands of rows as pairs of int16 into
planes in scratch, the zero point subtracted and zeros around, then two taps are one multiplication. Plain C keeps the
three rows under a row of outputs, with their padding: then no tap is left out, and the zero point is in the bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from toolchain.config import Rounding
from toolchain.ir.types import DType, TensorType
from toolchain.ops.base import Call, Field, Kernel, Operands, bodies
from toolchain.ops.linear import WIDEST, Clamp, LinearSpec, dot_helper, linear_call_parts, linear_kernel, weights_of
from toolchain.ops.overlap import Overlap, by_lanes, by_row, common, first_inputs, first_pixels, in_bands

PLANES = 4
"""Channels at a time."""
COLUMNS = 6
"""Columns that a block of outputs begins after the one before: 6 outputs, or 3 of stride 2."""
NARROW = 8
"""Columns of a plane for outputs of no more than five columns, which are one block: known to its instructions."""
NARROWEST_OUTPUT = 5
BAND_BYTES = 1152
"""Scratch for the planes of a band, unless the rows of one window take more, or the network leaves room."""
LANES = 8
"""Channels that plain C takes at a time at most."""
BLOCKS = (2, 3)
"""Outputs of a row that plain C takes at a time, with a vector unit and without."""
SCALE_BITS = 8
"""Weights are multiplied by two to this power, or less, so that shifted sums keep their fraction."""
CONSTANT_BITS = 23
"""The largest shift by which a zero point is a rounding constant that leaves room for sums in 32 bits."""


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
        record: dict[str, Field] = {**geometry, "kept_rows": rows, **fields}
        return Call(kernel, record, scratch=rows * _row_bytes(x), overlaps=(overlap,))
    planes, columns = _planes(axes, max(BAND_BYTES, operands.room)), _row_columns(axes)
    record = {**geometry, **spec.record(weight, offset=True), "row_x": bodies(columns, None)}
    record |= {name: bodies(None, value) for name, value in planes.items()}
    overlaps = (common(*(in_bands(x, y, band, *axes[0]) for band in (1, planes["band_y"]))),)
    kernel = _planes_kernel(linear_kernel("depthwise", "depthwise", variant), spec)
    scratch = max(3 * LANES * columns, planes["plane_bytes"])
    return Call(kernel, record, scratch=scratch, overlaps=overlaps)


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
    """Whether the body for DSP instructions takes the layer."""
    along_y, along_x = axes
    whole = all((kernel, dilation) == (3, 1) and pad >= 0 for _, _, kernel, _, dilation, pad in axes)
    strides = along_y[3] <= along_y[2] and along_x[3] in {1, 2}
    return whole and strides and len(spec.weight) >= PLANES and (_rectified(spec) or _fit(spec, SCALE_BITS))


def _fit(spec: LinearSpec, bits: Any) -> bool:
    """Whether sums that are multiplied by two to the power of `bits` are int32."""
    return bool((_largest_sums(spec) < 2.0 ** (31 - bits)).all())


def _rectified(spec: LinearSpec) -> bool:
    """Whether rescaling is one multiplication: outputs are all of int8 from the zero point on, shifts moderate.

    Sums below the zero point need no rounding of their own then.
    """
    bits = np.minimum(CONSTANT_BITS + 1 + spec.shift, SCALE_BITS)
    moderate = bool((spec.shift <= 0).all() and (bits > 1).all())
    return (spec.zero_y, spec.low, spec.high) == (-128, -128, 127) and moderate and _fit(spec, bits)


def _planes(axes: Sequence[Sequence[int]], most_bytes: int) -> dict[str, int]:
    """The fields of the body for DSP instructions: how wide planes are, rows of a band, bytes of its planes.

    Behind the right edge of a plane's row lies the left edge of the next plane's, which is zero, too.
    """
    (_, out_y, kernel, stride, _, _), (in_x, out_x, kernel_x, stride_x, _, pad_x) = axes
    needed = (out_x - 1) * stride_x + kernel_x
    width = max(in_x + pad_x, needed - pad_x)
    width = NARROW if stride_x == 1 and out_x <= NARROWEST_OUTPUT else width + width % 2
    row = 2 * PLANES * width
    most = max((most_bytes // row - kernel) // stride + 1, 1)
    band = -(-out_y // -(-out_y // most))
    block = 3 if stride_x > 1 else min(max(out_x, NARROWEST_OUTPUT), COLUMNS)
    blocks = -(-out_x // block)
    slack = 2 * max(COLUMNS * (blocks - 1) + 8 - width, 0)
    rows = (band - 1) * stride + kernel
    fields = {"plane_x": width, "block_x": block, "blocks": blocks, "band_y": band}
    return {**fields, "plane_bytes": rows * row + slack}


def _planes_kernel(kernel: Kernel, spec: LinearSpec) -> Kernel:
    rectified = _rectified(spec)
    facts = {
        **dict(kernel.variant),
        "offset": True,
        "planes": True,
        "rectified": rectified,
        "single": spec.rounding is Rounding.SINGLE,
    }
    own = "channels" if facts["one_shift"] else "shifts"
    words = ("depthwise3x3", *(("relu",) if rectified else ()), *((own,) if spec.per_channel else ()), "s8")
    blocks = "depthwise_blocks" if rectified else "depthwise_clamped_blocks"
    dsp = ("four_bytes", "int16_pairs", "depthwise_planes", "depthwise_taps", blocks)
    return replace(
        kernel,
        symbol="_".join(words),
        variant=tuple(facts.items()),
        helpers=("clamp_s8",),
        portable_helpers=("product_upper" if rectified else "requantize", "sums_3x3"),
        dsp_helpers=dsp if rectified else ("requantize", *dsp),
    )

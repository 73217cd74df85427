"""Weights as the DSP bodies read them: two outputs in one 16-bit lane, w + 256 w'.

One multiplication of such a lane adds S + 256 S' for the sums S, S' of two outputs; the low bytes alone give S. The
second sum is scaled as it is, 256 times too large. With `a` the sum, `m` the multiplier, s the right shift and z the
zero point, the two roundings of policy `tflm` and the addition of z are one floor:

    (2 a m + C 2^32 + 2^31) / 2^32 / 2^s      C = 2^(s-1) + z 2^s
    (256 a m + C 2^32) / 2^32 / 2^(s+7)       C = 2^(s+6) + z 2^(s+7) + 64

where sums below zero add -1, and -128, to C. They don't matter where y has z as its lower limit. Policy `single` has
neither them nor the 2^31 and the 64. Layers that LiteRT rounds once beside others have no such body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.ir.types import DType
from toolchain.ops.base import Constant, Plain
from toolchain.ops.shifts import one_shift, stilled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolchain.ir.types import Array
    from toolchain.ops.linear import LinearSpec

LARGEST_SUM = 1 << 23
"""Bound of the sums: 256 times as much fits 32 bits."""
SHIFTS = (1, 16)
"""Right shifts whose constants fit 32 bits."""
QUAD = 4
"""Inputs whose weights lie together."""
PAIR = 2
"""Outputs in one lane."""
CONV_HELPERS = ("clamp_s8", "four_bytes", "pairs_s8", "pixels_s8")
SUM_HELPERS = ("clamp_s8", "octet_s8", "octets_s8")
DENSE_HELPERS = ("clamp_s8", "pairs_s8", "scale_s8", "octet_s8")


def settled(spec: LinearSpec, outputs: int = PAIR) -> LinearSpec | None:
    """The layer as the DSP bodies take it, None where they don't; `outputs`: how many they compute at a time."""
    int8 = spec.dtype is DType.INT8 and not spec.wide and spec.rescale == "requantize"
    if not int8 or len(spec.weight) < outputs:
        return None
    fit = (each for each in (spec, stilled(spec)) if unfit(each) is None)
    return next(fit, None)


def unfit(spec: LinearSpec) -> str | None:
    """Why the numbers of a layer do not fit the DSP bodies, None where they do."""
    if (-spec.shift < SHIFTS[0]).any() or (-spec.shift > SHIFTS[1]).any():
        return "a scale outside of 2^-16 .. 1/2"
    if one_shift(spec) is None:
        return "multipliers that do not tell the shifts"
    weights = np.abs(spec.weight.reshape(len(spec.weight), -1).astype(np.int64)).sum(axis=1)
    if (weights * 128 + np.abs(spec.folded_bias().astype(np.int64)) >= LARGEST_SUM).any():
        return "sums of more than 23 bits"
    return None if pairable(spec.weight) else "a weight of -128"


def pairable(weight: Array) -> bool:
    """Whether any two weights fit a lane."""
    return weight.dtype == np.int8 and not (weight == np.iinfo(np.int8).min).any()


def record(spec: LinearSpec, geometry: Mapping[str, Plain], outputs: int = PAIR) -> dict[str, Plain]:
    """The fields of a `settled` layer: its `geometry` and a struct pairs_s8.

    `outputs`: how many have their weights side by side, an even number.
    """
    return {**geometry, **{f"pairs.{name}": value for name, value in _pairs(spec, outputs).items()}}


def _pairs(spec: LinearSpec, outputs: int) -> dict[str, Plain]:
    order = _order(len(spec.weight), outputs)
    multiplier = spec.multiplier[order] if spec.per_channel else np.repeat(spec.multiplier, PAIR)
    common = one_shift(spec)
    if common is None:
        raise ValueError("a layer that is not settled")
    return {
        "weight": Constant(packed(_by_rows(spec.weight)[order], spec.folded_bias()[order], outputs)),
        "multiplier": Constant(multiplier),
        "step": PAIR if spec.per_channel else 0,
        "shift": -common,
        "zero_y": spec.zero_y,
        "low": spec.low,
        "high": spec.high,
    }


def _order(count: int, outputs: int) -> Any:
    """The outputs in groups; the last group begins earlier where the count does not divide."""
    starts = np.arange(0, count, outputs)
    starts[-1] = count - outputs
    return (starts[:, None] + np.arange(outputs)).ravel()


def _by_rows(weight: Array) -> Array:
    """Weights (outputs, inputs): of each row of a kernel what fills fours, then the columns which that leaves over."""
    count = len(weight)
    rows = weight.reshape(count, -1, weight.shape[-2] * weight.shape[-1] if weight.ndim > 2 else weight.shape[-1])
    fours = rows.shape[-1] // QUAD * QUAD
    columns = rows[..., fours:].transpose(0, 2, 1)
    return np.concatenate([rows[..., :fours].reshape(count, -1), columns.reshape(count, -1)], axis=1)


def packed(rows: Array, bias: Array, outputs: int = PAIR) -> Array:
    """Return int16 (groups of outputs, ...): of each pair b and b + 256 b', then of each quad of inputs the pairs.

    A pair has lanes of inputs 0, 2, 1, 3 of the quad. Inputs are filled up with zeros: to fours, with four outputs at
    a time to eights.
    """
    step, pairs = QUAD * outputs // PAIR, outputs // PAIR
    inputs = -(-rows.shape[1] // step) * step
    wide = np.zeros((len(rows), inputs), np.int16)
    wide[:, : rows.shape[1]] = rows
    lanes = (wide[::2] + 256 * wide[1::2]).reshape(-1, pairs, inputs // QUAD, QUAD)[..., [0, 2, 1, 3]]
    wide_bias = bias.astype(np.int64)
    biases = np.stack([wide_bias[::2], wide_bias[::2] + 256 * wide_bias[1::2]], axis=-1).astype("<i4").view("<i2")
    groups = len(lanes)
    return np.concatenate([biases.reshape(groups, -1), lanes.transpose(0, 2, 1, 3).reshape(groups, -1)], axis=1)


def quads_of_rows(rows: Array) -> Array:
    """Return int8 weights (outputs, inputs) four outputs at a time as `packed` has them, without biases, as bytes."""
    outputs = 2 * PAIR
    filled = np.pad(rows, ((0, -len(rows) % outputs), (0, 0)))
    lanes = packed(filled, np.zeros(len(filled), np.int32), outputs)[:, 2 * outputs :]
    return lanes.astype("<i2").view(np.int8)

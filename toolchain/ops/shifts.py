"""One shift for all outputs of a layer: the last three bits of each multiplier say how much further to shift right.

An output y = clamp(requantize(sum + bias, multiplier, shift) + z) never falls while its sum grows. So two sets of
numbers mean the same if they agree on the least sum that reaches y >= k, for each k. With s the right shift and

    bound(k) = ((k - z) 2^s - 2^(s-1)) 2^31 - 2^30,   2^31 more where sum + bias is negative

y >= k is (sum + bias) * multiplier >= bound(k). Policy `single` has neither the 2^30 nor the 2^31, s = 0 neither the
2^(s-1) nor the 2^31. Most multipliers have hundreds of neighbours that mean the same, and the last bits that are
wanted are those of one in eight; which ones these are is the layer's choice, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.config import Rounding
from toolchain.fixedpoint import requantize
from toolchain.ir.types import Array, DType

if TYPE_CHECKING:
    from toolchain.ops.linear import LinearSpec

LAST = 15
"""The bits of a multiplier that add to the shift."""
SPANS = (LAST, 11, 7)
"""By how much shifts may differ: less leaves a choice of last bits."""
STEEPEST = (-8, -1)
"""Shifts that an output may get whose scale is free."""


def one_shift(spec: LinearSpec) -> int | None:
    """Return the shift that all outputs share: each has this one less the last three bits of its multiplier.

    None where multipliers do not tell their shifts. `spec.multiplier` and `spec.shift` are as usual in any case.
    """
    common = spec.shift + (spec.multiplier & LAST)
    return int(common[0]) if spec.rescale == "requantize" and (common == common[0]).all() else None


def with_one_shift(spec: LinearSpec) -> LinearSpec:
    """Return the same layer with multipliers that tell their shifts, as far as there are any: see `one_shift`.

    Of layers whose outputs have scales of their own. Outputs that no input changes are `stilled` before. Those with
    far smaller scales than others get smaller multipliers, shifts like the others' and a bias to match.
    """
    if spec.dtype is not DType.INT8 or spec.rescale != "requantize" or not spec.per_channel:
        return spec
    still = stilled(spec)
    if (still.shift > 0).any() or spec.low == spec.high:
        return still
    least, right = _least_sums(still), -still.shift.astype(np.int64)
    right = np.where(_changes(still, least).sum(axis=1) == 1, np.minimum(right, -STEEPEST[0]), right)
    for span in SPANS:
        nearer = np.minimum(right, right.min() + span)
        for common in range(-int(nearer.min()), LAST + 1 - int(nearer.max())):
            found = _told(still, least, nearer, common)
            if found is not None:
                return found
    return still


def stilled(spec: LinearSpec) -> LinearSpec:
    """Return the same layer where the weights of outputs that no input changes are zero, and the bias does it alone.

    Their numbers are often extreme, as training has given them up. Where outputs have scales of their own, theirs
    becomes one like the others'. Shifts to the left that lose bits are left alone: y may be anything between there.
    """
    ends = [sums[:, 0] for sums in _limits(spec)]
    lowest, highest = (spec.output(sums) for sums in ends)
    widest = np.maximum(*(np.abs(sums + spec.bias) for sums in ends)) << np.maximum(spec.shift, 0).astype(np.int64)
    still = (lowest == highest) & (widest < 1 << 31)
    if not still.any():
        return spec
    multiplier, shift = (np.broadcast_to(each, still.shape) for each in (spec.multiplier, spec.shift))
    if spec.per_channel:
        usual = int(np.clip(shift[~still].max(initial=STEEPEST[0]), *STEEPEST))
        multiplier, shift = np.where(still, 1 << 30, multiplier), np.where(still, usual, shift)
    wanted = lowest.astype(np.int64) - spec.zero_y
    bias = np.clip(np.rint(wanted * 2.0 ** (31 - shift) / np.maximum(multiplier, 1)), -(1 << 30), 1 << 30)
    still &= requantize(bias.astype(np.int64), multiplier, shift, spec.rounding) == wanted
    return replace(
        spec,
        weight=np.where(still.reshape(-1, *[1] * (spec.weight.ndim - 1)), 0, spec.weight).astype(spec.weight.dtype),
        bias=np.where(still, bias, spec.bias).astype(np.int32),
        multiplier=np.where(still, multiplier, spec.multiplier).astype(np.int32)[: spec.multiplier.size],
        shift=np.where(still, shift, spec.shift).astype(np.int32)[: spec.shift.size],
    )


def _told(spec: LinearSpec, least: Array, right: Array, common: int) -> LinearSpec | None:
    """The layer with right shifts `right` that multipliers tell, None where one of these does not exist.

    `least`: the least sums that reach `_values`. Where there are two values alone they leave the scale open: one that
    is not far beyond the sums keeps the bias small.
    """
    lowest, highest = _limits(spec)
    real = spec.multiplier * 2.0 ** (spec.shift + right)
    steep = np.clip(2.0 ** (30 + right) / np.maximum(highest - lowest, 1)[:, 0], 0, 1 << 30)
    nearest = np.where(_changes(spec, least).sum(axis=1) == 1, np.maximum(steep, real), real).astype(np.int64)
    last = right + common
    below = np.maximum(nearest - ((nearest - last) & LAST), last)
    first, second = (_rebiased(spec, each, right, least) for each in (below, below + LAST + 1))
    kept = _keeps(first, least)
    if not (kept | _keeps(second, least)).all():
        return None
    multiplier, bias = (np.where(kept, getattr(first, name), getattr(second, name)) for name in ("multiplier", "bias"))
    return replace(first, multiplier=multiplier, bias=bias)


def _rebiased(spec: LinearSpec, multiplier: Array, right: Array, least: Array) -> LinearSpec:
    """The layer by other scales, with biases by which y changes first at the same sum."""
    lowest, highest = _limits(spec)
    scaled = replace(spec, multiplier=multiplier.astype(np.int32), shift=-right.astype(np.int32))
    changes = _changes(spec, least)
    first = changes.argmax(axis=1)[:, None]
    moved = np.take_along_axis(_enough(scaled) - least, first, axis=1)[:, 0]
    fits = np.abs(moved) + 2 * (highest - lowest)[:, 0] < 1 << 31
    return replace(scaled, bias=np.where(changes.any(axis=1) & fits, moved, spec.bias).astype(np.int32))


def _limits(spec: LinearSpec) -> tuple[Array, Array]:
    """The least and the largest sum of each output, (outputs, 1)."""
    weight = spec.weight.reshape(len(spec.weight), -1).astype(np.int64)
    up, down = (part.sum(axis=1, keepdims=True) for part in (np.maximum(weight, 0), np.minimum(weight, 0)))
    low, high = (edge - spec.zero_x for edge in spec.dtype.limits)
    return up * low + down * high, up * high + down * low


def _changes(spec: LinearSpec, least: Array) -> Array:
    """Whether there are sums that reach each of `_values` and sums that don't, (outputs, values)."""
    lowest, highest = _limits(spec)
    return np.asarray((least > lowest) & (least <= highest))


def _values(spec: LinearSpec) -> Array:
    """The values of y but the lowest, (1, values)."""
    return np.arange(spec.low + 1, spec.high + 1)[None]


def _bounds(spec: LinearSpec, *, negative: bool) -> Array:
    """What (sum + bias) * multiplier is at least where y reaches each of `_values`, (outputs, values)."""
    right, twice = -spec.shift.astype(np.int64)[:, None], spec.rounding is not Rounding.SINGLE
    halves = np.clip(((_values(spec) - spec.zero_y) << right) - ((1 << right) >> 1), -(1 << 31), 1 << 31)
    half = np.where(twice | (right == 0), 1 << 30, 0)
    more = np.where(twice & negative & (right > 0), 1 << 31, 0)
    return np.asarray((halves << 31) - half + more)


def _enough(spec: LinearSpec) -> Array:
    """The least sum + bias that reaches each of `_values`, (outputs, values)."""
    multiplier = spec.multiplier.astype(np.int64)[:, None]
    below, above = (-(-_bounds(spec, negative=sign) // multiplier) for sign in (True, False))
    return np.where(below < 0, below, np.maximum(above, 0))


def _least_sums(spec: LinearSpec) -> Array:
    """The least sum that reaches each of `_values`, (outputs, values): one more than the largest sum if none does."""
    lowest, highest = _limits(spec)
    return np.asarray(np.clip(_enough(spec) - spec.bias[:, None], lowest, highest + 1))


def _keeps(spec: LinearSpec, least: Array) -> Array:
    """Of each output, whether `least` are the least sums that reach `_values`, computed as the layer does it."""
    lowest, highest = _limits(spec)
    multiplier, shift = spec.multiplier[:, None], spec.shift[:, None]
    at, before = (
        requantize(sums + spec.bias[:, None], multiplier, shift, spec.rounding) + spec.zero_y >= _values(spec)
        for sums in (least, least - 1)
    )
    return np.asarray((at | (least > highest)).all(axis=1) & (~before | (least <= lowest)).all(axis=1))

"""Maximum and average over windows of a channels-last tensor, one or two spatial axes.

The int8 average is TensorFlow Lite's: the integer sum over the count, halves away from zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.fixedpoint import quantize
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Field, Kernel, Op, Operands, QuantRule, only_quant, operator
from toolchain.ops.overlap import Int, by_lanes, by_pixel, first_inputs, first_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.ir.graph import Tensor

Pairs = tuple[tuple[int, int], ...]
Clamp = tuple[float, float]
FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Windows:
    """The geometry of sliding windows, one entry per spatial axis."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]

    def output(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """The number of windows per axis. Raises ValueError where none fits."""
        axes = zip(spatial, self.window, self.stride, self.padding, self.dilation, strict=True)
        counts = tuple((n + b + e - d * (k - 1) - 1) // s + 1 for n, k, s, (b, e), d in axes)
        if min(counts) < 1:
            raise ValueError(f"a window of {self.window} does not fit {spatial} padded by {self.padding}")
        return counts

    def taps(self, x: Array, fill: float) -> Iterator[Array]:
        """For each position in the window, the padded input's values under it, shaped as the output."""
        padded = np.pad(x, ((0, 0), *self.padding, (0, 0)), constant_values=fill)
        counts = self.output(x.shape[1:-1])
        for offsets in product(*(range(k) for k in self.window)):
            axes = zip(offsets, counts, self.stride, self.dilation, strict=True)
            index = (slice(None), *(slice(o * d, o * d + s * (n - 1) + 1, s) for o, n, s, d in axes))
            yield padded[index]

    def first_pixels(self, x: TensorType) -> Int:
        """The lowest input pixel of each window."""
        spatial = x.shape[1:-1]
        begins = [begin for begin, _ in self.padding]
        axes = zip(spatial, self.output(spatial), self.window, self.stride, self.dilation, begins, strict=True)
        return first_pixels([first_inputs(*axis) for axis in axes], spatial, x.shape[0])

    def record(self, x: TensorType, y: TensorType) -> dict[str, Field]:
        """The kernel's fields; one spatial axis is a picture of height 1."""
        rank = len(self.window)
        fields: dict[str, Field] = {"batch": x.shape[0], "channels": x.shape[-1]}
        begins = tuple(begin for begin, _ in self.padding)
        for name, values, single in (
            ("in", x.shape[1:-1], 1),
            ("out", y.shape[1:-1], 1),
            ("window", self.window, 1),
            ("stride", self.stride, 1),
            ("pad", begins, 0),
            ("dilation", self.dilation, 1),
        ):
            fields[f"{name}_y"], fields[f"{name}_x"] = values if rank == 2 else (single, *values)
        return fields


def clamp_limits(clamp: Clamp | None, y: Tensor) -> tuple[float, float] | None:
    """The fused activation's limits in the output's own numbers; None where they limit nothing."""
    if clamp is None:
        return None
    if y.type.dtype is DType.FLOAT32:
        return max(clamp[0], -FLOAT_MAX), min(clamp[1], FLOAT_MAX)
    low, high = (int(quantize(edge, *only_quant(y), *y.type.dtype.limits)) for edge in clamp)
    return None if (low, high) == y.type.dtype.limits else (low, high)


def _clamped(y: Array, limits: tuple[float, float] | None) -> Array:
    return y if limits is None else np.clip(y, limits[0], limits[1]).astype(y.dtype)


def _type_limits(dtype: DType) -> tuple[float, float]:
    return (-FLOAT_MAX, FLOAT_MAX) if dtype is DType.FLOAT32 else dtype.limits


MOST_SUMMED = 255
"""int8 values whose sum fits int16."""
BYTES = 4
"""Channels that cores with DSP instructions take at a time."""


BODY_HELPERS = {
    "pairs": ("four_bytes", "int16_pairs", "window_sums"),
    "quads": ("four_bytes", "larger_bytes", "window_max", "largest_bytes"),
}
"""What bodies for DSP instructions call."""
MVE_HELPERS: dict[str | None, tuple[str, ...]] = {
    "pairs": ("window_sums_mve",),
    "quads": ("window_max", "largest_bytes_mve"),
}
"""What bodies for MVE call, where there are some."""


def _kernel(macro: str, name: str, y: Tensor, *, clamped: bool, **variant: Any) -> Kernel:
    dtype = y.type.dtype
    body = next((flag for flag in BODY_HELPERS if variant.get(flag)), None)
    suffix = "_clamped" if clamped and name != "avgpool_padded" else ""
    facts = {
        "type": dtype.c,
        "float": dtype is DType.FLOAT32,
        "lowest": _type_limits(dtype)[0],
        "clamped": clamped,
        **variant,
    }
    symbol = f"{name}{suffix}{'_any' if dtype is DType.INT8 and not body else ''}_{dtype.short}"
    dsp = BODY_HELPERS[body] if body else ()
    return Kernel("pool", macro, symbol, tuple(facts.items()), dsp_helpers=dsp, mve_helpers=MVE_HELPERS.get(body))


def _limit_fields(limits: tuple[float, float] | None) -> dict[str, Field]:
    return {} if limits is None else {"low": limits[0], "high": limits[1]}


def _spatial_rank(window: tuple[int, ...], x: TensorType) -> None:
    if len(window) not in {1, 2} or len(x.shape) != len(window) + 2:
        raise ValueError(f"a window of {window} does not fit the shape {x.shape}")


@operator("pool")
@dataclass(frozen=True, slots=True)
class MaxPool(Op):
    """The maximum over each window; padding never wins."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    clamp: Clamp | None = None

    quant_rule = QuantRule.SAME_AS_INPUT

    def _windows(self) -> Windows:
        return Windows(self.window, self.stride, self.padding, self.dilation)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x = inputs[0]
        _spatial_rank(self.window, x)
        return (TensorType((x.shape[0], *self._windows().output(x.shape[1:-1]), x.shape[-1]), x.dtype),)

    def _max(self, x: Array) -> Array:
        lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
        taps = self._windows().taps(x, lowest)
        best: Array = next(taps).copy()
        for tap in taps:
            np.maximum(best, tap, out=best)
        return best

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        return (_clamped(self._max(inputs[0]), self.clamp),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        return (_clamped(self._max(inputs[0]), clamp_limits(self.clamp, operands.outputs[0])),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x, y = operands.inputs[0], operands.outputs[0]
        limits = clamp_limits(self.clamp, y)
        record = self._windows().record(x.type, y.type) | _limit_fields(limits)
        overlap = by_pixel(self._windows().first_pixels(x.type), x.type, y.type, writes_first=True)
        quads = y.type.dtype is DType.INT8 and y.type.shape[-1] >= BYTES
        kernel = _kernel("maxpool", "maxpool", y, clamped=limits is not None, quads=quads)
        return (Call(kernel, record, overlaps=(overlap,)),)


@operator("pool")
@dataclass(frozen=True, slots=True)
class AvgPool(Op):
    """The average over each window. The divisor counts the input and `counted`, the padding that counts as zeros.

    `counted` is () where none does, or has (begin, end) per spatial axis, no more than `padding`; `include_pad`
    without it counts all of `padding`. `halves_up`: int8 that was uint8 in the model, whose halves go up and not
    away from zero.
    """

    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    include_pad: bool = False
    counted: Pairs = ()
    clamp: Clamp | None = None
    halves_up: bool = False

    quant_rule = QuantRule.SAME_AS_INPUT

    def __post_init__(self) -> None:
        counted = self.counted or (self.padding if self.include_pad else ())
        object.__setattr__(self, "counted", counted if np.any(counted) else ())
        object.__setattr__(self, "include_pad", bool(self.counted))
        if self.halves_up and self.counted:
            raise ValueError("halves go up only where no padding counts")

    def _windows(self) -> Windows:
        return Windows(self.window, self.stride, self.padding, (1,) * len(self.window))

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x = inputs[0]
        _spatial_rank(self.window, x)
        return (TensorType((x.shape[0], *self._windows().output(x.shape[1:-1]), x.shape[-1]), x.dtype),)

    def _counts(self, spatial: tuple[int, ...], counted: Pairs) -> Array:
        """How many positions of each window lie in the input or the counted padding, shaped (*output, 1)."""
        counts = np.ones((), np.int64)
        outputs = self._windows().output(spatial)
        axes = zip(spatial, outputs, self.window, self.stride, self.padding, counted, strict=True)
        for n, out, k, stride, (begin, _), (before, after) in axes:
            first = np.arange(out) * stride - begin
            inside = np.minimum(first + k, n + after) - np.maximum(first, -before)
            counts = counts[..., None] * np.maximum(inside, 0)
        return counts[..., None]

    def _divisors(self, spatial: tuple[int, ...]) -> Array:
        counted = self.counted or ((0, 0),) * len(spatial)
        return np.maximum(self._counts(spatial, counted), 1)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x = inputs[0]
        total = sum(self._windows().taps(x, 0.0), np.zeros((), np.float32))
        divisors = self._divisors(x.shape[1:-1]).astype(np.float32)
        return (_clamped((total / divisors).astype(np.float32), self.clamp),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        x, y = inputs[0], operands.outputs[0]
        spatial = x.shape[1:-1]
        _, zero_point = only_quant(y)
        divisors = self._divisors(spatial)
        total = sum(self._windows().taps(x.astype(np.int32), 0), np.zeros((), np.int32)).astype(np.int64)
        if self.counted:
            total = total + zero_point * (divisors - self._counts(spatial, ((0, 0),) * len(spatial)))
        mean = np.sign(total) * ((np.abs(total) + divisors // 2) // divisors)
        if self.halves_up:
            mean = (total + divisors // 2) // divisors
        low, high = y.type.dtype.limits
        return (_clamped(np.clip(mean, low, high).astype(x.dtype), clamp_limits(self.clamp, y)),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x, y = operands.inputs[0], operands.outputs[0]
        limits = clamp_limits(self.clamp, y)
        if self.counted and limits is None:
            limits = _type_limits(y.type.dtype)
        record = self._windows().record(x.type, y.type) | _limit_fields(limits)
        del record["dilation_y"], record["dilation_x"]
        macro = "avgpool" if y.type.dtype is DType.FLOAT32 else "avgpool_int"
        pixels = self._windows().first_pixels(x.type)
        whole = macro == "avgpool"
        overlap = by_pixel(pixels, x.type, y.type, writes_first=True) if whole else by_lanes(pixels, x.type)
        pairs = self._sums_pairs(x.type)
        up = self.halves_up and macro == "avgpool_int"
        name = "avgpool_up" if up else "avgpool"
        kernel = _kernel(macro, name, y, clamped=limits is not None, padded=False, pairs=pairs, up=up)
        if self.counted:
            record |= self._counted_fields()
            kernel = _kernel(macro, "avgpool_padded", y, clamped=True, padded=True, pairs=pairs, up=False)
            if macro == "avgpool_int":
                record["zero_point"] = only_quant(y)[1]
        return (Call(kernel, record, overlaps=(overlap,)),)

    def _sums_pairs(self, x: TensorType) -> bool:
        """Whether sums over windows fit int16 and four channels are read at a time."""
        inside = math.prod(min(*sizes) for sizes in zip(self.window, x.shape[1:-1], strict=True))
        return x.dtype is DType.INT8 and inside <= MOST_SUMMED and x.shape[-1] >= BYTES

    def _counted_fields(self) -> dict[str, Field]:
        (top, bottom), (left, right) = ((0, 0), *self.counted)[-2:]
        return {"before_y": top, "after_y": bottom, "before_x": left, "after_x": right}

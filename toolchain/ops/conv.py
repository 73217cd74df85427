"""Convolutions and transposed convolutions, channels last, one or two spatial axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from toolchain.ir.graph import Tensor
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops import depthwise_mve, depthwise_taps, groups
from toolchain.ops.base import Call, Field, Op, Operands, float32, operator
from toolchain.ops.dense import dense_call
from toolchain.ops.depthwise import depthwise_call
from toolchain.ops.linear import (
    Clamp,
    LinearSpec,
    clamped,
    constant,
    constant_reason,
    dot_helper,
    integer_spec,
    kernel_spec,
    linear_call_parts,
    linear_kernel,
    weights_of,
)
from toolchain.ops.overlap import FAR, Int, Overlap, by_channel, first_inputs, first_pixels
from toolchain.ops.patches import patch_call

Pairs = tuple[tuple[int, int], ...]
SINGLE_GROUP = ("group_inputs", "group_outputs", "dilation_x")
"""Fields of the geometry that a convolution in one group without dilation along x does not have."""
DEPTHWISE = ("in_channels", "out_channels", "group_inputs", "group_outputs")
"""Fields that a convolution of each channel for itself does not have."""
CHUNK = 1 << 24
"""Elements of gathered inputs the reference holds at a time."""


def _check(op: Conv | ConvTranspose, x: TensorType, weight: TensorType, bias: TensorType) -> None:
    rank = len(op.stride)
    if rank not in {1, 2} or {len(op.dilation), len(op.padding)} != {rank}:
        raise ValueError(f"stride {op.stride}, dilation {op.dilation} and padding {op.padding} need 1 or 2 axes each")
    if len(x.shape) != rank + 2 or len(weight.shape) != rank + 2:
        raise ValueError(f"input {x.shape} and weights {weight.shape}, expected {rank} spatial axes")
    channels, outputs = x.shape[-1], weight.shape[0]
    if channels != weight.shape[-1] * op.groups or outputs % op.groups:
        raise ValueError(f"groups={op.groups}, weights {weight.shape} do not fit {channels} input channels")
    if bias.shape != (outputs,):
        raise ValueError(f"bias of shape {bias.shape}, expected ({outputs},)")


def _ungrouped(operands: Operands, groups: int) -> Operands:
    """The operands of a convolution of each channel for itself as those of one in a single group, with zeros."""
    x, weight, *rest = operands.inputs
    data = constant(weight)
    own = np.arange(len(data)) * groups // len(data)
    full = np.where(np.arange(groups) == own.reshape(-1, *[1] * (data.ndim - 1)), data, 0).astype(data.dtype)
    return replace(operands, inputs=(x, replace(weight, type=replace(weight.type, shape=full.shape), data=full), *rest))


def _output(x: TensorType, weight: TensorType, spatial: Sequence[int]) -> tuple[TensorType, ...]:
    if min(spatial) < 1:
        raise ValueError(f"a kernel of {weight.shape[1:-1]} does not fit an input of {x.shape[1:-1]}")
    return (TensorType((x.shape[0], *spatial, weight.shape[0])),)


def _planar(values: tuple[int, ...], single: int = 1) -> tuple[int, int]:
    """(y, x): one spatial axis is a picture of height 1."""
    y, x = (single, *values)[-2:]
    return y, x


def _record(op: Conv | ConvTranspose, operands: Operands) -> dict[str, Field]:
    """The geometry, everything any of the kernels asks for."""
    x, weight = operands.inputs[0].type.shape, operands.inputs[1].type.shape
    y = operands.outputs[0].type.shape
    pairs: tuple[tuple[str, tuple[int, int]], ...] = (
        ("in", _planar(x[1:-1])),
        ("out", _planar(y[1:-1])),
        ("kernel", _planar(weight[1:-1])),
        ("stride", _planar(op.stride)),
        ("dilation", _planar(op.dilation)),
        ("pad", _planar(tuple(begin for begin, _ in op.padding), 0)),
    )
    fields: dict[str, Field] = {"batch": x[0]}
    for name, values in pairs:
        fields[f"{name}_y"], fields[f"{name}_x"] = values
        if name in {"in", "out"}:
            fields[f"{name}_channels"] = x[-1] if name == "in" else y[-1]
    return fields | {"group_inputs": weight[-1], "group_outputs": weight[0] // op.groups}


def _upright(record: dict[str, Field]) -> dict[str, Field]:
    """A convolution dilated along x over pictures of height 1 as one along y over pictures of width 1: the same bytes.

    Kernels that copy rows of windows take dilation along y.
    """
    flat = record["in_y"] == record["kernel_y"] == record["out_y"] == 1
    if not flat or record["dilation_x"] == 1:
        return record
    turned = {name: f"{name[:-1]}{'x' if name.endswith('y') else 'y'}" for name in record if name[-2:] in {"_y", "_x"}}
    return {name: record[turned.get(name, name)] for name in record}


def _axes(record: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(inputs, outputs, kernel, stride, dilation, padding) along y and along x."""
    names = ("in", "out", "kernel", "stride", "dilation", "pad")
    y, x = (tuple(record[f"{name}_{axis}"] for name in names) for axis in "yx")
    return y, x


def transposed_inputs(inputs: int, outputs: int, kernel: int, stride: int, dilation: int, pad: int) -> Int:
    """The first input that reaches each output along an axis of a transposed convolution, FAR where none does."""
    ahead = np.arange(outputs)[:, None] + pad - np.arange(kernel) * dilation
    meets = (ahead >= 0) & (ahead % stride == 0) & (ahead // stride < inputs)
    return np.asarray(np.where(meets, ahead // stride, FAR).min(axis=1), np.int64)


def _overlap(operands: Operands, record: Mapping[str, Any], *, groups: int, transposed: bool = False) -> Overlap:
    """How far the output may lie over the input when a pixel's channels are computed one after another."""
    x, y = operands.inputs[0].type, operands.outputs[0].type
    return by_channel(_window_starts(operands, record, transposed=transposed), x, y, groups)


def _window_starts(operands: Operands, record: Mapping[str, Any], *, transposed: bool = False) -> Int:
    """The lowest input pixel under each output pixel."""
    along_y, along_x = _axes(record)
    first = transposed_inputs if transposed else first_inputs
    axes = [first(*along_y), first(*along_x)]
    return first_pixels(axes, (along_y[0], along_x[0]), operands.inputs[0].type.shape[0])


def _padded(x: Array, padding: Pairs) -> Array:
    """`x` with zeros around; negative padding crops."""
    grown = np.pad(x, ((0, 0), *((max(b, 0), max(e, 0)) for b, e in padding), (0, 0)))
    crops = (slice(max(-b, 0), n - max(-e, 0)) for (b, e), n in zip(padding, grown.shape[1:-1], strict=True))
    where = (slice(None), *crops)
    return grown[where]


def _taps(op: Conv | ConvTranspose, kernel: tuple[int, ...], counts: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """For each tap, row by row, where it meets the (padded) spatial axes: `counts` places, a stride apart."""
    for tap in product(*(range(k) for k in kernel)):
        axes = zip(tap, counts, op.stride, op.dilation, strict=True)
        yield (slice(None), *(slice(t * d, t * d + s * (n - 1) + 1, s) for t, n, s, d in axes))


def _grouped(x: Array, weight: Array, groups: int) -> Array:
    """Return x (..., channels) times weight (outputs, channels / groups): (..., outputs), each group for itself."""
    if groups == 1:
        return np.asarray(x @ weight.T)
    lead, outputs = x.shape[:-1], len(weight)
    rows = x.reshape(-1, groups, x.shape[-1] // groups).transpose(1, 0, 2)
    columns = weight.reshape(groups, outputs // groups, -1).transpose(0, 2, 1)
    return np.asarray((rows @ columns).transpose(1, 0, 2).reshape(*lead, outputs))


def _in_chunks(x: Array, elements: int, function: Callable[[Array], Array]) -> Array:
    """`function` over batches so small that `elements` per sample stay within CHUNK."""
    size = max(CHUNK // max(elements, 1), 1)
    return np.concatenate([function(x[first : first + size]) for first in range(0, max(len(x), 1), size)])


@operator("conv")
@dataclass(frozen=True, slots=True)
class Conv(Op):
    """(x[n, *spatial, c], weight[o, *kernel, c / groups], bias[o]). Depthwise: groups == c, any multiplier."""

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs
    groups: int = 1
    clamp: Clamp | None = None

    weight = 1
    bias = 2

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, weight, bias = inputs
        _check(self, x, weight, bias)
        return _output(x, weight, self._spatial(x.shape[1:-1], weight.shape[1:-1]))

    def _spatial(self, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> list[int]:
        axes = zip(sizes, kernel, self.stride, self.dilation, self.padding, strict=True)
        return [(n + b + e - d * (k - 1) - 1) // s + 1 for n, k, s, d, (b, e) in axes]

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x, weight, bias = float32(*inputs)
        return (self._run(x, weight, lambda part: part, lambda sums: clamped(sums + bias, self.clamp)),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        spec = integer_spec(operands, self.clamp)
        if spec is None:
            return self.reference(*inputs)
        return (self._run(inputs[0], spec.weight.astype(spec.exact), spec.centred, spec.output),)

    def _run(self, x: Array, weight: Array, before: Callable[[Array], Array], after: Callable[[Array], Array]) -> Array:
        counts = self._spatial(x.shape[1:-1], weight.shape[1:-1])
        depth = max(weight[0].size * self.groups, len(weight))
        return _in_chunks(x, math.prod(counts) * depth, lambda part: after(self._sums(before(part), weight, counts)))

    def _sums(self, x: Array, weight: Array, counts: Sequence[int]) -> Array:
        """The sums of products, (n, *counts, outputs)."""
        padded, outputs = _padded(x, self.padding), len(weight)
        places = list(_taps(self, weight.shape[1:-1], counts))
        if weight.shape[-1] == 1 and self.groups > 1:
            multiplier = outputs // self.groups
            columns = weight.reshape(outputs, -1).T
            parts = (np.repeat(padded[place], multiplier, -1) if multiplier > 1 else padded[place] for place in places)
            return sum((part * column for part, column in zip(parts, columns, strict=True)), np.zeros((), x.dtype))
        taps = np.stack([padded[place] for place in places], axis=-2)
        lead, groups, depth = taps.shape[:-2], self.groups, weight.shape[-1]
        if groups > 1:
            taps = taps.reshape(*lead, len(places), groups, depth).swapaxes(-2, -3)
        return _grouped(taps.reshape(*lead, -1), weight.reshape(outputs, -1), groups)

    @property
    def _unpadded(self) -> bool:
        return all(begin <= 0 and end <= 0 for begin, end in self.padding)

    def _pointwise(self, kernel: tuple[int, ...]) -> bool:
        plain = {*kernel, *self.stride, self.groups} == {1}
        return plain and all(pair == (0, 0) for pair in self.padding)

    def _few_channels(self, operands: Operands) -> bool:
        """Whether it is less work to multiply an int8 pixel by zeros than to go through its channels one by one."""
        x, weight = operands.inputs[0].type, operands.inputs[1].type
        several = 1 < self.groups == x.shape[-1] < min(depthwise_taps.LANES, weight.shape[0])
        return several and (x.dtype, weight.dtype) == (DType.INT8, DType.INT8)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        if self._few_channels(operands):
            return replace(self, groups=1).lower(_ungrouped(operands, self.groups))
        shape = operands.inputs[1].type.shape
        spec = kernel_spec(operands, self.clamp)
        wide = spec is not None and spec.wide
        if self._pointwise(shape[1:-1]) and not wide:
            return (dense_call(operands, self.clamp, spec),)
        channels = operands.inputs[0].type.shape[-1]
        record = _upright(_record(self, operands))
        if self.groups == channels == shape[0] > 1 and not wide:
            geometry = {"channels": channels, **{name: record[name] for name in record if name not in DEPTHWISE}}
            call = depthwise_call(operands, self.clamp, spec, geometry, _axes(record), padded=not self._unpadded)
            call = depthwise_taps.with_body(call, operands, spec, _axes(record))
            return (depthwise_mve.with_body(call, operands, spec, _axes(record)),)
        if self.groups == 1 and not wide and (record["dilation_x"] == 1 or record["kernel_x"] == 1):
            starts = _window_starts(operands, record)
            geometry = {name: record[name] for name in record if name not in SINGLE_GROUP}
            return (patch_call(operands, self.clamp, spec, geometry, starts),)
        if spec is not None and groups.takes(spec):
            return (groups.groups_call(operands, self.clamp, spec, record, _window_starts(operands, record)),)
        weight = weights_of(operands, spec)
        variant, fields = linear_call_parts(operands, self.clamp, weight, spec, padded=not self._unpadded)
        kernel = linear_kernel("conv", "conv_grouped", variant, dot_helper(variant))
        overlap = _overlap(operands, record, groups=self.groups)
        call = Call(kernel, {**record, **fields}, overlaps=(overlap,))
        return (depthwise_taps.with_body(call, operands, spec, _axes(record)),)

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        del outputs, dtype
        return constant_reason(inputs)

    def macs(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> int:
        return outputs[0].elements * math.prod(inputs[1].shape[1:])


@operator("conv")
@dataclass(frozen=True, slots=True)
class ConvTranspose(Op):
    """(x[n, *spatial, c], weight[o, *kernel, c / groups], bias[o]): each input adds a kernel to the output."""

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs
    output_padding: tuple[int, ...]
    groups: int = 1
    clamp: Clamp | None = None

    weight = 1
    bias = 2

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, weight, bias = inputs
        _check(self, x, weight, bias)
        if len(self.output_padding) != len(self.stride):
            raise ValueError(f"output_padding {self.output_padding}, expected {len(self.stride)} axes")
        return _output(x, weight, self._spatial(x.shape[1:-1], weight.shape[1:-1]))

    def _spatial(self, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> list[int]:
        axes = zip(sizes, kernel, self.stride, self.dilation, self.padding, self.output_padding, strict=True)
        return [(n - 1) * s + d * (k - 1) + 1 - b - e + extra for n, k, s, d, (b, e), extra in axes]

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x, weight, bias = float32(*inputs)
        return (self._run(x, weight, lambda part: part, lambda sums: clamped(sums + bias, self.clamp)),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        spec: LinearSpec | None = integer_spec(operands, self.clamp)
        if spec is None:
            return self.reference(*inputs)
        return (self._run(inputs[0], spec.weight.astype(spec.exact), spec.centred, spec.output),)

    def _run(self, x: Array, weight: Array, before: Callable[[Array], Array], after: Callable[[Array], Array]) -> Array:
        elements = math.prod(self._spatial(x.shape[1:-1], weight.shape[1:-1])) * len(weight) * 2
        return _in_chunks(x, elements, lambda part: after(self._sums(before(part), weight)))

    def _sums(self, x: Array, weight: Array) -> Array:
        """The sums of products: kernels added up on a canvas, of which the padding is cut off."""
        kernel = weight.shape[1:-1]
        spatial = self._spatial(x.shape[1:-1], kernel)
        axes = zip(x.shape[1:-1], kernel, self.stride, self.dilation, self.output_padding, strict=True)
        canvas = [(n - 1) * s + d * (k - 1) + 1 + max(extra, 0) for n, k, s, d, extra in axes]
        sides = [max(c, b + n) for c, (b, _), n in zip(canvas, self.padding, spatial, strict=True)]
        grown = np.zeros((len(x), *sides, len(weight)), x.dtype)
        columns = weight.reshape(len(weight), -1, weight.shape[-1])
        for index, place in enumerate(_taps(self, kernel, x.shape[1:-1])):
            grown[place] += _grouped(x, columns[:, index], self.groups)
        crops = [slice(b, b + n) for (b, _), n in zip(self.padding, spatial, strict=True)]
        where = (slice(None), *crops)
        return grown[where]

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        spec = kernel_spec(operands, self.clamp)
        variant, fields = linear_call_parts(operands, self.clamp, weights_of(operands, spec), spec, padded=True)
        record = _record(self, operands)
        overlap = _overlap(operands, record, groups=self.groups, transposed=True)
        return (
            Call(
                linear_kernel("conv", "conv_transpose", variant, dot_helper(variant)),
                {**record, **fields},
                overlaps=(overlap,),
            ),
        )

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        del outputs, dtype
        return constant_reason(inputs)

    def macs(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> int:
        del outputs
        return inputs[0].elements * math.prod(inputs[1].shape[:-1]) // self.groups

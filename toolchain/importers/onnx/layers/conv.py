"""Conv and ConvTranspose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.importers.onnx.layer import Layer, handles, pairs
from toolchain.ops.conv import Conv, ConvTranspose

if TYPE_CHECKING:
    from toolchain.ir.types import Array

Padding = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The geometry ONNX's convolutions and poolings share."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Extent of the dilated kernel."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))


def window_of(layer: Layer, kernel: tuple[int, ...]) -> Window:
    """The window of a layer whose kernel extents are known. Raises ValueError for lists of a wrong length."""
    rank = layer.spatial_rank()
    lists = {"kernel_shape": kernel}
    for name in ("strides", "dilations"):
        lists[name] = tuple(int(i) for i in layer.get(name, (1,) * rank))
    for name, values in lists.items():
        if len(values) != rank or min(values) < 1:
            raise ValueError(f"{name} {list(values)}, expected {rank} positive numbers")
    return Window(lists["kernel_shape"], lists["strides"], lists["dilations"])


def padding_of(layer: Layer, window: Window) -> Padding:
    """Explicit padding, from `pads` or from `auto_pad`."""
    auto = layer.get("auto_pad", "NOTSET")
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        return tuple(
            _halves(max((-(-extent // stride) - 1) * stride + reach - extent, 0), smaller_first=auto == "SAME_UPPER")
            for extent, stride, reach in zip(layer.shape[2:], window.stride, window.reach, strict=True)
        )
    rank = len(window.kernel)
    pads = (0,) * 2 * rank if auto == "VALID" else tuple(layer.get("pads", (0,) * 2 * rank))
    if len(pads) != 2 * rank:
        raise ValueError(f"pads {list(pads)}, expected {2 * rank} numbers")
    if min(pads) < 0:
        raise NoCFormError(f"negative pads {list(pads)}, expected 0 or more")
    return pairs(pads)


def _halves(total: int, *, smaller_first: bool) -> tuple[int, int]:
    small = total // 2
    return (small, total - small) if smaller_first else (total - small, small)


def _weight(layer: Layer) -> Array:
    weight = layer.constant_value(1, "weight")
    if weight.ndim != layer.rank:
        raise ValueError(f"weight of shape {weight.shape}, expected rank {layer.rank}")
    declared = layer.get("kernel_shape", None)
    if declared is not None and tuple(declared) != weight.shape[2:]:
        raise ValueError(f"kernel_shape {list(declared)}, expected {list(weight.shape[2:])} from the weight")
    return weight


def _bias(layer: Layer, channels: int) -> str:
    value = layer.value(2)
    if value is None:
        return layer.constant(np.zeros(channels, np.float32), "bias")
    if value.shape != (channels,):
        raise ValueError(f"bias of shape {value.shape}, expected ({channels},)")
    return layer.inputs[2]


def _late_bias(layer: Layer, y: str) -> str:
    """Add a bias that is computed at run time."""
    if not layer.has(2) or layer.value(2) is not None:
        return y
    return layer.binary("add", y, layer.reshape(layer.inputs[2], (-1, *(1,) * (layer.rank - 2))))


@handles("Conv")
def conv(layer: Layer) -> str:
    """Convolution of (N, C, *spatial)."""
    weight = _weight(layer)
    window = window_of(layer, weight.shape[2:])
    op = Conv(window.stride, window.dilation, padding_of(layer, window), int(layer.get("group", 1)))
    last = layer.builder.constant(layer.inputs[1], np.moveaxis(weight, 1, -1))
    y = layer.add(op, layer.channels_last(layer.x), last, _bias(layer, weight.shape[0]))
    return _late_bias(layer, layer.channels_first(y))


@handles("ConvTranspose")
def conv_transpose(layer: Layer) -> str:
    """Transposed convolution; ONNX keeps its weight as (I, O/groups, *kernel)."""
    weight = _weight(layer)
    window = window_of(layer, weight.shape[2:])
    groups = int(layer.get("group", 1))
    if groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"group {groups}, expected a divisor of {weight.shape[0]} channels")
    padding, extra = _transposed_padding(layer, window)
    channels = weight.shape[1] * groups
    grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    last = np.moveaxis(grouped, 1, -1).reshape(channels, *window.kernel, weight.shape[0] // groups)
    op = ConvTranspose(window.stride, window.dilation, padding, extra, groups)
    weight_name = layer.builder.constant(layer.inputs[1], last)
    y = layer.add(op, layer.channels_last(layer.x), weight_name, _bias(layer, channels))
    return _late_bias(layer, layer.channels_first(y))


def _transposed_padding(layer: Layer, window: Window) -> tuple[Padding, tuple[int, ...]]:
    """(padding, output_padding) by the formulas of ONNX's ConvTranspose."""
    rank = len(window.kernel)
    extra = tuple(int(i) for i in layer.get("output_padding", (0,) * rank))
    auto = layer.get("auto_pad", "NOTSET")
    target = layer.get("output_shape", None)
    if target is None and auto in {"SAME_UPPER", "SAME_LOWER"}:
        target = [extent * stride for extent, stride in zip(layer.shape[2:], window.stride, strict=True)]
    if target is None:
        return padding_of(layer, window), extra
    totals = [
        stride * (extent - 1) + more + reach - wanted
        for stride, extent, more, reach, wanted in zip(
            window.stride, layer.shape[2:], extra, window.reach, tuple(target)[-rank:], strict=True
        )
    ]
    padding = tuple(_halves(max(total, 0), smaller_first=auto == "SAME_UPPER") for total in totals)
    return padding, tuple(more + max(-total, 0) for more, total in zip(extra, totals, strict=True))

"""MaxPool, AveragePool and the global poolings."""

from __future__ import annotations

from toolchain.importers.layer import NoCFormError
from toolchain.importers.onnx.layer import Layer, handles
from toolchain.importers.onnx.layers.conv import Padding, Window, padding_of, window_of
from toolchain.ops.pool import AvgPool, MaxPool
from toolchain.ops.reduce import Reduce


def _pool_window(layer: Layer) -> Window:
    kernel = layer.get("kernel_shape", None)
    if kernel is None:
        raise ValueError("no kernel_shape, expected one number per spatial axis")
    return window_of(layer, tuple(int(k) for k in kernel))


def _ceiled(layer: Layer, window: Window, padding: Padding) -> Padding:
    """The padding with as much more at the end as `ceil_mode` needs; no window starts in that part."""
    if not layer.get("ceil_mode", 0):
        return padding
    axes = zip(layer.shape[2:], window.stride, window.reach, padding, strict=True)
    return tuple(
        (begin, _ceiled_end(extent, stride, reach, begin, end)) for extent, stride, reach, (begin, end) in axes
    )


def _ceiled_end(extent: int, stride: int, reach: int, begin: int, end: int) -> int:
    padded = begin + extent + end
    last = -(-max(padded - reach, 0) // stride)
    if last * stride >= begin + extent:
        last -= 1
    return end + max(last * stride + reach - padded, 0)


@handles("MaxPool")
def max_pool(layer: Layer) -> str:
    """Maximum over windows of (N, C, *spatial)."""
    if len([name for name in layer.outputs if name]) > 1:
        raise NoCFormError("its second output (indices) is used, expected only the maxima")
    window = _pool_window(layer)
    padding = _ceiled(layer, window, padding_of(layer, window))
    op = MaxPool(window=window.kernel, stride=window.stride, padding=padding, dilation=window.dilation)
    return layer.channels_first(layer.add(op, layer.channels_last(layer.x)))


@handles("AveragePool")
def average_pool(layer: Layer) -> str:
    """Mean over windows; the divisor counts padding only with `count_include_pad`."""
    window = _pool_window(layer)
    if set(window.dilation) != {1}:
        raise NoCFormError(f"dilations {list(window.dilation)}, expected 1")
    declared = padding_of(layer, window)
    op = AvgPool(
        window=window.kernel,
        stride=window.stride,
        padding=_ceiled(layer, window, declared),
        counted=declared if layer.get("count_include_pad", 0) else (),
    )
    return layer.channels_first(layer.add(op, layer.channels_last(layer.x)))


@handles("GlobalAveragePool", "GlobalMaxPool")
def global_pool(layer: Layer) -> str:
    """Mean or maximum over all spatial axes, which stay with extent 1."""
    if layer.rank < 3:
        raise ValueError(f"input of shape {layer.shape}, expected (N, C, spatial...)")
    kind = "mean" if layer.kind == "GlobalAveragePool" else "max"
    return layer.add(Reduce(kind, tuple(range(2, layer.rank)), keepdims=True), layer.x)

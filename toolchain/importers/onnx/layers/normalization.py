"""Normalizations, decomposed into multiplications and additions (folded into convolutions by a pass)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.importers.onnx.layer import Layer, handles
from toolchain.ops.normalize import LRN
from toolchain.ops.reduce import Reduce

if TYPE_CHECKING:
    from collections.abc import Sequence


SMALLEST = 1.17549435e-38
"""The smallest normal float32: a norm of 0 divides by it."""


def _over_channels(layer: Layer, index: int, role: str) -> str:
    """A per-channel vector shaped to broadcast over (N, C, *spatial)."""
    shape = layer.builder.shape(layer.operand(index))
    channels = layer.shape[1] if layer.rank > 1 else -1
    if shape != (channels,):
        raise ValueError(f"{role} of shape {shape}, expected ({channels},)")
    return layer.reshape(layer.operand(index), (channels, *(1,) * (layer.rank - 2)))


@handles("BatchNormalization")
def batch_normalization(layer: Layer) -> str:
    """X * factor + offset, with factor = scale / sqrt(variance + epsilon)."""
    if layer.get("training_mode", 0) or len([name for name in layer.outputs if name]) > 1:
        raise NoCFormError("it is in training mode, expected a model exported for inference")
    roles = ("scale", "bias", "mean", "variance")
    for index, role in enumerate(roles, 1):
        layer.constant_value(index, role)
    shaped = [_over_channels(layer, index, role) for index, role in enumerate(roles, 1)]
    scale, bias, mean, variance = (np.asarray(layer.builder.value(name), np.float64) for name in shaped)
    factor = scale / np.sqrt(np.maximum(variance + float(layer.get("epsilon", 1e-5)), np.finfo(np.float32).tiny))
    y = layer.binary("mul", layer.x, layer.constant(factor.astype(np.float32), "factor"))
    return layer.binary("add", y, layer.constant((bias - mean * factor).astype(np.float32), "offset"))


def normalized(layer: Layer, x: str, axes: Sequence[int], epsilon: float) -> str:
    """(x - mean) / sqrt(variance + epsilon) over axes."""
    op = Reduce("mean", tuple(axes), keepdims=True)
    centred = layer.binary("sub", x, layer.add(op, x))
    variance = layer.add(op, layer.unary("square", centred))
    return layer.binary("mul", centred, layer.unary("rsqrt", layer.binary("add", variance, epsilon)))


@handles("LayerNormalization")
def layer_normalization(layer: Layer) -> str:
    """Over the axes from `axis` on."""
    if len([name for name in layer.outputs if name]) > 1:
        raise NoCFormError("its mean or deviation output is used, expected only the values")
    axes = range(layer.axis(-1), layer.rank)
    y = layer.binary("mul", normalized(layer, layer.x, axes, _epsilon(layer)), layer.operand(1))
    return layer.binary("add", y, layer.operand(2)) if layer.has(2) else y


@handles("RMSNormalization")
def rms_normalization(layer: Layer) -> str:
    """X / sqrt(mean of squares + epsilon) * scale, over the axes from `axis` on."""
    op = Reduce("mean", tuple(range(layer.axis(-1), layer.rank)), keepdims=True)
    mean = layer.add(op, layer.unary("square", layer.x))
    y = layer.binary("mul", layer.x, layer.unary("rsqrt", layer.binary("add", mean, _epsilon(layer))))
    return layer.binary("mul", y, layer.operand(1))


@handles("InstanceNormalization")
def instance_normalization(layer: Layer) -> str:
    """Per sample and channel, over the spatial axes."""
    y = normalized(layer, layer.x, range(2, layer.rank), _epsilon(layer))
    y = layer.binary("mul", y, _over_channels(layer, 1, "scale"))
    return layer.binary("add", y, _over_channels(layer, 2, "bias"))


@handles("GroupNormalization")
def group_normalization(layer: Layer) -> str:
    """Per sample and group of channels; before opset 21 scale and bias have one entry per group."""
    batch, channels, *spatial = layer.shape
    groups = int(layer.get("num_groups", 1))
    if groups < 1 or channels % groups:
        raise ValueError(f"num_groups {groups}, expected a divisor of {channels} channels")
    grouped = layer.reshape(layer.x, (batch, groups, channels // groups * math.prod(spatial)))
    y = layer.reshape(normalized(layer, grouped, (2,), _epsilon(layer)), layer.shape)
    y = layer.binary("mul", y, _per_channel(layer, 1, groups))
    return layer.binary("add", y, _per_channel(layer, 2, groups))


def _per_channel(layer: Layer, index: int, groups: int) -> str:
    value = layer.constant_value(index, "scale or bias").reshape(-1)
    channels = layer.shape[1]
    if value.size == groups:
        value = np.repeat(value, channels // groups)
    if value.size != channels:
        raise ValueError(f"scale or bias of {value.size} entries, expected {groups} or {channels}")
    return layer.constant(value.reshape(channels, *(1,) * (layer.rank - 2)), "scale")


@handles("LpNormalization")
def lp_normalization(layer: Layer) -> str:
    """X divided by its 1- or 2-norm along `axis`."""
    power = int(layer.get("p", 2))
    if power not in {1, 2}:
        raise NoCFormError(f"p={power}, expected 1 or 2")
    op = Reduce("sum", (layer.axis(-1),), keepdims=True)
    total = layer.add(op, layer.unary("abs" if power == 1 else "square", layer.x))
    norm = total if power == 1 else layer.unary("sqrt", total)
    return layer.binary("div", layer.x, layer.binary("max", norm, SMALLEST))  # 0 stays 0


@handles("LRN")
def local_response(layer: Layer) -> str:
    """X divided by a power of the mean of squares over neighbouring channels."""
    alpha, beta = float(layer.get("alpha", 1e-4)), float(layer.get("beta", 0.75))
    op = LRN(int(layer.get("size", 1)), alpha, beta, float(layer.get("bias", 1.0)))
    return layer.channels_first(layer.add(op, layer.channels_last(layer.x)))


@handles("MeanVarianceNormalization")
def mean_variance_normalization(layer: Layer) -> str:
    """Over `axes`, by default batch and spatial."""
    axes = tuple(int(axis) % layer.rank for axis in layer.get("axes", (0, 2, 3)))
    return normalized(layer, layer.x, axes, 1e-9)


def _epsilon(layer: Layer) -> float:
    return float(layer.get("epsilon", 1e-5))

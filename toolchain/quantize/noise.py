"""How far a quantized graph is from the float one: signal-to-noise ratios on samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolchain import interpret
from toolchain.config import Rounding
from toolchain.ir.types import Array, DType
from toolchain.ops.base import QuantRule
from toolchain.samples import dequantize_array, quantize_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolchain.ir.graph import Graph

CEILING = 200.0
"""Stands for no noise at all, in dB."""


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers in dB, at most CEILING."""
    if not noise or not signal:
        return CEILING if not noise else 0.0
    return float(min(10 * np.log10(signal / noise), CEILING))


def reals(graph: Graph, name: str, values: Array) -> Array:
    """The values of a tensor as reals in float64."""
    kind = graph.tensors[name].type
    plain = kind.quant is None or kind.dtype is DType.FLOAT32
    return np.asarray(values if plain else dequantize_array(values, kind), np.float64)


def spread(samples: Mapping[str, Array], count: int) -> dict[str, Array]:
    """`count` samples, taken evenly over the whole batch."""
    total = len(next(iter(samples.values())))
    chosen = np.linspace(0, total - 1, min(count, total)).astype(int)
    return {name: array[chosen] for name, array in samples.items()}


def score_tensors(graph: Graph) -> tuple[str, ...]:
    """The tensors that are compared: the outputs, and before operators with prescribed parameters their inputs."""
    producers = graph.producers()

    def before(name: str) -> str:
        node = producers.get(name)
        return before(node.inputs[0]) if node is not None and node.op.quant_rule is QuantRule.FIXED else name

    return tuple(before(name) for name in graph.outputs if graph.tensors[name].type.dtype is DType.FLOAT32)


def integer_feeds(graph: Graph, sample: Mapping[str, Array]) -> dict[str, Array]:
    """One sample of floats in the types of the graph's inputs."""
    feeds = {}
    for name in graph.inputs:
        kind, array = graph.tensors[name].type, sample[name]
        integer = kind.quant is not None and array.dtype.kind == "f"
        feeds[name] = quantize_array(array, kind.dtype, kind.quant) if integer and kind.quant else array
    return feeds


def runs(graph: Graph, samples: Mapping[str, Array], names: Sequence[str], rounding: Rounding) -> list[list[Array]]:
    """Per sample the values of some tensors, as reals."""
    result = []
    for index in range(len(next(iter(samples.values())))):
        feeds = integer_feeds(graph, {name: samples[name][index] for name in graph.inputs})
        values = interpret.run(graph, feeds, keep=True, rounding=rounding)
        result.append([reals(graph, name, values[name]) for name in names])
    return result


def ratio(wanted: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float:
    """The worst signal-to-noise ratio in dB over the tensors of two lists of runs."""
    ratios = []
    for one, other in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        signal = sum(float(np.sum(np.square(a))) for a in one)
        noise = sum(float(np.sum(np.square(a - b.reshape(a.shape)))) for a, b in zip(one, other, strict=True))
        ratios.append(decibels(signal, noise))
    return min(ratios, default=CEILING)

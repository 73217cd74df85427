"""Where quantization loses: per layer the noise of weights and activations, saturation, and what has added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain import interpret, samples
from toolchain.ir.types import Array, DType, QuantParams
from toolchain.quantize.layers import constant_reals, is_integer_layer
from toolchain.quantize.noise import decibels, integer_feeds, reals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolchain.config import Rounding
    from toolchain.ir.graph import Graph, Node
    from toolchain.quantize.integers import Integers

BINS = 40


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values fall into equal bins of [low, high]."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerAccount:
    """One layer's output on trial samples; ratios in dB, None where there is no such thing.

    `weights_db`: float weights against the integers. `activation_db`: the float output against itself on the integer
    grid; `saturated`: the share of it beyond the range. `accumulated_db`: the float run against the integer run.
    """

    origin: str
    tensor: str
    dtype: str
    scale: float | None
    zero_point: int | None
    range: tuple[float, float] | None
    saturated: float
    weights_db: float | None
    activation_db: float | None
    accumulated_db: float
    weights: Histogram | None
    values: Histogram


def account(made: Integers, batch: Mapping[str, Array], rounding: Rounding) -> tuple[LayerAccount, ...]:
    """One row per layer of the float graph that computes reals, in order."""
    count = len(next(iter(batch.values())))
    wanted, found = [], []
    for index in range(count):
        sample = {name: batch[name][index] for name in made.source.inputs}
        wanted.append(interpret.run(made.source, sample, keep=True))
        found.append(interpret.run(made.graph, integer_feeds(made.graph, sample), keep=True, rounding=rounding))
    makers = made.graph.producers()
    return tuple(
        _row(made, makers, node, name, wanted, found)
        for node in made.source.nodes
        for name in node.outputs
        if made.source.tensors[name].type.dtype is DType.FLOAT32 and made.form(name) in made.graph.tensors
    )


def _row(
    made: Integers,
    makers: Mapping[str, Node],
    node: Node,
    name: str,
    wanted: Sequence[Mapping[str, Array]],
    found: Sequence[Mapping[str, Array]],
) -> LayerAccount:
    form = made.form(name)
    kind = made.graph.tensors[form].type
    floats = np.stack([values[name] for values in wanted]).astype(np.float64)
    integers = np.stack([reals(made.graph, form, values[form]).reshape(values[form].shape) for values in found])
    quant = kind.quant if kind.dtype is not DType.FLOAT32 else None
    limits = None if quant is None else _limits(kind.dtype, quant)
    maker = makers.get(form)
    weighted = maker if maker is not None and is_integer_layer(made.graph, maker) else None
    outside = 0.0 if limits is None else float(np.mean((floats < limits[0]) | (floats > limits[1])))
    return LayerAccount(
        origin=node.origin,
        tensor=form,
        dtype=kind.dtype.value,
        scale=None if quant is None else quant.scale[0],
        zero_point=None if quant is None else quant.zero_point,
        range=limits,
        saturated=outside,
        weights_db=None if weighted is None else _weights_db(made, weighted, node),
        activation_db=None if quant is None else _grid_db(floats, kind.dtype, quant),
        accumulated_db=_ratio(floats, integers.reshape(floats.shape)),
        weights=None if weighted is None else histogram(constant_reals(made.source, node.inputs[1])),
        values=histogram(floats),
    )


def _limits(dtype: DType, quant: QuantParams) -> tuple[float, float]:
    """What lies beyond these reals saturates: half a step outside the first and the last integer."""
    low, high = dtype.limits
    return (low - 0.5 - quant.zero_point) * quant.scale[0], (high + 0.5 - quant.zero_point) * quant.scale[0]


def _ratio(wanted: Array, found: Array) -> float:
    return decibels(float(np.sum(np.square(wanted))), float(np.sum(np.square(wanted - found))))


def _grid_db(floats: Array, dtype: DType, quant: QuantParams) -> float:
    steps = samples.quantize_array(floats, dtype, quant).astype(np.float64)
    return _ratio(floats, (steps - quant.zero_point) * quant.scale[0])


def _weights_db(made: Integers, weighted: Node, source: Node) -> float:
    return _ratio(constant_reals(made.source, source.inputs[1]), constant_reals(made.graph, weighted.inputs[1]))


def histogram(values: Array) -> Histogram:
    """The values in BINS equal bins between their extremes."""
    counts, edges = np.histogram(values, BINS)
    return Histogram(float(edges[0]), float(edges[-1]), tuple(int(count) for count in counts))


def constant_bytes(graph: Graph) -> int:
    """Bytes of all constants, and of a multiplier and a shift per channel where scales are per channel."""
    total = 0
    for tensor in graph.tensors.values():
        if tensor.data is not None:
            quant = tensor.type.quant
            by_channel = quant is not None and quant.axis is not None and tensor.type.dtype is not DType.INT32
            total += tensor.type.bytes + (8 * len(quant.scale) if by_channel and quant else 0)
    return total

"""The C's outputs against their meaning: integers bit for bit, floats within 1e-5 of the output's range."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolchain import interpret
from toolchain.config import Rounding
from toolchain.errors import CheckFailedError
from toolchain.ir.graph import Graph
from toolchain.ir.types import Array, DType
from toolchain.samples import Feeds, dequantize_array, to_c, to_framework
from toolchain.verify.oracles import Oracle

FLOAT_TOLERANCE = 1e-5
"""Largest float difference, as a part of the output's range over all samples."""


@dataclass(frozen=True, slots=True)
class OutputParity:
    """One output of the C against one reference, over all samples. `allowed` is in the output's own unit."""

    output: str
    reference: str
    samples: int
    elements: int
    differing: int
    largest: float
    allowed: float
    range: float

    @property
    def passed(self) -> bool:
        """Whether the difference stays within what is allowed."""
        return self.largest <= self.allowed


def interpret_batch(graph: Graph, batch: Feeds, rounding: Rounding = Rounding.TFLM) -> Feeds:
    """{output: (samples, *C shape)} by the numpy meaning, one run per sample.

    The samples of a network with states are the steps of one sequence.
    """
    return _sequence(graph, batch, lambda sample: interpret.run(graph, sample, rounding=rounding))


def _sequence(graph: Graph, batch: Feeds, run: Callable[[Feeds], Feeds]) -> Feeds:
    rows: list[Feeds] = []
    for at in range(len(next(iter(batch.values())))):
        left = interpret.kept(graph, rows[-1]) if rows else {}
        rows.append(run({name: array[at] for name, array in batch.items()} | left))
    return {name: np.stack([row[name] for row in rows]) for name in graph.outputs}


def oracle_batch(graph: Graph, oracle: Oracle, batch: Feeds) -> Feeds | None:
    """The framework's outputs in the C's layout, None when the model does not match the graph's ends."""
    outside = [to_framework(graph, name, batch[name]) for name in graph.inputs]
    count = len(outside[0])
    try:
        rows = [oracle.call([np.ascontiguousarray(array[at]) for array in outside]) for at in range(count)]
        return {
            name: to_c(graph, name, np.stack([row[index] for row in rows])).reshape(
                count, *graph.tensors[name].type.shape
            )
            for index, name in enumerate(graph.outputs)
        }
    except Exception:  # noqa: BLE001 - a framework that cannot run these inputs gives no opinion
        return None


def is_mixed(graph: Graph) -> bool:
    """Whether float layers feed integers: there one rounding of a float may flip an integer by one step."""
    computed_float = {
        name
        for node in graph.nodes
        if type(node.op).__name__ not in {"Quantize", "Dequantize"}
        for name in node.outputs
        if graph.tensors[name].type.dtype is DType.FLOAT32
    }
    return any(
        graph.tensors[name].type.quant is not None and any(read in computed_float for read in node.inputs)
        for node in graph.nodes
        for name in node.outputs
    )


def compare(graph: Graph, found: Feeds, expected: Feeds, reference: str) -> tuple[OutputParity, ...]:
    """One row per output."""
    slack = 1.0 if is_mixed(graph) else 0.0
    return tuple(_parity(graph, name, found[name], expected[name], reference, slack) for name in graph.outputs)


def _parity(graph: Graph, name: str, found: Array, expected: Array, reference: str, slack: float) -> OutputParity:
    kind = graph.tensors[name].type
    integers = kind.dtype is not DType.FLOAT32
    distance = difference(found, expected)
    spread = _spread(expected)
    return OutputParity(
        output=graph.port(name).name,
        reference=reference,
        samples=len(found),
        elements=int(found.size),
        differing=int(np.count_nonzero(distance)),
        largest=float(distance.max(initial=0.0)),
        allowed=slack if integers else max(FLOAT_TOLERANCE * spread, slack * (_step(graph) + _rounding(expected))),
        range=spread,
    )


def _step(graph: Graph) -> float:
    """The coarsest quantization step of the graph's activations."""
    return max(
        (
            max(tensor.type.quant.scale)
            for tensor in graph.tensors.values()
            if tensor.data is None and tensor.type.quant
        ),
        default=0.0,
    )


def _rounding(expected: Array) -> float:
    """What float32 may round away from two neighbouring steps that are subtracted."""
    return float(np.finfo(np.float32).eps * np.abs(expected).max(initial=0.0))


def _spread(expected: Array) -> float:
    finite = np.asarray(expected, np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return 1.0
    return float(finite.max() - finite.min()) or float(np.abs(finite).max()) or 1.0


def difference(found: Array, expected: Array) -> Array:
    """Absolute differences; equal infinities and NaN on both sides count as equal."""
    left, right = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.abs(left - right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    return np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))


def real_error(graph: Graph, found: Feeds, floats: Mapping[str, Array]) -> dict[str, float]:
    """Per output the signal-to-noise ratio in dB of the dequantized C against the float model."""
    ratios = {}
    for name in graph.outputs:
        real = dequantize_array(found[name], graph.tensors[name].type).astype(np.float64)
        wanted = np.asarray(floats[name], np.float64).reshape(real.shape)
        noise, signal = float(np.sum((real - wanted) ** 2)), float(np.sum(wanted**2))
        ratios[graph.port(name).name] = float(10 * np.log10(signal / noise)) if noise and signal else 200.0
    return ratios


def first_difference(
    graph: Graph, trace: Sequence[tuple[int, bytes]], written: Sequence[tuple[str, ...]], values: Feeds
) -> str | None:
    """The origin of the first layer whose C output differs. `written[step]` names the tensors step writes, in order."""
    origins = {name: node.origin for node in graph.nodes for name in node.outputs}
    seen: dict[int, int] = {}
    for step, raw in trace:
        position = seen.get(step, 0)
        seen[step] = position + 1
        name = written[step][position] if position < len(written[step]) else ""
        if name in values and not _matches(graph, name, raw, values[name]):
            return origins.get(name, name)
    return None


def _matches(graph: Graph, name: str, raw: bytes, value: Array) -> bool:
    kind = graph.tensors[name].type
    if len(raw) != kind.bytes:
        return False
    found = np.frombuffer(raw, kind.dtype.numpy.newbyteorder("<"))
    distance = difference(found, np.asarray(value).reshape(-1)).max(initial=0.0)
    return bool(distance <= (10 * FLOAT_TOLERANCE * _spread(value) if kind.dtype is DType.FLOAT32 else 0))


def require(rows: Sequence[OutputParity], subject: str, layer: str | None) -> None:
    """Raise CheckFailedError naming the worst output, and the first layer that differs where it is known."""
    failed = [row for row in rows if not row.passed]
    if not failed:
        return
    worst = max(failed, key=lambda row: row.largest)
    where = f"; the first layer that differs is {layer}" if layer else ""
    raise CheckFailedError(
        f"{subject}: {worst.output} differs from {worst.reference} in {worst.differing} of {worst.elements} values, "
        f"by up to {worst.largest:.6g} (allowed {worst.allowed:.3g}){where}"
    )

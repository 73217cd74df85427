"""What activations look like over calibration samples: extremes and a histogram per tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from toolchain import interpret
from toolchain.errors import InputError
from toolchain.ir.types import Array, DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from toolchain.ir.graph import Graph

Progress = Callable[[int, int], None]
BINS = 4096


class Observer:
    """Extremes and a histogram over [-reach, reach]; when a value falls outside, the reach doubles (bins in pairs)."""

    def __init__(self) -> None:
        self.low = np.inf
        self.high = -np.inf
        self.reach = 0.0
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)

    def see(self, values: Array) -> None:
        """Add the values of a tensor."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        if self.reach == 0:
            self.counts[BINS // 2] += values.size
        else:
            places = ((values.ravel() + np.float32(self.reach)) * np.float32(BINS / (2 * self.reach))).astype(np.int32)
            self.counts += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)

    def _widen(self, extent: float) -> None:
        if self.reach == 0 and extent > 0:
            self.reach = extent
        while self.reach < extent:
            self.reach *= 2
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(BINS, np.int64)
            self.counts[BINS // 4 : 3 * BINS // 4] = merged

    @property
    def centers(self) -> NDArray[np.float64]:
        """The real value in the middle of each bin."""
        return (np.arange(BINS, dtype=np.float64) + 0.5) * (2 * self.reach / BINS) - self.reach


def observe(graph: Graph, samples: Mapping[str, Array], progress: Progress | None = None) -> dict[str, Observer]:
    """An Observer for each computed float tensor, after one run per sample.

    `samples`: {graph input: array (samples, *tensor shape)}. Raises InputError for samples that cannot be used.
    """
    count = len(samples[graph.inputs[0]])
    observers = {
        name: Observer()
        for name, tensor in graph.tensors.items()
        if tensor.data is None and tensor.type.dtype is DType.FLOAT32
    }
    for index in range(count):
        values = interpret.run(graph, {name: samples[name][index] for name in graph.inputs}, keep=True)
        for name, observer in observers.items():
            _see(observer, name, values, graph)
        if progress:
            progress(index + 1, count)
    return observers


def _see(observer: Observer, name: str, values: Mapping[str, Array], graph: Graph) -> None:
    array = values[name]
    if not np.isfinite(array).all():
        producer = graph.producers().get(name)
        where = producer.origin if producer else graph.port(name).name
        raise InputError(f"{where}: calibration gives NaN or infinity here, expected finite numbers; check the samples")
    observer.see(array)


def check_samples(graph: Graph, samples: Mapping[str, Array]) -> int:
    """The number of samples. Raises InputError for missing inputs, wrong shapes, unequal numbers and NaN."""
    missing = [graph.port(name).name for name in graph.inputs if name not in samples]
    if missing:
        raise InputError(f"calibration: no samples for {', '.join(missing)}, expected one array per model input")
    for name in graph.inputs:
        _check_array(graph.port(name).name, samples[name], graph.tensors[name].type.shape)
    counts = {len(samples[name]) for name in graph.inputs}
    if len(counts) != 1 or counts == {0}:
        raise InputError(f"calibration: found {sorted(counts)} samples per input, expected one number, at least 1")
    return counts.pop()


def _check_array(label: str, array: Array, shape: Iterable[int]) -> None:
    if array.shape[1:] != tuple(shape):
        expected = ", ".join(["samples", *map(str, shape)])
        raise InputError(f"calibration: {label}: found shape {array.shape}, expected ({expected})")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"calibration: {label}: found NaN or infinity, expected finite numbers")

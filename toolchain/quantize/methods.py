"""From what was observed to the range that the integers shall cover. Each method: Observer -> (low, high)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolchain.config import CalibrationMethod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from toolchain.quantize.observe import Observer

Range = tuple[float, float]
PERCENTILE = 99.99
FRACTIONS = np.linspace(1.0, 0.2, 81)
"""How far `mse` and `entropy` may shrink a range, in steps of one percent."""
LEVELS = 256


def minmax(observer: Observer) -> Range:
    """The extremes."""
    return observer.low, observer.high


def percentile(observer: Observer) -> Range:
    """The middle 99.99 % of the values (half of the rest cut at each end)."""
    total = observer.counts.sum()
    if not total:
        return minmax(observer)
    tail = (1 - PERCENTILE / 100) / 2
    summed = np.cumsum(observer.counts) / total
    width = 2 * observer.reach / observer.counts.size
    low = float(observer.centers[np.searchsorted(summed, tail, "right")]) - width / 2
    high = float(observer.centers[np.searchsorted(summed, 1 - tail, "left")]) + width / 2
    return max(low, observer.low), min(high, observer.high)


def mse(observer: Observer) -> Range:
    """The range whose integers have the least mean squared error over the histogram."""
    return min(_shrunk(observer), key=lambda limits: _squared_error(observer, limits))


def entropy(observer: Observer) -> Range:
    """The range that loses the least information (Kullback-Leibler divergence, as TensorRT defines it)."""
    return min(_shrunk(observer), key=lambda limits: _divergence(observer, limits))


def _shrunk(observer: Observer) -> Iterator[Range]:
    """Ranges with both ends, then one end, then the other drawn in, largest first."""
    low, high = observer.low, observer.high
    yield from ((low * fraction, high * fraction) for fraction in FRACTIONS)
    if low < 0 < high:
        yield from ((low, high * fraction) for fraction in FRACTIONS[1:])
        yield from ((low * fraction, high) for fraction in FRACTIONS[1:])


def _squared_error(observer: Observer, limits: Range) -> float:
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    step = (high - low) / (LEVELS - 1)
    if not step:
        return 0.0
    centers = observer.centers
    nearest = np.round(np.clip(centers, low, high) / step) * step
    return float(np.sum(observer.counts * (centers - nearest) ** 2))


def _divergence(observer: Observer, limits: Range) -> float:
    """KL(P || Q): P the histogram cut to the limits, what lies outside added to its ends; Q its 256-level form."""
    inside = np.flatnonzero((observer.centers >= limits[0]) & (observer.centers <= limits[1]))
    if inside.size < LEVELS:
        return np.inf if inside.size < observer.counts.size else 0.0
    first, last = inside[0], inside[-1] + 1
    kept = observer.counts[first:last].astype(np.float64)
    expected = kept.copy()
    expected[0] += observer.counts[:first].sum()
    expected[-1] += observer.counts[last:].sum()
    return _kl(expected, _coarse(kept))


def _coarse(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The counts of 256 levels, each spread evenly over its bins that are not empty."""
    level = np.arange(counts.size) * LEVELS // counts.size
    filled = counts > 0
    totals = np.bincount(level, counts, LEVELS)
    numbers = np.bincount(level[filled], minlength=LEVELS)
    return np.where(filled, (totals / np.maximum(numbers, 1))[level], 0.0)


def _kl(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """The divergence, empty bins of `found` smoothed by a millionth."""
    if not expected.sum() or not found.sum():
        return np.inf
    p = expected / expected.sum()
    q = found / found.sum() + 1e-6
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / q[used])))


METHODS: dict[CalibrationMethod, Callable[[Observer], Range]] = {
    CalibrationMethod.MINMAX: minmax,
    CalibrationMethod.PERCENTILE: percentile,
    CalibrationMethod.MSE: mse,
    CalibrationMethod.ENTROPY: entropy,
}


def calibrated_range(observer: Observer, method: CalibrationMethod) -> Range:
    """The range of a tensor; the extremes where a method has too little to choose from."""
    if observer.reach == 0 or observer.low == observer.high:
        return minmax(observer)
    return METHODS[method](observer)

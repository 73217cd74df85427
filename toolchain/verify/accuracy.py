"""Accuracy on labelled samples: of the model as it was given, and of the C."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.errors import InputError
from toolchain.ir.types import Array


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of right answers in percent, over `samples` labels. `reference` names what computed `model`.

    `python`: of the final graph in numpy, None where that would take too long.
    """

    model: float
    c: float
    samples: int
    reference: str
    python: float | None = None

    @property
    def drop(self) -> float:
        """Points lost by the C."""
        return self.model - self.c


def class_labels(labels: Array | None, samples: int, scores: int, source: str) -> Array:
    """Labels as integers, one-hot rows resolved. Raises InputError when they are missing or not classes.

    `scores`: how many the model gives for each label; one alone is the probability of class 1.
    """
    if labels is None:
        raise InputError(f"{source}: found no labels, expected an array named y")
    if len(labels) != samples:
        raise InputError(f"{source}: found {len(labels)} labels for {samples} samples, expected one each")
    if labels.ndim == 2 and labels.shape[1] > 1 and np.array_equal(labels.sum(axis=1), np.ones(samples)):
        return np.asarray(labels.argmax(axis=1))
    if not np.array_equal(labels, np.round(labels)):
        raise InputError(f"{source}: found labels that are not whole numbers, expected class indices in y")
    found, last = labels.reshape(-1).astype(np.int64), max(scores, 2) - 1
    if found.size and not 0 <= found.min() <= found.max() <= last:
        text = f"found labels from {found.min()} to {found.max()}, expected class indices from 0 to {last} in y"
        raise InputError(f"{source}: {text}")
    return found


def percent_right(scores: Array, labels: Array, source: str) -> float:
    """Percent of rows whose largest score is at the label; a single score is a probability of class 1."""
    if scores.size % len(labels):
        raise InputError(f"{source}: found {len(labels)} labels for scores of shape {scores.shape}")
    rows = scores.reshape(len(labels), -1)
    answers = (rows[:, 0] > 0.5).astype(np.int64) if rows.shape[1] == 1 else rows.argmax(axis=1)
    return 100.0 * float(np.mean(answers == labels))

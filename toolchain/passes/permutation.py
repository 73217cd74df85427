"""Permutations of axes. A layout L of a tensor x means: stored = transpose(x, L)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Permutation = tuple[int, ...]


def identity(rank: int) -> Permutation:
    """The permutation that moves nothing."""
    return tuple(range(rank))


def compose(first: Permutation, second: Permutation) -> Permutation:
    """The permutation p with transpose(x, p) = transpose(transpose(x, first), second).

    >>> compose((0, 2, 3, 1), (0, 3, 1, 2))
    (0, 1, 2, 3)
    """
    return tuple(first[axis] for axis in second)


def inverse(permutation: Permutation) -> Permutation:
    """The permutation that undoes one.

    >>> inverse((0, 2, 3, 1))
    (0, 3, 1, 2)
    """
    return tuple(permutation.index(axis) for axis in range(len(permutation)))


def permuted(values: Sequence[int], permutation: Permutation) -> tuple[int, ...]:
    """The values of the axes in their new order."""
    return tuple(values[axis] for axis in permutation)


def channels_last(rank: int) -> Permutation:
    """From (N, C, *spatial) to (N, *spatial, C)."""
    return (0, *range(2, rank), 1)


def moved_axes(permutation: Permutation, shape: Sequence[int]) -> Permutation:
    """The permutation without the axes of length one: two orders that agree here are the same memory."""
    return tuple(axis for axis in permutation if shape[axis] != 1)


def same_order(first: Permutation, second: Permutation, shape: Sequence[int]) -> bool:
    """Whether two layouts of a tensor are the same memory."""
    return first == second or moved_axes(first, shape) == moved_axes(second, shape)

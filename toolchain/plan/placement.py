"""Packing blocks of memory with known lifetimes into as few bytes as possible, where some may overlap by halves.

Two blocks in use at the same time keep a distance: offset(b) - offset(a) lies in none of a few forbidden open
intervals. Without more said that is (-size of b, size of a); an overlap allows a part of it. Placing blocks one
after another, each at the lowest offset that is forbidden by none of those placed, gives a packing for every order;
the search is for an order. All of it is deterministic.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolchain.ops.overlap import Overlap

SHUFFLES = 100
"""Random orders tried when the sorted ones stay above the lower bound; seeded, so that exports repeat."""
MOVES = 2500
"""Changes of the best order tried after that."""
LARGEST_SEARCHED = 120
"""Blocks: above this, searching costs more time than it has ever saved bytes."""
ATTEMPTS = 4000
"""Partial orders looked at while all that matter are tried: enough for networks of a few layers."""

Intervals = tuple[tuple[int, int], ...]
Overlaps = Mapping[tuple[str, str], Overlap]


@dataclass(frozen=True, slots=True)
class Block:
    """Memory that is in use from step `first` to step `last`, both inclusive."""

    name: str
    size: int
    first: int
    last: int
    align: int = 4

    def meets(self, other: Block) -> bool:
        """Whether both are in use at some step."""
        return self.first <= other.last and other.first <= self.last


def place(blocks: Sequence[Block], overlaps: Overlaps | None = None, bound: int = 0) -> dict[str, int]:
    """Return byte offsets: the best found over many orders. `overlaps` is by (written, read); `bound` ends the search.

    Few blocks are placed in every order that can differ, the others in orders that are changed where it pays. A
    search that may overlap blocks can miss a packing that does not: that one is looked for, too.
    """
    found = _searched(blocks, overlaps or {}, bound)
    if overlaps and extent(blocks, found) > bound:
        return min(found, _searched(blocks, {}, bound), key=lambda offsets: extent(blocks, offsets))
    return found


def _searched(blocks: Sequence[Block], overlaps: Overlaps, bound: int) -> dict[str, int]:
    search = _Search(blocks, overlaps, bound)
    for order in _orders(blocks):
        search.attempt(order)
    if len(blocks) <= LARGEST_SEARCHED:
        search.improve()
        search.exhaust((), ())
    return {block.name: offset for block, offset in zip(blocks, search.best, strict=True)}


def extent(blocks: Iterable[Block], offsets: Mapping[str, int]) -> int:
    """Bytes from offset 0 to the end of the last block."""
    return max((offsets[block.name] + block.size for block in blocks), default=0)


def forbidden(one: Block, other: Block, overlap: Overlap | None) -> Intervals:
    """Open intervals of offset(one) - offset(other) that are not allowed. `overlap`: how `other` may lie over `one`."""
    low, high = -one.size, other.size
    if overlap is None:
        return ((low, high),)
    parts = ((low, min(overlap.least, high)), (max(overlap.most, low), high))
    return tuple((start, stop) for start, stop in parts if stop - start > 1)


class _Search:
    """The best offsets so far, by index of the block, and the distances the blocks must keep."""

    def __init__(self, blocks: Sequence[Block], overlaps: Overlaps, bound: int) -> None:
        self.blocks = blocks
        self.bound = bound
        self.best: list[int] = [0] * len(blocks)
        self.size: int | None = None
        self.order: tuple[int, ...] = ()
        self.attempts = 0
        self._index = {block.name: i for i, block in enumerate(blocks)}
        self._near = [dict(self._distances(i, overlaps)) for i in range(len(blocks))]

    def _distances(self, i: int, overlaps: Overlaps) -> Iterator[tuple[int, Intervals]]:
        """For each block that block i meets, the forbidden intervals of offset(i) - offset(that block)."""
        one = self.blocks[i]
        for j, other in enumerate(self.blocks):
            if i == j or not one.meets(other):
                continue
            if (one.name, other.name) in overlaps:
                mirrored = forbidden(other, one, overlaps[one.name, other.name])
                yield j, tuple((-stop, -start) for start, stop in mirrored)
            else:
                yield j, forbidden(one, other, overlaps.get((other.name, one.name)))

    @property
    def done(self) -> bool:
        """Whether nothing better can be found."""
        return self.size is not None and self.size <= self.bound

    def attempt(self, order: Sequence[Block]) -> None:
        """Place the blocks in this order."""
        if not self.done:
            self._try(tuple(self._index[block.name] for block in order))

    def _try(self, order: tuple[int, ...]) -> bool:
        """Whether the order is at least as good as the best one; then it is the best."""
        offsets: dict[int, int] = {}
        size = 0
        for i in order:
            offsets[i] = self.lowest(i, offsets)
            size = max(size, offsets[i] + self.blocks[i].size)
            if self.size is not None and size > self.size:
                return False
        if self.size is None or size < self.size:
            self.best, self.size = [offsets[i] for i in range(len(order))], size
        self.order = order
        return True

    def lowest(self, i: int, offsets: Mapping[int, int]) -> int:
        """The lowest offset of block i beside those that have theirs."""
        busy = [
            (offsets[j] + start, offsets[j] + stop)
            for j, intervals in self._near[i].items()
            if j in offsets
            for start, stop in intervals
        ]
        align = self.blocks[i].align
        at = 0
        for start, stop in sorted(busy):
            if start >= at:
                break
            if stop > at:
                at = -(-stop // align) * align
        return at

    def exhaust(self, order: tuple[int, ...], placed: tuple[int, ...]) -> None:
        """Try every order in which offsets ascend, as far as it may still win."""
        self.attempts += 1
        if len(order) == len(self.blocks):
            self._try(order)
            return
        offsets = dict(zip(order, placed, strict=True))
        free = {i: self.lowest(i, offsets) for i in range(len(self.blocks)) if i not in offsets}
        if self.size is not None and max(at + self.blocks[i].size for i, at in free.items()) >= self.size:
            return
        for i, at in sorted(free.items(), key=lambda each: (each[1], -self.blocks[each[0]].size)):
            if not self.done and self.attempts < ATTEMPTS and (not placed or at >= placed[-1]):
                self.exhaust((*order, i), (*placed, at))

    def improve(self) -> None:
        """Shuffled orders, then the best one with a block moved forward, as often as it pays."""
        chance = random.Random(0)  # noqa: S311 - a search, not a secret
        for _ in range(SHUFFLES):
            weights = {block.name: block.size * (0.3 + chance.random()) for block in self.blocks}
            self.attempt(sorted(self.blocks, key=lambda b: -weights[b.name]))
        for _ in range(MOVES):
            if self.done:
                return
            order = list(self.order)
            moved = order.pop(chance.randrange(len(order)))
            order.insert(chance.randrange(len(order) + 1), moved)
            self._try(tuple(order))


_SortKey = Callable[[Block], tuple[int, ...]]
_KEYS: tuple[_SortKey, ...] = (
    lambda b: (-b.size, b.first),
    lambda b: (-b.size, -b.first),
    lambda b: (-b.size * (b.last - b.first + 1), b.first),
    lambda b: (-(b.last - b.first), -b.size),
    lambda b: (b.first, -b.size),
    lambda b: (-b.last, -b.size),
)


def _orders(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    for key in _KEYS:
        yield sorted(blocks, key=key)

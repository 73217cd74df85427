"""Packing blocks of memory with known lifetimes into as few bytes as possible."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

SHUFFLES = 200
"""Random orders tried when the sorted ones stay above the lower bound; seeded, so that exports repeat."""
LARGEST_SHUFFLED = 80
"""Blocks: above this, shuffling costs more time than it has ever saved bytes."""


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


def live_bytes(blocks: Sequence[Block]) -> int:
    """The most bytes in use at any step: no placement needs less."""
    return max((sum(b.size for b in blocks if b.first <= t <= b.last) for t in {b.first for b in blocks}), default=0)


def place(blocks: Sequence[Block]) -> dict[str, int]:
    """Return byte offsets: the best found over several orders, deterministic."""
    bound = live_bytes(blocks)
    best: dict[str, int] = {}
    best_size: int | None = None
    for order in _orders(blocks):
        offsets = fit(order)
        size = extent(order, offsets)
        if best_size is None or size < best_size:
            best, best_size = offsets, size
        if best_size <= bound:
            break
    return best


def extent(blocks: Iterable[Block], offsets: dict[str, int]) -> int:
    """Bytes from offset 0 to the end of the last block."""
    return max((offsets[block.name] + block.size for block in blocks), default=0)


def fit(order: Sequence[Block]) -> dict[str, int]:
    """Place blocks one after another, each into the tightest gap among those placed that are alive with it."""
    offsets: dict[str, int] = {}
    placed: list[Block] = []
    for block in order:
        busy = sorted((offsets[b.name], offsets[b.name] + b.size) for b in placed if b.meets(block))
        offsets[block.name] = _gap(block, busy)
        placed.append(block)
    return offsets


def _gap(block: Block, busy: Sequence[tuple[int, int]]) -> int:
    """Offset of the smallest gap that holds the block, or the first one behind everything."""
    best: int | None = None
    least = 0
    end = 0
    for start, stop in busy:
        at = _align(end, block.align)
        spare = start - at - block.size
        if spare >= 0 and (best is None or spare < least):
            best, least = at, spare
        end = max(end, stop)
    return best if best is not None else _align(end, block.align)


def _align(offset: int, align: int) -> int:
    return -(-offset // align) * align


_SortKey = Callable[[Block], tuple[int, ...]]
_KEYS: tuple[_SortKey, ...] = (
    lambda b: (-b.size, b.first),
    lambda b: (-b.size * (b.last - b.first + 1), b.first),
    lambda b: (-(b.last - b.first), -b.size),
    lambda b: (b.first, -b.size),
    lambda b: (-b.last, -b.size),
)


def _orders(blocks: Sequence[Block]) -> Iterable[list[Block]]:
    for key in _KEYS:
        yield sorted(blocks, key=key)
    if len(blocks) > LARGEST_SHUFFLED:
        return
    chance = random.Random(0)  # noqa: S311 - a search, not a secret
    for _ in range(SHUFFLES):
        weights = {block.name: block.size * (0.3 + chance.random()) for block in blocks}
        yield sorted(blocks, key=lambda b: -weights[b.name])

"""What no memory plan can go below."""

from __future__ import annotations

from collections.abc import Mapping

from toolchain.lower.program import Program
from toolchain.ops.overlap import Overlap
from toolchain.plan.lifetimes import Pair, Span


def lower_bound(program: Program, alive: Mapping[str, Span], overlaps: Mapping[Pair, Overlap]) -> int:
    """Return the most bytes in use at any step, what is written over what dies there counted once."""
    sizes = {name: program.buffers[name].bytes for name in alive}
    moments = range(-1, len(program.steps) + 1)
    return max(_needed(when, sizes, alive, overlaps) for when in moments)


def _needed(when: int, sizes: Mapping[str, int], alive: Mapping[str, Span], overlaps: Mapping[Pair, Overlap]) -> int:
    used = sum(size for name, size in sizes.items() if alive[name][0] <= when <= alive[name][1])
    pairs = {pair: overlap for pair, overlap in overlaps.items() if alive[pair[0]][0] == when}
    if not pairs:
        return used
    saved = sum(shared_bytes(sizes[y], sizes[x], overlap) for (y, x), overlap in pairs.items())
    return used - min(saved, max(sizes[y] for y, _ in pairs))


def shared_bytes(written: int, read: int, overlap: Overlap) -> int:
    """Return the most bytes that y of `written` and x of `read` bytes share at an allowed distance.

    >>> shared_bytes(100, 40, Overlap(0)), shared_bytes(100, 40, Overlap(80)), shared_bytes(100, 40, Overlap(-99, -1))
    (40, 20, 39)
    """
    distance = min(max(overlap.least, min(0, written - read)), overlap.most)
    return max(0, min(distance + read, written) - max(distance, 0))

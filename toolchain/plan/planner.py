"""From a program to a program with a memory plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from toolchain.lower.program import MemoryPlan, Program
from toolchain.ops.overlap import Overlap
from toolchain.plan.bound import lower_bound
from toolchain.plan.check import check
from toolchain.plan.lifetimes import Pair, Span, lifetimes, overlaps
from toolchain.plan.placement import Block, extent, place

OFFSET_ALIGN = 4
"""Bytes: what word loads of int8 data want. The arena itself begins at a multiple of 16."""


def plan(program: Program) -> Program:
    """Return the program with `memory` set: the smallest arena found, checked by a proof of its own."""
    alive = lifetimes(program)
    pairs = overlaps(program, alive)
    blocks = list(_blocks(program, alive))
    bound = _aligned(lower_bound(program, alive, pairs))
    offsets = place(blocks, pairs, bound)
    size = _aligned(extent(blocks, offsets))
    memory = MemoryPlan(offsets, size, bound, dict(alive), _written_over(program, offsets, pairs))
    check(program, memory)
    return replace(program, memory=memory)


def _aligned(size: int) -> int:
    return -(-size // OFFSET_ALIGN) * OFFSET_ALIGN


def _blocks(program: Program, alive: Mapping[str, Span]) -> Iterator[Block]:
    for name, (first, last) in alive.items():
        buffer = program.buffers[name]
        yield Block(name, buffer.bytes, first, last, max(OFFSET_ALIGN, buffer.dtype.bytes))


def _written_over(
    program: Program, offsets: Mapping[str, int], pairs: Mapping[Pair, Overlap]
) -> dict[str, tuple[str, ...]]:
    over: dict[str, tuple[str, ...]] = {}
    for written, read in pairs:
        y, x = offsets[written], offsets[read]
        if y < x + program.buffers[read].bytes and x < y + program.buffers[written].bytes:
            over[written] = (*over.get(written, ()), read)
    return over

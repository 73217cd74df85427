"""From a program to a program with a memory plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from toolchain.lower.program import MemoryPlan, Program
from toolchain.plan.check import check
from toolchain.plan.lifetimes import Span, lifetimes, takeovers
from toolchain.plan.placement import Block, extent, live_bytes, place

OFFSET_ALIGN = 4
"""Bytes: what word loads of int8 data want. The arena itself begins at a multiple of 16."""


def plan(program: Program) -> Program:
    """Return the program with `memory` set: the smallest arena found, checked for overlaps."""
    alive = lifetimes(program)
    shared = takeovers(program.steps, program.buffers, alive)
    plans = [_plan(program, alive, shared)]
    if shared and plans[0].arena_bytes > plans[0].lower_bound:
        plans.append(_plan(program, alive, {}))
    memory = min(plans, key=lambda each: each.arena_bytes)
    check(program, memory)
    return replace(program, memory=replace(memory, lower_bound=plans[0].lower_bound))


def _plan(program: Program, alive: Mapping[str, Span], shared: Mapping[str, str]) -> MemoryPlan:
    owner = {name: _root(name, shared) for name in alive}
    blocks = _blocks(program, alive, owner)
    placed = place(blocks)
    offsets = {name: placed[owner[name]] for name in alive}
    size = -(-extent(blocks, placed) // OFFSET_ALIGN) * OFFSET_ALIGN
    return MemoryPlan(offsets, size, live_bytes(blocks), dict(alive), dict(shared))


def _root(name: str, shared: Mapping[str, str]) -> str:
    while name in shared:
        name = shared[name]
    return name


def _blocks(program: Program, alive: Mapping[str, Span], owner: Mapping[str, str]) -> list[Block]:
    spans: dict[str, list[Span]] = {}
    align: dict[str, int] = {}
    for name, span in alive.items():
        spans.setdefault(owner[name], []).append(span)
        align[owner[name]] = max(align.get(owner[name], OFFSET_ALIGN), program.buffers[name].dtype.bytes)
    return [
        Block(name, program.buffers[name].bytes, min(a for a, _ in ranges), max(b for _, b in ranges), align[name])
        for name, ranges in spans.items()
    ]

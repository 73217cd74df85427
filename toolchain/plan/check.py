"""Proof of a memory plan, written apart from the planner: no two buffers alive together share a byte."""

from __future__ import annotations

from itertools import combinations

from toolchain.lower.program import Buffer, MemoryPlan, Program


def check(program: Program, memory: MemoryPlan) -> None:
    """Raise ValueError unless every buffer lies aligned inside the arena, apart from all it must not touch."""
    buffers = [program.buffers[name] for name in memory.alive]
    for buffer in buffers:
        _check_inside(buffer, memory)
    for one, other in combinations(buffers, 2):
        if _overlap(one, other, memory) and not (_apart(one, other, memory) or _handed_over(one, other, memory)):
            raise ValueError(f"{program.name}: buffers {one.name} and {other.name} overlap in the arena")


def _check_inside(buffer: Buffer, memory: MemoryPlan) -> None:
    offset = memory.offsets[buffer.name]
    if offset < 0 or offset + buffer.bytes > memory.arena_bytes or offset % max(4, buffer.dtype.bytes):
        raise ValueError(f"buffer {buffer.name}: offset {offset} in an arena of {memory.arena_bytes} bytes")


def _overlap(one: Buffer, other: Buffer, memory: MemoryPlan) -> bool:
    first, second = memory.offsets[one.name], memory.offsets[other.name]
    return first < second + other.bytes and second < first + one.bytes


def _apart(one: Buffer, other: Buffer, memory: MemoryPlan) -> bool:
    """Whether one is dead before the other is born."""
    first, second = memory.alive[one.name], memory.alive[other.name]
    return first[1] < second[0] or second[1] < first[0]


def _handed_over(one: Buffer, other: Buffer, memory: MemoryPlan) -> bool:
    """Whether one is written in place of the other in the step that reads it last."""
    for new, old in ((one, other), (other, one)):
        same_place = memory.offsets[new.name] == memory.offsets[old.name] and new.bytes == old.bytes
        if memory.shared.get(new.name) == old.name and same_place:
            return memory.alive[new.name][0] == memory.alive[old.name][1]
    return False

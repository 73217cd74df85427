"""Proof of a memory plan, written apart from the planner: who wrote each byte last, step by step.

What a kernel tolerates while it runs is its own statement (`Step.overlaps`); that nothing else ever touches a
byte that is still needed is shown here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolchain.lower.program import MemoryPlan, Program, Step

_NOBODY = -1


def check(program: Program, memory: MemoryPlan) -> None:
    """Raise ValueError unless every buffer lies aligned inside the arena and keeps its bytes until its last read."""
    for name in memory.offsets:
        _check_inside(program, memory, name)
    arena = _Arena(program, memory)
    for name in program.starts:
        arena.write(name)
    for step in program.steps:
        arena.run(step)
    for port in (*program.outputs, *(program.inputs if program.preserve_input else ())):
        arena.read(port.buffer, "the end of the run")
    for state in program.states:
        arena.read(state.buffer, "the next run")


def _check_inside(program: Program, memory: MemoryPlan, name: str) -> None:
    buffer, offset = program.buffers[name], memory.offsets[name]
    if offset < 0 or offset + buffer.bytes > memory.arena_bytes or offset % max(4, buffer.dtype.bytes):
        raise ValueError(f"buffer {name}: offset {offset} in an arena of {memory.arena_bytes} bytes")


class _Arena:
    """The last writer of every byte."""

    def __init__(self, program: Program, memory: MemoryPlan) -> None:
        self.program = program
        self.offsets = memory.offsets
        self.numbers = {name: number for number, name in enumerate(memory.offsets)}
        self.owner: NDArray[np.int64] = np.full(memory.arena_bytes, _NOBODY)
        self.begun: set[str] = set()

    def bytes(self, name: str) -> NDArray[np.int64]:
        """The part of the arena a buffer lies in."""
        return self.owner[self.offsets[name] : self.offsets[name] + self.program.buffers[name].bytes]

    def write(self, name: str) -> None:
        """Make every byte of a buffer its own."""
        self.bytes(name)[:] = self.numbers[name]
        self.begun.add(name)

    def read(self, name: str, reader: str) -> None:
        """Raise ValueError where another buffer has overwritten a byte."""
        if not (self.bytes(name) == self.numbers[name]).all():
            raise ValueError(f"{self.program.name}: buffer {name} does not last until {reader}")

    def run(self, step: Step) -> None:
        """One step: scratch is lost at once, reads must be whole, writes may lie over them only as stated."""
        reads = [name for name in step.reads if name in self.program.buffers]
        begun = [name for name in step.writes if name in self.begun]
        scratch = [step.scratch] if step.scratch in self.program.buffers else []
        for name in (*scratch, *(name for name in step.writes[1:] if name not in begun)):
            self.write(str(name))
        for name in (*reads, *begun):
            self.read(name, step.record_name)
        self._check_distances(step, step.writes[0])
        self.write(step.writes[0])
        for name in (*scratch, *step.writes):
            self.read(str(name), f"the end of {step.record_name}")

    def _check_distances(self, step: Step, written: str) -> None:
        for position, name in enumerate(step.reads):
            if name not in self.program.buffers or not self._share(written, name):
                continue
            stated = step.overlaps[position] if position < len(step.overlaps) else None
            distance = self.offsets[name] - self.offsets[written]
            if stated is None or not stated.allows(distance):
                raise ValueError(f"{self.program.name}: {written} and {name} overlap in {step.record_name}")

    def _share(self, one: str, other: str) -> bool:
        first, second = self.offsets[one], self.offsets[other]
        sizes = self.program.buffers
        return first < second + sizes[other].bytes and second < first + sizes[one].bytes

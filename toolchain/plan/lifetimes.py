"""When each buffer holds something, and which buffer may be written over which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toolchain.lower.program import Program, Step
from toolchain.ops.overlap import Overlap, common

Span = tuple[int, int]
"""First and last step, both inclusive; -1 is the moment before the first step, when inputs are filled."""
Pair = tuple[str, str]
"""A written buffer, and one that is read for the last time in the step that writes it."""


def kept(program: Program) -> tuple[str, ...]:
    """Buffers that hold their values to the end of a run."""
    ports = (*program.outputs, *(program.inputs if program.preserve_input else ()))
    return (*(port.buffer for port in ports), *(state.buffer for state in program.states))


def lifetimes(program: Program) -> dict[str, Span]:
    """Return when each buffer is alive: outputs to the end, inputs from -1, to the end when preserved, states ever."""
    alive: dict[str, Span] = dict.fromkeys(program.starts, (-1, -1))
    for when, step in enumerate(program.steps):
        for name in step.buffers:
            if name in program.buffers:
                alive[name] = (alive.get(name, (when, when))[0], when)
    end = len(program.steps)
    alive.update({name: (alive[name][0], end) for name in kept(program)})
    return alive


def overlaps(program: Program, alive: Mapping[str, Span]) -> dict[Pair, Overlap]:
    """Return how each newly written buffer may lie over each buffer that dies in that step, where it may at all."""
    found: dict[Pair, Overlap] = {}
    for when, step in enumerate(program.steps):
        if alive[step.writes[0]][0] == when:
            dying = {name for name in step.reads if name in program.buffers and alive[name][1] == when}
            found |= {(step.writes[0], name): stated for name, stated in stated_overlaps(step) if name in dying}
    return found


def stated_overlaps(step: Step) -> Iterator[tuple[str, Overlap]]:
    """The overlap of each read; of one that is read twice, what both reads tolerate."""
    missing = (None,) * (len(step.reads) - len(step.overlaps))
    pairs = list(zip(step.reads, (*step.overlaps, *missing), strict=True))
    for name in dict.fromkeys(step.reads):
        stated = common(*(overlap for read, overlap in pairs if read == name))
        if stated is not None and name not in step.writes[1:]:
            yield name, stated

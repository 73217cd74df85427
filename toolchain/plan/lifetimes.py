"""When each buffer holds something, and which buffer may take over the memory of which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolchain.lower.program import Buffer, Program, Step

Span = tuple[int, int]
"""First and last step, both inclusive; -1 is the moment before the first step, when inputs are filled."""


def lifetimes(program: Program) -> dict[str, Span]:
    """Return when each buffer is alive. Outputs live to the end; inputs from -1, to the end when preserved."""
    alive: dict[str, Span] = {port.buffer: (-1, -1) for port in program.inputs}
    for when, step in enumerate(program.steps):
        for name in step.buffers:
            if name in program.buffers:
                alive[name] = (alive.get(name, (when, when))[0], when)
    kept = (*program.outputs, *(program.inputs if program.preserve_input else ()))
    end = len(program.steps)
    alive.update({port.buffer: (alive[port.buffer][0], end) for port in kept})
    return alive


def takeovers(steps: Sequence[Step], buffers: Mapping[str, Buffer], alive: Mapping[str, Span]) -> dict[str, str]:
    """Return {written buffer: the buffer it takes the memory of}: a read of equal size that dies in that step."""
    shared: dict[str, str] = {}
    for when, step in enumerate(steps):
        target = step.writes[0]
        if alive[target][0] != when or step.in_place == 0:
            continue
        donor = _donor(step, when, buffers, alive)
        if donor is not None:
            shared[target] = donor
    return shared


def _donor(step: Step, when: int, buffers: Mapping[str, Buffer], alive: Mapping[str, Span]) -> str | None:
    size = buffers[step.writes[0]].bytes
    for name in step.reads[: step.in_place]:
        local = name in buffers and name not in step.reads[step.in_place :] and name not in step.writes
        if local and buffers[name].bytes == size and alive[name][1] == when:
            return name
    return None

"""Lines of the network in `NAME_run`: pointers into the arena, calls wrapped at 100 columns, comments beside them."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.ir.types import DType
from toolchain.lower.names import comment
from toolchain.lower.program import Program, Ref, Step

WIDTH = 100
BESIDE = 64
"""Columns a call may take for its comment to stand beside it."""
SHORTEST_COMMENT = 24
_POINTERS = {
    DType.INT8: "a",
    DType.UINT8: "u",
    DType.BOOL: "u",
    DType.INT16: "h",
    DType.INT32: "w",
    DType.INT64: "l",
    DType.FLOAT32: "f",
}


def pointer(program: Program, ref: Ref) -> str:
    """Return the C expression for a buffer (`a + 832`, in elements) or a constant (its name)."""
    if ref not in program.buffers:
        return ref
    dtype = program.buffers[ref].dtype
    offset = program.plan[ref] // dtype.bytes
    return f"{_POINTERS[dtype]} + {offset}" if offset else _POINTERS[dtype]


def arena_pointers(program: Program) -> list[tuple[str, str]]:
    """Return (C type, name) of every typed view of the arena that `run` uses."""
    used = [program.buffers[ref].dtype for step in program.steps for ref in step.buffers if ref in program.buffers]
    return [(c, name) for c, name in dict.fromkeys((d.c, p) for d, p in _POINTERS.items()) if _uses(used, c, name)]


def _uses(used: Sequence[DType], c: str, name: str) -> bool:
    return any(dtype.c == c and _POINTERS[dtype] == name for dtype in used)


def call(program: Program, step: Step) -> list[str]:
    """Return the lines of one kernel call, wrapped as clang-format wraps it."""
    record = [f"&{step.record_name}"] if step.record else []
    scratch = [pointer(program, step.scratch)] if step.scratch else []
    refs = [pointer(program, ref) for ref in (*step.reads, *step.writes)]
    return wrap(f"    {step.kernel.symbol}(", [*record, *refs, *scratch], ");")


def wrap(head: str, parts: Sequence[str], tail: str, width: int = WIDTH) -> list[str]:
    """Pack comma-separated parts behind `head`, continuation lines aligned with the first part."""
    lines, line = [], head
    for index, part in enumerate(parts):
        text = part + (tail if index == len(parts) - 1 else ",")
        gap = "" if line == head or not line.strip() else " "
        if gap and len(line) + len(gap) + len(text) > width:
            lines.append(line)
            line, gap = " " * len(head), ""
        line += gap + text
    return [*lines, line]


def network(program: Program) -> list[list[str]]:
    """Return for each step the lines of its call, the origin in a comment beside or above it."""
    calls = [call(program, step) for step in program.steps]
    column = max((len(line) for lines in calls for line in lines), default=0)
    if column <= BESIDE and all(len(lines) == 1 for lines in calls):
        return [[_beside(lines[0], step.origin, column)] for lines, step in zip(calls, program.steps, strict=True)]
    return [[*_above(step.origin), *lines] for lines, step in zip(calls, program.steps, strict=True)]


def _beside(line: str, origin: str, column: int) -> str:
    text = _short(comment(origin), WIDTH - column - len(" /*  */"))
    return f"{line.ljust(column)} /* {text} */" if text else line


def _above(origin: str) -> list[str]:
    text = _short(comment(origin), WIDTH - len("    /*  */"))
    return [f"    /* {text} */"] if text else []


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 3].rstrip()}..."


def _over(program: Program, name: str, other: Ref) -> str:
    """How a buffer lies over another."""
    same = program.plan[name] == program.plan[other] and program.buffers[name].bytes == program.buffers[other].bytes
    return "in place of" if same else "over"


def memory_map(program: Program) -> list[str]:
    """Return one line per buffer: name, bytes from .. to, and what it replaces or serves as."""
    memory = program.memory
    if memory is None:
        raise ValueError(f"{program.name}: the buffers are not placed yet")
    ports = {port.buffer: f"output{port.index}" for port in program.outputs}
    width = max(len(name) for name in memory.alive)
    digits = len(str(memory.arena_bytes))
    lines = []
    for name in sorted(memory.alive, key=lambda each: (memory.alive[each], memory.offsets[each])):
        start = memory.offsets[name]
        stop = start + program.buffers[name].bytes
        note = "".join(f"  {_over(program, name, other)} {other}" for other in memory.over.get(name, ()))
        note += f"  {ports[name]}" if name in ports else ""
        lines.append(f"{name.ljust(width)}  {start:>{digits}} .. {stop:>{digits}}{note}")
    return lines

"""Estimated Cortex-M4 cycles from executed instructions.

Timings of Arm's Cortex-M4 technical reference manual (instruction set summary), memory without wait states: an
estimate to compare kernels with, not a promise. Branches are counted as they went: two more cycles when taken.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolchain.targets.emulator import Stretch
from toolchain.targets.image import Image

REFILL = 2.0
"""Cycles to fill the pipeline behind a taken branch."""
TABLE: tuple[tuple[re.Pattern[str], float], ...] = tuple(
    (re.compile(pattern), cycles)
    for pattern, cycles in (
        (r"(ldrd|strd)$", 3.0),
        (r"v?(ldr|str)", 2.0),
        (r"[su]div", 6.0),
        (r"(vdiv|vsqrt)", 14.0),
        (r"(vmla|vmls|vnmla|vnmls|vfma|vfms|vfnma|vfnms)", 3.0),
        (r"tb[bh]$", 2.0),
        (r"it[te]*$", 0.5),  # folded into the instruction before it when that is short
    )
)
_MULTIPLE = re.compile(r"v?(ldm|stm|push|pop)")
_SINGLE = re.compile(r"v?(ldr|str)(b|h|sb|sh)?(\.|$)")
_RANGE = re.compile(r"[rsd](\d+)-[rsd](\d+)")
_LINE = re.compile(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of the disassembly."""

    address: int
    name: str
    operands: str


def disassembly(image: Image) -> tuple[Instruction, ...]:
    """The image's instructions in the order of their addresses."""
    done = subprocess.run(
        [f"{image.target.prefix}objdump", "-d", "--no-show-raw-insn", str(image.elf)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = (_LINE.match(line) for line in done.stdout.splitlines())
    return tuple(Instruction(int(row[1], 16), row[2], row[3]) for row in rows if row)


def registers(operands: str) -> int:
    """How many registers a list like {r4, r5-r7, pc} names.

    >>> registers("{r4, r5-r7, pc}"), registers("r0!, {s16-s31}")
    (5, 16)
    """
    listed = operands[operands.index("{") + 1 : operands.index("}")].split(",")
    ranges = [_RANGE.search(each) for each in listed]
    return sum(int(found[2]) - int(found[1]) + 1 if found else 1 for found in ranges)


def base_cycles(instruction: Instruction, *, pipelined: bool) -> float:
    """Cycles of one execution that does not branch; `pipelined`: directly behind another load or store."""
    name = instruction.name
    if _MULTIPLE.match(name):
        return 1.0 + registers(instruction.operands)
    if pipelined and _SINGLE.match(name):
        return 1.0
    return next((cycles for pattern, cycles in TABLE if pattern.match(name.split(".")[0])), 1.0)


def estimate(listing: Iterable[Instruction], stretch: Stretch) -> Mapping[int, float]:
    """Cycles by address."""
    cycles: dict[int, float] = {}
    before, before_count = None, 0
    for instruction in listing:
        counted = stretch.get(instruction.address)
        if counted is not None:
            pipelined = before is not None and before_count == counted.executed and bool(_SINGLE.match(before.name))
            base = base_cycles(instruction, pipelined=pipelined)
            cycles[instruction.address] = counted.executed * base + counted.taken * REFILL
        before, before_count = instruction, counted.executed if counted else 0
    return cycles

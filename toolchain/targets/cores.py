"""The cores there are: how to compile for them, which board QEMU emulates, where its memory is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from toolchain.errors import InputError

ARM_PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
RISCV_PACKAGES = "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc"


@dataclass(frozen=True, slots=True)
class Memory:
    """Addresses and sizes as the linker script writes them; `entry` is the symbol execution begins at."""

    vectors: str
    code: str
    code_bytes: str
    ram: str
    ram_bytes: str
    entry: str = "vectors"
    stack_bytes: str = "64K"


@dataclass(frozen=True, slots=True)
class Target:
    """One core. `platform` names its template in templates/targets; the host has neither emulator nor memory.

    `tick` is how many instructions pass per tick of the clock the harness reads, under `-icount shift=0`.
    `estimates_cycles`: the cost model of `cycles.py` is this core's. `note` says where the emulated machine differs.
    """

    name: str
    core: str
    platform: str
    prefix: str = ""
    flags: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    emulator: str = ""
    machine: tuple[str, ...] = ()
    memory: Memory | None = None
    packages: str = ""
    tick: float = 1.0
    fpu: bool = False
    traps_unaligned: bool = False
    estimates_cycles: bool = False
    note: str = ""

    @property
    def compiler(self) -> str:
        """The command of the cross compiler."""
        return f"{self.prefix}gcc"

    @property
    def board(self) -> str:
        """QEMU's name of the machine."""
        return self.machine[1] if self.machine else ""


MPS2 = Memory("0x00000000", "0x00000400", "4095K", "0x20000000", "4M")
IOTKIT = Memory("0x10000000", "0x10000400", "4095K", "0x38000000", "4M")
SSE300 = Memory("0x10000000", "0x11000000", "2M", "0x31000000", "4M")
VIRT = Memory("0x80000000", "0x80000400", "31M", "0x82000000", "32M", entry="start")
NEWLIB = ("-specs=nosys.specs", "-specs=nano.specs")


def _arm(name: str, core: str, board: str, memory: Memory, *flags: str, **facts: object) -> Target:
    return Target(
        name=name,
        core=core,
        platform="arm",
        prefix="arm-none-eabi-",
        flags=(f"-mcpu={name}", "-mthumb", *flags),
        libraries=NEWLIB,
        emulator="qemu-system-arm",
        machine=("-M", board),
        memory=memory,
        packages=ARM_PACKAGES,
        **{"tick": 40.0, **facts},  # type: ignore[arg-type]
    )


TARGETS = {
    target.name: target
    for target in (
        _arm(
            "cortex-m0",
            "Cortex-M0",
            "mps2-an385",
            MPS2,
            traps_unaligned=True,
            note="code for the Cortex-M0, run on a Cortex-M3 that faults on unaligned accesses",
        ),
        _arm("cortex-m3", "Cortex-M3", "mps2-an385", MPS2),
        _arm(
            "cortex-m4",
            "Cortex-M4F",
            "mps2-an386",
            MPS2,
            "-mfloat-abi=hard",
            "-mfpu=fpv4-sp-d16",
            fpu=True,
            estimates_cycles=True,
        ),
        _arm("cortex-m7", "Cortex-M7F", "mps2-an500", MPS2, "-mfloat-abi=hard", "-mfpu=fpv5-d16", fpu=True),
        _arm(
            "cortex-m33",
            "Cortex-M33F",
            "mps2-an505",
            IOTKIT,
            "-mfloat-abi=hard",
            "-mfpu=fpv5-sp-d16",
            fpu=True,
            tick=50.0,
        ),
        _arm("cortex-m55", "Cortex-M55 with MVE", "mps3-an547", SSE300, "-mfloat-abi=hard", fpu=True, tick=31.25),
        Target(
            name="rv32imc",
            core="RV32IMC",
            platform="riscv",
            prefix="riscv64-unknown-elf-",
            flags=("-march=rv32imc", "-mabi=ilp32", "-mcmodel=medany", "-mno-relax", "--specs=picolibc.specs"),
            emulator="qemu-system-riscv32",
            machine=("-M", "virt", "-bios", "none", "-m", "64M"),
            memory=VIRT,
            packages=RISCV_PACKAGES,
        ),
        Target(name="host", core="this machine", platform="host", note="nanoseconds, the fastest of many runs"),
    )
}


def find_target(name: str) -> Target:
    """The target of a name. Raises InputError for an unknown one and when its tools are missing."""
    if name not in TARGETS:
        raise InputError(f"--target: found {name!r}, expected {', '.join(TARGETS)}")
    target = TARGETS[name]
    missing = missing_tools(target)
    if missing:
        raise InputError(
            f"--target {name}: {', '.join(missing)} not found; install with: sudo apt-get install {target.packages}"
        )
    return target


def missing_tools(target: Target) -> tuple[str, ...]:
    """The programs of a target that are not installed."""
    if target.platform == "host":
        return ()
    tools = (target.compiler, f"{target.prefix}nm", f"{target.prefix}objdump", target.emulator)
    return tuple(tool for tool in tools if shutil.which(tool) is None)

"""What the C will hold: kernels, steps, constants, buffers. Everything a template may ask is answered here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from toolchain.config import Rounding
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Body, Kernel
from toolchain.ops.overlap import Overlap

Value = int | float | bool | str | tuple[int, ...] | tuple[float, ...]
"""A field of a record; a str is the C name of a constant array."""
ByBody = Mapping[Body, Value | None]
"""A field whose value depends on the body, None where that body has no such field."""
Ref = str
"""A buffer's name or a constant's C name; the two sets are disjoint."""
NULL: Ref = "NULL"
"""The scratch of a step whose kernel can use some and here needs none."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory in the arena for one tensor, or for the scratch of one step."""

    name: str
    dtype: DType
    elements: int

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.elements * self.dtype.bytes


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call: `symbol(&record_name, reads..., writes..., scratch)`.

    `overlaps` says per read how `writes[0]` may lie over it when it dies in this step. `tensors` are the graph
    tensors behind `writes`, `node` the index of the graph's node, `origin` the user's own name for it.
    """

    kernel: Kernel
    record_name: str
    record: Mapping[str, Value | ByBody]
    reads: tuple[Ref, ...]
    writes: tuple[Ref, ...]
    scratch: Ref | None = None
    overlaps: tuple[Overlap | None, ...] = ()
    origin: str = ""
    node: int = 0
    tensors: tuple[str, ...] = ()

    def fields(self, body: Body) -> dict[str, Value]:
        """The record as this body reads it."""
        found = {name: value[body] if isinstance(value, Mapping) else value for name, value in self.record.items()}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def buffers(self) -> tuple[Ref, ...]:
        """Everything the step touches, constants included."""
        return (*self.reads, *self.writes, *((self.scratch,) if self.scratch else ()))


@dataclass(frozen=True, slots=True)
class PortSpec:
    """An input or output of the C: the framework's name, the buffer, the type in the C's layout.

    `permutation` maps the framework's axes to the C's: c = transpose(framework, permutation).
    """

    index: int
    name: str
    buffer: Ref
    type: TensorType
    permutation: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StateSpec:
    """Memory that lasts from one run to the next. A reset copies `constant` there, or fills it with a byte `fill`."""

    buffer: Ref
    fill: int = 0
    constant: Ref | None = None


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where every buffer lies in the arena.

    `alive` gives first and last step per buffer (-1: before the first step), `over` the buffers that a buffer is
    written over while they are read, `lower_bound` what no plan can go below: the most bytes needed at any step.
    """

    offsets: Mapping[str, int]
    arena_bytes: int
    lower_bound: int
    alive: Mapping[str, tuple[int, int]]
    over: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Program:
    """A network as the C states it. `memory` is None until `toolchain.plan` has placed the buffers."""

    name: str
    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, Array]
    buffers: Mapping[str, Buffer]
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
    rounding: Rounding = Rounding.TFLM
    preserve_input: bool = False
    memory: MemoryPlan | None = None
    states: tuple[StateSpec, ...] = ()

    @property
    def prefix(self) -> str:
        """What the model's macros begin with."""
        return self.name.upper()

    @property
    def starts(self) -> tuple[Ref, ...]:
        """Buffers that hold something before the first step: inputs and states."""
        return (*(port.buffer for port in self.inputs), *(state.buffer for state in self.states))

    @property
    def plan(self) -> Mapping[str, int]:
        """Byte offset of every buffer. Raises ValueError before planning."""
        return self._placed().offsets

    @property
    def arena_bytes(self) -> int:
        """RAM besides the stack. Raises ValueError before planning."""
        return self._placed().arena_bytes

    @property
    def weight_bytes(self) -> int:
        """Read-only bytes of all constant arrays, for the body that needs most."""
        return max(self.body_bytes(body) for body in Body)

    def body_bytes(self, body: Body) -> int:
        """Read-only bytes of the constant arrays that a core with this body holds."""
        return sum(self.constants[name].nbytes for name in self.constants_of(body))

    def constants_of(self, body: Body) -> tuple[str, ...]:
        """The constant arrays that are read where the kernels run this body."""
        used = {ref for step in self.steps for ref in (*step.reads, *step.fields(body).values())}
        used |= {state.constant for state in self.states if state.constant}
        return tuple(name for name in self.constants if name in used)

    def _placed(self) -> MemoryPlan:
        if self.memory is None:
            raise ValueError(f"{self.name}: the buffers are not placed yet")
        return self.memory

"""What a handler sees of a foreign layer, whatever the format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolchain.ir.types import Array, DType, TensorType

if TYPE_CHECKING:
    from toolchain.importers.builder import GraphBuilder


class NoCFormError(Exception):
    """A layer that cannot be expressed; the text says why. Collected, reported with all others."""


@dataclass(frozen=True, slots=True)
class ForeignLayer:
    """A layer whose inputs are tensor names of the graph under construction."""

    builder: GraphBuilder
    kind: str
    origin: str
    inputs: tuple[str, ...]
    """Tensor names; the empty name is an omitted optional input."""

    @property
    def x(self) -> str:
        """The first input."""
        return self.operand(0)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first input."""
        return self.builder.shape(self.x)

    @property
    def rank(self) -> int:
        """The rank of the first input."""
        return len(self.shape)

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def operand(self, index: int) -> str:
        """The name of a required input."""
        if not self.has(index):
            raise ValueError(f"input {index} is missing")
        return self.inputs[index]

    def type(self, index: int) -> TensorType:
        """The type of a required input."""
        return self.builder.type(self.operand(index))

    def value(self, index: int) -> Array | None:
        """The data of an input if it is given and constant."""
        return self.builder.value(self.inputs[index]) if self.has(index) else None

    def constant_value(self, index: int, role: str) -> Array:
        """The data of an input that has to be constant."""
        value = self.builder.value(self.operand(index))
        if value is None:
            raise NoCFormError(f"its {role} is computed at run time, expected a constant")
        return value

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds real numbers."""
        return self.builder.type(name).dtype is DType.FLOAT32


def normal_axis(axis: int, rank: int) -> int:
    """An axis counted from the front. Raises ValueError when there is no such axis."""
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis}, expected one of a tensor of rank {rank}")
    return axis % rank if rank else 0

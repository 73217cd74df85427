"""What a model keeps from run to run: variables behind handles, and tensors that operators update themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.types import element_type, quantization
from toolchain.ir.types import Array, TensorType

if TYPE_CHECKING:
    from toolchain.importers.builder import GraphBuilder
    from toolchain.importers.tflite.reading import Operator, Stored

HANDLES = frozenset(["VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"])


def state_type(tensor: Stored) -> TensorType:
    """The type of a variable tensor. Raises NoCFormError where there is none."""
    return TensorType(tensor.shape, element_type(tensor), quantization(tensor))


def cleared(kind: TensorType) -> Array:
    """What variables hold that nobody has set: the integers of zero."""
    return np.full(kind.shape, kind.quant.zero_point if kind.quant else 0, kind.dtype.numpy)


@dataclass
class Variables:
    """The variables of one model by their shared names, and what they hold where the conversion stands.

    `states` has the tensor that a variable begins each run with, once it is read before it is assigned.
    """

    builder: GraphBuilder
    initial: dict[str, Array] = field(default_factory=dict)
    current: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)

    def read(self, name: str, tensor: Stored, origin: str) -> str:
        """The tensor that holds the variable's value."""
        if name not in self.current:
            kind = state_type(tensor)
            initial = self.initial.get(name, cleared(kind))
            if initial.shape != kind.shape:
                raise ValueError(f"variable {name} begins with shape {initial.shape}, expected {kind.shape}")
            self.current[name] = self.states[name] = self.builder.state(origin, kind, initial)
        return self.current[name]

    def assign(self, name: str, value: str, *, once: bool) -> None:
        """Set a variable; `once`: before the first run, to a constant."""
        if once:
            data = self.builder.value(value)
            if data is None:
                raise NoCFormError(f"variable {name} begins with a value computed at run time, expected a constant")
            self.initial[name] = data
            return
        if name in self.states:
            kind, found = self.builder.type(self.states[name]), self.builder.type(value)
            if (kind.shape, kind.dtype, kind.quant) != (found.shape, found.dtype, found.quant):
                raise NoCFormError(f"variable {name} changes its type or scale, expected one of each")
        self.current[name] = value

    def finish(self) -> None:
        """Tell the builder what every state holds at the end of a run."""
        for name, read in self.states.items():
            self.builder.keep(read, self.current[name])


def shared_name(operator: Operator) -> str:
    """The name of the variable that a VAR_HANDLE stands for."""
    name = operator.options.get("SharedName", b"")
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)

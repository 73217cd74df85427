"""One ONNX node as its handler sees it, and the table of handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.importers.layer import ForeignLayer, NoCFormError, normal_axis
from toolchain.ops.elementwise import Binary, Unary
from toolchain.ops.shape import Reshape, Transpose

if TYPE_CHECKING:
    from toolchain.ops.base import Op


@dataclass(frozen=True, slots=True)
class Layer(ForeignLayer):
    """An ONNX node, its attributes in plain Python."""

    opset: int
    attributes: dict[str, Any]
    outputs: tuple[str, ...]
    """ONNX names; the empty name is an output nobody reads."""

    def integers(self, index: int, attribute: str, role: str | None = None) -> tuple[int, ...] | None:
        """A list of integers that newer opsets pass as an input and older ones as an attribute."""
        if self.has(index):
            return tuple(int(i) for i in self.constant_value(index, role or attribute).reshape(-1))
        found = self.attributes.get(attribute)
        return None if found is None else tuple(int(i) for i in found)

    def get(self, attribute: str, default: Any) -> Any:
        """An attribute or its default."""
        return self.attributes.get(attribute, default)

    def axis(self, default: int, *, rank: int | None = None) -> int:
        """The attribute `axis`, counted from the front."""
        return normal_axis(int(self.get("axis", default)), self.rank if rank is None else rank)

    def constant(self, array: Any, role: str = "constant") -> str:
        """Add a constant named after this layer."""
        return self.builder.constant(f"{self.origin}/{role}", np.asarray(array))

    def add(self, op: Op, *inputs: str) -> str:
        """Apply a one-output operator."""
        return self.add_all(op, *inputs)[0]

    def add_all(self, op: Op, *inputs: str, count: int = 1) -> tuple[str, ...]:
        """Apply an operator with `count` outputs."""
        names = [f"{self.origin}/{type(op).__name__}"] * count
        return self.builder.add(op, inputs, origin=self.origin, names=names)

    def unary(self, kind: str, x: str, alpha: float = 0.0, beta: float = 0.0) -> str:
        """A function of one input."""
        return self.add(Unary(kind, alpha, beta), x)

    def binary(self, kind: str, a: str, b: str | float) -> str:
        """A function of two inputs, or of an input and a number."""
        other = b if isinstance(b, str) else self.constant(np.asarray(b, self.builder.type(a).dtype.numpy))
        return self.add(Binary(kind), a, other)

    def transpose(self, x: str, permutation: Sequence[int]) -> str:
        """Permute axes."""
        return self.add(Transpose(tuple(permutation)), x)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Reshape; the tensor itself when it has that shape."""
        if self.builder.shape(x) == tuple(shape):
            return x
        return self.add(Reshape(tuple(int(extent) for extent in shape)), x)

    def spatial_rank(self) -> int:
        """1 or 2, the number of axes after batch and channels."""
        if self.rank not in {3, 4}:
            raise NoCFormError(f"{self.rank - 2} spatial axes, expected 1 or 2")
        return self.rank - 2

    def channels_last(self, x: str) -> str:
        """(N, C, *spatial) -> (N, *spatial, C)."""
        rank = len(self.builder.shape(x))
        return self.transpose(x, (0, *range(2, rank), 1))

    def channels_first(self, x: str) -> str:
        """(N, *spatial, C) -> (N, C, *spatial)."""
        rank = len(self.builder.shape(x))
        return self.transpose(x, (0, rank - 1, *range(1, rank - 1)))


Handler = Callable[[Layer], "str | tuple[str, ...]"]

HANDLERS: dict[str, Handler] = {}
"""ONNX operator type -> handler. A handler returns the names of the tensors that are the node's outputs."""


def handles(*kinds: str) -> Callable[[Handler], Handler]:
    """Register a handler for ONNX operator types."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(kinds, handler))
        return handler

    return register


def pairs(pads: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """ONNX pads (all begins, then all ends) as (begin, end) per axis."""
    half = len(pads) // 2
    return tuple((int(begin), int(end)) for begin, end in zip(pads[:half], pads[half:], strict=True))

"""The table of conformance families: a builder that draws random models, how many, and what is expected of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tests.conformance.flat import Quant
from toolchain.config import Rounding

if TYPE_CHECKING:
    from toolchain.ir.types import Array

ENDS = (-128, 127, 0, -1)
T = TypeVar("T")


class Draw:
    """Random choices of one case, the same ones every time."""

    def __init__(self, name: str, index: int) -> None:
        self.index = index
        self.rng = np.random.default_rng(zlib.crc32(f"{name}{index}".encode()))

    def integer(self, low: int, high: int) -> int:
        """Between low and high, both included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, *options: T) -> T:
        return options[self.integer(0, len(options) - 1)]

    def turn(self, *options: T) -> T:
        """The option whose turn it is: every one occurs among enough cases."""
        return options[self.index % len(options)]

    def shape(self, rank: int, most: int = 7) -> tuple[int, ...]:
        return (1, *(self.integer(1, most) for _ in range(rank - 1)))

    def scale(self, low: float = -2.5, high: float = 0.0) -> float:
        """A float32 scale between powers of ten."""
        return float(np.float32(10 ** self.rng.uniform(low, high)))

    def zero(self) -> int:
        """A zero point: at an end, in the middle, or anywhere."""
        return self.pick(*ENDS, self.integer(-128, 127))

    def quant(self, low: float = -2.5, high: float = 0.0) -> Quant:
        return Quant(self.scale(low, high), self.zero())

    def int8(self, *shape: int, low: int = -128) -> Array:
        return self.rng.integers(low, 128, shape).astype(np.int8)

    def decades(self, count: int, axis: int = 0) -> Quant:
        """Symmetric scales per channel over three decades."""
        scales = 10 ** self.rng.uniform(-4.0, -1.0, count)
        return Quant(tuple(float(np.float32(scale)) for scale in scales), 0, axis)


@dataclass(frozen=True)
class Family:
    """Cases of one kind. `build` makes the .tflite of one case, `samples` its inputs: any integers where None.

    `rounding`: the policy under which the outputs must equal the reference kernels'. `floats`: why layers run in
    float. `exception`: why the outputs differ from the reference kernels' on purpose; then they must be within
    `steps` of them, or of `real`, a function of the real inputs.
    """

    name: str
    build: Callable[[Draw], bytes]
    count: int
    rounding: Rounding = Rounding.TFLM
    floats: str = ""
    exception: str = ""
    real: Callable[..., Any] | None = None
    steps: int = 1
    samples: Callable[[Draw, Sequence[Any]], list[Array]] | None = None


FAMILIES: dict[str, Family] = {}


def family(count: int, **facts: Any) -> Callable[[Callable[[Draw], bytes]], Callable[[Draw], bytes]]:
    """Register a builder of `count` cases."""

    def register(build: Callable[[Draw], bytes]) -> Callable[[Draw], bytes]:
        assert build.__name__ not in FAMILIES
        FAMILIES[build.__name__] = Family(build.__name__, build, count, **facts)
        return build

    return register

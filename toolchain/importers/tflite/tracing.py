"""What operators leave behind for later ones: spread batches, which are dilated convolutions, and states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolchain.ops.conv import Conv

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """`source` padded and spread over the batch in blocks."""

    source: str
    block: tuple[int, ...]
    padding: Pairs


@dataclass(frozen=True, slots=True)
class SpreadConv:
    """A convolution of a spread tensor: its operator, and its weight and bias."""

    spread: Spread
    op: Conv
    parameters: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Traces:
    """Tensor name -> how it came about."""

    spread: dict[str, Spread] = field(default_factory=dict)
    convolved: dict[str, SpreadConv] = field(default_factory=dict)
    updates: dict[str, str] = field(default_factory=dict)
    """State at the start of a run -> its value at the end."""

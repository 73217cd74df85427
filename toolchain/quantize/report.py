"""What quantization decided, for the report and for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph
    from toolchain.ir.types import TensorType
    from toolchain.quantize.account import LayerAccount
    from toolchain.quantize.mixed import Mixed


@dataclass(frozen=True, slots=True)
class TensorRange:
    """One activation on integers: the values seen, the range that is covered, and its integers."""

    name: str
    seen: tuple[float, float]
    range: tuple[float, float]
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class Technique:
    """One means that was tried: what it changed, and the outputs' signal-to-noise ratio in dB without and with it.

    `kept`: whether the export has it; what does not help on the samples is left out.
    """

    name: str
    detail: str
    before: float
    after: float
    kept: bool


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """`fallbacks`: (origin of a layer that runs in float, why). `warnings`: what deserves the user's attention."""

    method: str
    samples: int
    tensors: tuple[TensorRange, ...]
    fallbacks: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    techniques: tuple[Technique, ...] = ()
    layers: tuple[LayerAccount, ...] = ()
    mixed: Mixed | None = None


def inherited(graph: Graph, fallbacks: tuple[tuple[str, str], ...]) -> QuantizationReport:
    """The report of a model that came quantized: its own parameters, no samples."""
    tensors = tuple(
        tensor_range(tensor.name, None, tensor.type)
        for tensor in graph.tensors.values()
        if tensor.data is None and tensor.type.quant is not None
    )
    return QuantizationReport("the model's own", 0, tensors, fallbacks, ())


def tensor_range(name: str, seen: tuple[float, float] | None, kind: TensorType) -> TensorRange:
    """The row of a tensor; what was seen is the range itself where no samples were."""
    assert kind.quant is not None
    scale, zero = kind.quant.scale[0], kind.quant.zero_point
    low, high = ((limit - zero) * scale for limit in kind.dtype.limits)
    return TensorRange(name, seen or (low, high), (low, high), scale, zero)

"""Element types, quantization parameters and tensor types."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class DType(enum.Enum):
    """Element type of a tensor."""

    FLOAT32 = "float32"
    INT8 = "int8"
    UINT8 = "uint8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy element type."""
        return np.dtype(self.value)

    @property
    def c(self) -> str:
        """The C99 type."""
        return {"float32": "float", "bool": "uint8_t"}.get(self.value, f"{self.value}_t")

    @property
    def bytes(self) -> int:
        """Size of one element."""
        return self.numpy.itemsize

    @property
    def short(self) -> str:
        """Suffix of kernel names: s8, u8, s16, s32, s64, f32, b8."""
        kind = {"f": "f", "i": "s", "u": "u", "b": "b"}[self.numpy.kind]
        return f"{kind}{8 * self.bytes}"

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value of an integer type."""
        info = np.iinfo(self.numpy)
        return int(info.min), int(info.max)


@dataclass(frozen=True, slots=True)
class QuantParams:
    """real = scale * (q - zero_point). One scale, or one per index of `axis` (then zero_point is 0)."""

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None

    def scales(self, channels: int) -> NDArray[np.float64]:
        """One scale per channel, whether they are stored per tensor or per channel."""
        return np.broadcast_to(np.asarray(self.scale, np.float64), (channels,))


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape (static, batch included), element type and, for quantized tensors, the affine map to reals.

    A float32 constant with `quant` holds reals that lie on this grid: weights the source model has quantized.
    """

    shape: tuple[int, ...]
    dtype: DType = DType.FLOAT32
    quant: QuantParams | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.elements * self.dtype.bytes

"""The checksum of the weights, the same on cores of either byte order."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from toolchain.ir.types import Array


def weights_crc(arrays: Iterable[Array]) -> int:
    """Return the CRC-32 (IEEE 802.3) of all elements, each with its least significant byte first."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(), crc)
    return crc

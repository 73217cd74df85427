"""SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND: around a convolution they are its dilation, elsewhere moves of pixels."""

from __future__ import annotations

import math
from dataclasses import replace

from toolchain.importers.tflite.layer import Layer, handles
from toolchain.importers.tflite.layers.shape import pairs_of, reshaped
from toolchain.importers.tflite.tracing import Pairs, Spread, SpreadConv
from toolchain.ops.conv import Conv
from toolchain.ops.indexing import END, Pad, Slice


def _block(layer: Layer) -> tuple[int, ...]:
    block = layer.integers(1, "block shape")
    if min(block, default=0) < 1 or len(block) >= layer.rank:
        raise ValueError(f"blocks {list(block)} of {layer.shape}")
    return block


def _pairs(layer: Layer, role: str, count: int) -> Pairs:
    pairs = pairs_of(layer, 2, role)
    if len(pairs) != count or any(min(pair) < 0 for pair in pairs):
        raise ValueError(f"{role} {pairs}, expected {count} pairs of 0 or more")
    return pairs


@handles("SPACE_TO_BATCH_ND")
def space_to_batch(layer: Layer) -> str:
    """Pixels of each place in a block become a picture of the batch."""
    block = _block(layer)
    padding = _pairs(layer, "paddings", len(block))
    x, rank = layer.x, layer.rank
    if any(any(pair) for pair in padding):
        x = layer.move(Pad(((0, 0), *padding, *((0, 0),) * (rank - 1 - len(block)))), x)
    batch, *rest = layer.builder.shape(x)
    spatial, depth = rest[: len(block)], rest[len(block) :]
    if any(n % b for n, b in zip(spatial, block, strict=True)):
        raise ValueError(f"{spatial} pixels do not split into blocks of {list(block)}")
    counts = [n // b for n, b in zip(spatial, block, strict=True)]
    split = [part for pair in zip(counts, block, strict=True) for part in pair]
    x = layer.reshape(x, (batch, *split, *depth))
    inner = [2 + 2 * i for i in range(len(block))]
    outer = [1 + 2 * i for i in range(len(block))]
    tail = range(1 + 2 * len(block), 1 + 2 * len(block) + len(depth))
    x = layer.transpose(x, (*inner, 0, *outer, *tail))
    y = reshaped(layer, x, (batch * math.prod(block), *counts, *depth))
    layer.traces.spread[y] = Spread(layer.x, block, padding)
    return y


@handles("BATCH_TO_SPACE_ND")
def batch_to_space(layer: Layer) -> str:
    """The way back, cropped."""
    block = _block(layer)
    crops = _pairs(layer, "crops", len(block))
    convolved = layer.traces.convolved.get(layer.x)
    if convolved is not None and convolved.spread.block == block:
        dilated = _dilated(convolved, crops)
        if dilated is not None:
            return layer.emit(dilated, convolved.spread.source, *convolved.parameters)
    x = _gathered(layer, block)
    if not any(any(pair) for pair in crops):
        return layer.result(x)
    shape = layer.builder.shape(x)
    begins = [begin for begin, _ in crops]
    ends = [extent - end for extent, (_, end) in zip(shape[1:], crops, strict=False)]
    others = shape[1 + len(block) :]
    op = Slice((0, *begins, *(0 for _ in others)), (END, *ends, *others), (1,) * len(shape))
    return layer.emit(op, x)


def _gathered(layer: Layer, block: tuple[int, ...]) -> str:
    """All pictures of the batch woven into one."""
    batch, *rest = layer.shape
    spatial, depth = rest[: len(block)], rest[len(block) :]
    if batch % math.prod(block):
        raise ValueError(f"a batch of {batch} does not fit blocks of {list(block)}")
    rank = len(block)
    x = layer.reshape(layer.x, (*block, batch // math.prod(block), *spatial, *depth))
    woven = [axis for i in range(rank) for axis in (rank + 1 + i, i)]
    x = layer.transpose(x, (rank, *woven, *range(2 * rank + 1, 2 * rank + 1 + len(depth))))
    full = [n * b for n, b in zip(spatial, block, strict=True)]
    return layer.reshape(x, (batch // math.prod(block), *full, *depth))


def _dilated(convolved: SpreadConv, crops: Pairs) -> Conv | None:
    """The convolution with the blocks as its dilation; None where crops exceed the padding."""
    spread = convolved.spread
    padding = tuple((b - c, e - d) for (b, e), (c, d) in zip(spread.padding, crops, strict=True))
    if any(min(pair) < 0 for pair in padding):
        return None
    missing = 2 - len(spread.block)
    return replace(
        convolved.op,
        dilation=(*spread.block, *(1,) * missing),
        padding=(*padding, *((0, 0),) * missing),
    )

"""What the operators of two inputs share: their rescaling on integers and the loops over both operands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.ops.base import Call, Field, Kernel, Operands
from toolchain.ops.broadcast import Walk, walk
from toolchain.ops.overlap import elementwise

if TYPE_CHECKING:
    from toolchain.ir.graph import Tensor


@dataclass(frozen=True, slots=True)
class Rescaling:
    """The integers of a quantized function: offsets in, one (multiplier, shift) per operand and for the result."""

    a_offset: int
    b_offset: int
    y_offset: int
    low: int
    high: int
    a: tuple[int, int] = (0, 0)
    b: tuple[int, int] = (0, 0)
    y: tuple[int, int] = (0, 0)

    def record(self, *, swap: bool = False) -> dict[str, Field]:
        """The fields of the C record; with `swap` its a is the second operand."""
        fields: dict[str, Field] = {
            name: getattr(self, name) for name in ("a_offset", "b_offset", "y_offset", "low", "high")
        }
        for name in ("a", "b", "y"):
            fields[f"{name}_multiplier"], fields[f"{name}_shift"] = getattr(self, name)
        sides = {"a": "b", "b": "a"} if swap else {}
        return {name: fields[sides.get(name[0], name[0]) + name[1:]] for name in fields}


def broadcast_shape(shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """The shape to which the operands' shapes broadcast."""
    return tuple(int(size) for size in np.broadcast_shapes(*shapes))


def same_quant(*tensors: Tensor) -> bool:
    """Whether the tensors have one scale and zero point."""
    return len({(t.type.quant.scale, t.type.quant.zero_point) if t.type.quant else None for t in tensors}) == 1


def pairwise(
    name: str,
    operands: Operands,
    variant: tuple[tuple[str, Any], ...],
    helpers: tuple[str, ...],
    record: dict[str, Field],
    swap: bool = False,
) -> Call:
    """The call over two operands, in the loop layout their shapes allow."""
    reads = (1, 0) if swap else (0, 1)
    x, y = operands.inputs[0].type, operands.outputs[0].type
    steps = walk([operands.inputs[i].type.shape for i in reads], y.shape)
    layout = steps.layout
    if layout == "broadcast":
        helpers = (*helpers, "strided_offset")
    full = (
        ("weighted", False),
        ("product", False),
        ("type", x.dtype.c),
        ("y_type", y.dtype.c),
        ("layout", layout),
        *variant,
    )
    suffix = {"same": "", "broadcast": "_nd"}.get(layout, f"_{layout}")
    kernel = Kernel("binary", "binary", f"{name}{suffix}_{x.dtype.short}", full, helpers)
    in_order = {"same": 2, "broadcast": 0}.get(layout, 1)
    overlaps = (elementwise(x.dtype, y.dtype, y.elements),) * in_order
    return Call(kernel, {**_loop(steps), **record}, reads=reads, overlaps=overlaps)


def _loop(steps: Walk) -> dict[str, Field]:
    if steps.layout == "broadcast":
        return steps.record()
    if steps.layout == "row":
        return {"rows": steps.dims[0], "columns": steps.dims[1]}
    return {"elements": steps.dims[0]}

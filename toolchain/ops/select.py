"""Select: a choice between two tensors, element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Field, Kernel, Op, Operands, QuantRule, operator
from toolchain.ops.broadcast import walk
from toolchain.ops.overlap import elementwise
from toolchain.ops.pairwise import broadcast_shape, same_quant

if TYPE_CHECKING:
    from toolchain.ir.graph import Tensor


@operator("select")
@dataclass(frozen=True, slots=True)
class Select(Op):
    """Elements of a where the condition holds, else b."""

    quant_rule = QuantRule.SHARED

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The broadcast shape, the type of a."""
        condition, a, b = inputs
        if a.dtype is not b.dtype:
            raise ValueError(f"select of {a.dtype.value} and {b.dtype.value}, expected one type")
        return (TensorType(broadcast_shape((condition.shape, a.shape, b.shape)), a.dtype),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """In any type."""
        condition, a, b = (np.asarray(x) for x in inputs)
        return (np.where(condition.astype(bool), a, b).astype(a.dtype),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """Integers of one scale are moved as they are."""
        self._check(operands)
        return self.reference(*inputs)

    def _check(self, operands: Operands) -> None:
        if not same_quant(*operands.inputs[1:], operands.outputs[0]):
            raise ValueError(f"{operands.outputs[0].name}: select needs one scale for both sides and the output")

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """One loop when all shapes are equal, else the general one."""
        self._check(operands)
        y = operands.outputs[0].type
        steps = walk([tensor.type.shape for tensor in operands.inputs], y.shape)
        same = all(strides == (1,) for strides in steps.strides)
        record: dict[str, Field] = {"elements": y.elements} if same else steps.record(("condition", "a", "b"))
        variant = (("type", y.dtype.c), ("same", same))
        symbol = f"select_{'' if same else 'broadcast_'}{y.dtype.short}"
        helpers = () if same else ("strided_offset",)
        overlaps = [elementwise(tensor.type.dtype, y.dtype, y.elements) for tensor in operands.inputs] if same else []
        kernel = Kernel("select", "select", symbol, variant, helpers)
        return (Call(kernel, record, reads=(0, 1, 2), overlaps=tuple(overlaps)),)

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        """Both sides and the output need one scale, where scales are known."""
        del dtype
        known = [tensor for tensor in (*inputs[1:], *outputs) if tensor.type.quant is not None]
        return None if not known or same_quant(*known) else "both sides and the output need one scale"

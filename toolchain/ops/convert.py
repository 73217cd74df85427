"""Between reals and integers: Quantize, Dequantize, Cast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain import fixedpoint
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Field, Kernel, Op, Operands, QuantRule, only_quant, operator
from toolchain.ops.overlap import elementwise
from toolchain.ops.unary import Rescaling, table_call, values_by_index

if TYPE_CHECKING:
    from toolchain.ir.graph import Tensor


@operator("convert")
@dataclass(frozen=True, slots=True)
class Quantize(Op):
    """Float to integers on the output's grid, or integers to another grid.

    Halves go away from zero, what lies outside saturates, NaN gives the smallest integer.
    """

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The input's shape; the quantizer sets type and parameters."""
        return (TensorType(inputs[0].shape, inputs[0].dtype),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """In float nothing changes."""
        return (np.asarray(inputs[0]),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """The integers on the output's grid."""
        out, (scale, zero_point) = operands.outputs[0].type.dtype, only_quant(operands.outputs[0])
        if operands.inputs[0].type.quant is None:
            return (fixedpoint.quantize(inputs[0], scale, zero_point, *out.limits).astype(out.numpy),)
        return (_rescaling(operands).apply(inputs[0], operands),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """One division and rounding per element; from integers a table, or where 16 bits are concerned a rescaling."""
        x, y = operands.inputs[0].type, operands.outputs[0].type
        if x.quant is not None and max(x.dtype.bytes, y.dtype.bytes) > 1:
            return (_rescaling(operands).call(operands),)
        if x.quant is not None:
            return (table_call(_rescaling(operands).apply(values_by_index(x.dtype), operands), operands),)
        scale, zero_point = only_quant(operands.outputs[0])
        low, high = y.dtype.limits
        kernel = Kernel("convert", "quantize", f"quantize_{y.dtype.short}", (("type", y.dtype.c),), ("quantize_f32",))
        record: dict[str, Field] = {"elements": x.elements, "scale": scale, "zero_point": zero_point}
        overlap = elementwise(x.dtype, y.dtype, x.elements)
        return (Call(kernel, {**record, "low": low, "high": high}, overlaps=(overlap,)),)


def _rescaling(operands: Operands) -> Rescaling:
    """The ratio of scales in float64, as TensorFlow Lite has it here."""
    (scale, _), (out_scale, _) = only_quant(operands.inputs[0]), only_quant(operands.outputs[0])
    ratio = fixedpoint.quantize_multiplier(scale / out_scale)
    return Rescaling(ratio, ratio, 1, 1, *operands.outputs[0].type.dtype.limits)


@operator("convert")
@dataclass(frozen=True, slots=True)
class Dequantize(Op):
    """scale * (q - zero_point) in float32."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The input's shape in float32."""
        return (TensorType(inputs[0].shape, DType.FLOAT32),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """In float nothing changes."""
        return (np.asarray(inputs[0], np.float32),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """The reals behind the integers."""
        return (fixedpoint.dequantize(inputs[0], *only_quant(operands.inputs[0])),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """One multiplication per element."""
        x = operands.inputs[0].type
        scale, zero_point = only_quant(operands.inputs[0])
        kernel = Kernel("convert", "dequantize", f"dequantize_{x.dtype.short}", (("type", x.dtype.c),))
        record: dict[str, Field] = {"elements": x.elements, "scale": scale, "zero_point": zero_point}
        return (Call(kernel, record, overlaps=(elementwise(x.dtype, DType.FLOAT32, x.elements),)),)


@operator("convert")
@dataclass(frozen=True, slots=True)
class Cast(Op):
    """The same numbers as another type. Float to integer truncates, saturates, and takes NaN to 0."""

    to: DType

    @property
    def quant_rule(self) -> QuantRule:  # type: ignore[override]
        """Only casts to float make reals."""
        return QuantRule.FLOAT if self.to is DType.FLOAT32 else QuantRule.INDEX

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The input's shape."""
        return (TensorType(inputs[0].shape, self.to),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """The numbers as `to`."""
        x = np.asarray(inputs[0])
        if x.dtype.kind == "f" and self.to.numpy.kind in "iu":
            low, high = self.to.limits
            wide = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=2.0**64, neginf=-(2.0**64))
            inside = (wide > float(low)) & (wide < float(high))
            whole = np.where(inside, wide, 0.0).astype(np.int64)
            x = np.where(inside, whole, np.where(wide >= float(high), high, low))
        return (x.astype(self.to.numpy),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """The integers as numbers, whatever they stand for."""
        del operands
        return self.reference(*inputs)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """A C conversion, guarded where C leaves it undefined."""
        x, y = operands.inputs[0].type.dtype, self.to
        saturate = x is DType.FLOAT32 and y.numpy.kind in "iu"
        low, high = y.limits if saturate else (0, 0)
        variant = (
            ("x_type", x.c),
            ("y_type", y.c),
            ("to_bool", y is DType.BOOL),
            ("zero", "0.0f" if x is DType.FLOAT32 else "0"),
            ("saturate", saturate),
            ("limits", (f"{y.numpy.name.upper()}_MIN" if y.numpy.kind == "i" else "0", f"{y.numpy.name.upper()}_MAX")),
            ("reals", (float(low), float(high))),
        )
        kernel = Kernel("convert", "cast", f"cast_{x.short}_{y.short}", variant)
        record: dict[str, Field] = {"elements": operands.inputs[0].type.elements}
        return (Call(kernel, record, overlaps=(elementwise(x, y, operands.inputs[0].type.elements),)),)

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        """Casts work on the real numbers."""
        del inputs, outputs, dtype
        return "a cast works on the real numbers"

"""Functions of two inputs under numpy's broadcasting, and PRelu."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import fixedpoint
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Bodies, Call, Field, Op, Operands, QuantRule, bodies, only_quant, operator
from toolchain.ops.integer import leading_zeros, reciprocal
from toolchain.ops.pairwise import Rescaling, broadcast_shape, pairwise, same_quant
from toolchain.ops.product import with_bodies
from toolchain.ops.unary import table_call, values_by_index
from toolchain.ops.weighted import weighted_sum

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolchain.config import Rounding
    from toolchain.ir.graph import Tensor


def _divide(a: Any, b: Any) -> Any:
    """Integers truncate, as C does."""
    if np.asarray(a).dtype.kind == "f":
        return a / b
    quotient = np.abs(a) // np.abs(b)
    return np.where((a < 0) != (b < 0), -quotient, quotient)


@dataclass(frozen=True, slots=True)
class Kind:
    """One function: in numpy, and in C as an expression of left and right."""

    function: Callable[[Any, Any], Any]
    expression: str
    boolean: bool = False


KINDS: dict[str, Kind] = {
    "add": Kind(np.add, "left + right"),
    "sub": Kind(np.subtract, "left - right"),
    "mul": Kind(np.multiply, "left * right"),
    "div": Kind(_divide, "left / right"),
    "min": Kind(np.minimum, "left < right ? left : right"),
    "max": Kind(np.maximum, "left > right ? left : right"),
    "pow": Kind(np.power, "powf(left, right)"),
    "mod": Kind(np.mod, "floored_mod(left, right)"),
    "squared_difference": Kind(lambda a, b: np.square(a - b), "(left - right) * (left - right)"),
    "equal": Kind(np.equal, "left == right", boolean=True),
    "not_equal": Kind(np.not_equal, "left != right", boolean=True),
    "less": Kind(np.less, "left < right", boolean=True),
    "greater": Kind(np.greater, "left > right", boolean=True),
    "less_equal": Kind(np.less_equal, "left <= right", boolean=True),
    "greater_equal": Kind(np.greater_equal, "left >= right", boolean=True),
    "and": Kind(np.logical_and, "(left != 0) && (right != 0)", boolean=True),
    "or": Kind(np.logical_or, "(left != 0) || (right != 0)", boolean=True),
    "xor": Kind(np.logical_xor, "(left != 0) != (right != 0)", boolean=True),
}
"""Every kind. mod takes the divisor's sign."""

COMMUTATIVE = frozenset(["add", "mul", "min", "max", "squared_difference", "equal", "not_equal", "and", "or", "xor"])
TABLE = 256
"""Bytes of a table of all int8."""
COARSE_BITS = 8
"""Bits behind the point of quantized operands that TensorFlow Lite compares."""
LEFT_SHIFT = {"add": 20, "sub": 20, "squared_difference": 7}
"""Bits by which TensorFlow Lite enlarges both int8 operands before they are brought to one scale."""
LEFT_SHIFT_INT16 = 15
NO_INT16 = frozenset(["pow", "mod", "squared_difference"])
"""Kinds without a form on int16."""
SHORT = {"squared_difference": "sqdiff"}
"""Names in C where the kind's own is too long for a line."""
_INTEGER_MOD = "(left % right + right) % right"


@operator("binary")
@dataclass(frozen=True, slots=True)
class Binary(Op):
    """y = kind(a, b), then limited to `clamp`.

    `coarse`: quantized operands are compared as multiples of 1/256, as TensorFlow Lite does, whatever their scales.
    """

    kind: str
    clamp: tuple[float, float] | None = None
    coarse: bool = False

    @property
    def quant_rule(self) -> QuantRule:  # type: ignore[override]
        """Comparisons give booleans; pow and mod have no integer form."""
        if KINDS[self.kind].boolean:
            return QuantRule.INDEX
        return QuantRule.FLOAT if self.kind in ("pow", "mod") else QuantRule.OWN_RANGE

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The broadcast shape; bool for comparisons."""
        a, b = inputs
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind} is not a function of two inputs")
        if a.dtype is not b.dtype:
            raise ValueError(f"{self.kind} of {a.dtype.value} and {b.dtype.value}, expected one type")
        return (TensorType(broadcast_shape((a.shape, b.shape)), DType.BOOL if KINDS[self.kind].boolean else a.dtype),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """The function in the inputs' own type."""
        a, b = (np.asarray(x) for x in inputs)
        with np.errstate(all="ignore"):
            y = np.asarray(KINDS[self.kind].function(a, b))
            if self.clamp is not None:
                y = np.clip(y, *self.clamp)
        return (y if KINDS[self.kind].boolean else y.astype(a.dtype),)

    def rescaling(self, operands: Operands) -> Rescaling:
        """The integers of the kernel, as TensorFlow Lite prepares them."""
        (a_scale, a_zero), (b_scale, b_zero) = (only_quant(tensor) for tensor in operands.inputs)
        if KINDS[self.kind].boolean:
            pairs = [fixedpoint.quantize_multiplier(scale) for scale in (a_scale, b_scale)]
            return Rescaling(-a_zero, -b_zero, 0, 0, 1, *pairs)
        y_scale, y_zero = only_quant(operands.outputs[0])
        low, high = operands.outputs[0].type.dtype.limits
        if self.clamp is not None:
            low, high = (int(v) for v in fixedpoint.quantize(self.clamp, y_scale, y_zero, low, high))
        reals = self._factors(a_scale, b_scale, y_scale, _left_shift(self.kind, operands.inputs[0].type.dtype))
        return Rescaling(-a_zero, -b_zero, y_zero, low, high, *(fixedpoint.quantize_multiplier(r) for r in reals))

    def _factors(self, a: float, b: float, y: float, bits: int) -> tuple[float, float, float]:
        """Products and quotients of scales in float32 where TensorFlow Lite forms them so."""
        if self.kind in ("min", "max"):
            return a / y, b / y, 0.0
        if self.kind in ("mul", "div"):
            one, two, out = (np.float32(scale) for scale in (a, b, y))
            return 0.0, 0.0, float(one * two / out if self.kind == "mul" else one / (two * out))
        twice = 2 * max(a, b)
        if self.kind == "squared_difference":
            return a / twice, b / twice, twice * twice / ((1 << 2 * bits) * y)
        return a / twice, b / twice, twice / ((1 << bits) * y)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """TensorFlow Lite's reference kernels."""
        spec, rounding = self.rescaling(operands), operands.rounding
        a, b = (np.asarray(x, np.int64) + o for x, o in zip(inputs, (spec.a_offset, spec.b_offset), strict=True))
        if KINDS[self.kind].boolean:
            if self.coarse:
                a = fixedpoint.requantize(a << COARSE_BITS, *spec.a, rounding).astype(np.int64)
                b = fixedpoint.requantize(b << COARSE_BITS, *spec.b, rounding).astype(np.int64)
            return (self.reference(a, b)[0],)
        bits = _left_shift(self.kind, operands.inputs[0].type.dtype)
        result = _integer_value(self.kind, spec, a, b, rounding, bits)
        if self.kind not in ("min", "max", "div"):
            result = fixedpoint.requantize(result, *spec.y, rounding)
        return (np.clip(result + spec.y_offset, spec.low, spec.high).astype(operands.outputs[0].type.dtype.numpy),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """A table of what a constant makes of an int8 tensor, else one kernel per kind, type and loop layout."""
        if (at := self._of_one(operands)) is not None:
            x = values_by_index(DType.INT8).astype(np.int8)
            values = (x if i == at else tensor.data for i, tensor in enumerate(operands.inputs))
            (table,) = self.reference_int(operands, *(np.asarray(each).reshape(-1) for each in values))
            call = table_call(table, replace(operands, inputs=operands.inputs[at : at + 1]))
            return (replace(call, reads=(at,)),)
        a, b = (tensor.type for tensor in operands.inputs)
        swap = self.kind in COMMUTATIVE and a.elements < b.elements
        record = self.rescaling(operands).record(swap=swap) if a.quant else self._limits()
        variant = (
            ("expression", self._expression(a.dtype)),
            ("clamped", self.clamp is not None and a.quant is None),
            ("form", self._form() if a.quant else "plain"),
            ("short", a.dtype.short),
            ("left_shift", _left_shift(self.kind, a.dtype)),
        )
        name = SHORT.get(self.kind, self.kind) + ("_clamped" if self.clamp is not None and not a.quant else "")
        alike = len({a.elements, b.elements, operands.outputs[0].type.elements}) == 1
        if alike and self.kind in ("add", "sub") and a.quant and a.dtype is DType.INT8:
            return (self._weighted(name, operands, variant, record),)
        if self.coarse and a.quant:
            name += "_coarse"
        helpers = self._helpers(a)
        call = pairwise(name, operands, variant, helpers, record, swap)
        return (with_bodies(call) if self.kind == "mul" and a.quant and a.dtype is DType.INT8 else call,)

    def _of_one(self, operands: Operands) -> int | None:
        """The int8 operand that meets a single constant, if no smaller than a table; quotients are slow anyhow."""
        y = operands.outputs[0].type
        if y.dtype is not DType.INT8 or (y.elements < TABLE and self.kind != "div"):
            return None
        for at, (x, other) in enumerate(zip(operands.inputs, operands.inputs[::-1], strict=True)):
            if x.data is None and x.type.quant and other.data is not None and other.data.size == 1:
                return at if x.type.elements == y.elements else None
        return None

    def _weighted(
        self, name: str, operands: Operands, variant: tuple[tuple[str, Any], ...], record: dict[str, Field]
    ) -> Call:
        """The sum of two int8 tensors of one size, with a body for DSP instructions where it is a weighted sum."""
        operand = np.arange(-128, 128, dtype=np.int8)
        (table,) = self.reference_int(operands, operand[:, None], operand[None])
        a, b, y = (only_quant(tensor)[0] for tensor in (*operands.inputs, operands.outputs[0]))
        found = weighted_sum(table, a / y, b / y if self.kind == "add" else -b / y)
        if found is None:
            helpers = self._helpers(operands.inputs[0].type)
            return pairwise(f"{name}_stepwise", operands, variant, helpers, record)
        fields = {key: bodies(value, None) for key, value in record.items() if not isinstance(value, Bodies)}
        fields |= {key: bodies(None, value) for key, value in asdict(found).items()}
        call = pairwise(name, operands, (*variant, ("weighted", True)), (), dict(fields))
        kernel = replace(call.kernel, portable_helpers=("clamp_s8", "requantize"))
        dsp, mve = ("clamp_s8", "four_bytes", "weighted_sums"), ("weighted_sums_mve",)
        return replace(call, kernel=replace(kernel, dsp_helpers=dsp, mve_helpers=mve))

    def _limits(self) -> dict[str, Field]:
        return {} if self.clamp is None else {"low": float(self.clamp[0]), "high": float(self.clamp[1])}

    def _form(self) -> str:
        if KINDS[self.kind].boolean:
            return "compare_coarse" if self.coarse else "compare"
        return "sum" if self.kind in ("add", "sub") else "extreme" if self.kind in ("min", "max") else self.kind

    def _expression(self, dtype: DType) -> str:
        if dtype is DType.FLOAT32:
            return KINDS[self.kind].expression
        return _INTEGER_MOD if self.kind == "mod" else KINDS[self.kind].expression

    def _helpers(self, a: TensorType) -> tuple[str, ...]:
        if a.quant is None:
            mod = ("floored_mod",) if self.kind == "mod" and a.dtype is DType.FLOAT32 else ()
            return (*(("clamp_f32",) if self.clamp is not None else ()), *mod)
        if KINDS[self.kind].boolean:
            return ("requantize",) if self.coarse else ()
        clamp = f"clamp_{a.dtype.short}"
        return (clamp, "requantize", *(RECIPROCAL_HELPERS if self.kind == "div" else ()))

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        """Comparisons need equal scales; pow and mod have none, on int16 neither squared differences."""
        del outputs
        if self.quant_rule is QuantRule.FLOAT or (dtype is DType.INT16 and self.kind in NO_INT16):
            return f"no integer form of {self.kind}"
        if self.kind in ("and", "or", "xor"):
            return "it is a function of booleans"
        if KINDS[self.kind].boolean and not self.coarse and not (inputs[0].type.quant and same_quant(*inputs)):
            return "integers compare as the reals do only at equal scales"
        return None


RECIPROCAL_HELPERS = (
    "leading_zeros", "doubling_high_mul", "saturating_shift", "one_over_one_plus", "reciprocal",
)  # fmt: skip


def _left_shift(kind: str, dtype: DType) -> int:
    return LEFT_SHIFT_INT16 if dtype is DType.INT16 else LEFT_SHIFT.get(kind, 0)


def _integer_value(kind: str, spec: Rescaling, a: Array, b: Array, rounding: Rounding, bits: int) -> Array:
    """The result before the output's rescaling; of min, max and div after it."""
    if kind == "mul":
        return a * b
    if kind == "div":
        return _integer_quotient(spec, a, b, rounding)
    bits = 0 if kind in ("min", "max") else bits
    left = fixedpoint.requantize(a << bits, *spec.a, rounding)
    right = fixedpoint.requantize(b << bits, *spec.b, rounding)
    y: Array = np.asarray(KINDS[kind].function(left, right))
    return y


def _integer_quotient(spec: Rescaling, a: Array, b: Array, rounding: Rounding) -> Array:
    """Return a / b by the reciprocal of |b|; x / 0 saturates."""
    a, b = np.broadcast_arrays(np.where(b < 0, -a, a), np.abs(b))
    inverse, bits = reciprocal(np.maximum(b, 1), 31)
    headroom = leading_zeros(np.where(a < 0, ~a, a)) - 1
    quotient = fixedpoint.saturating_rounding_doubling_high_mul(fixedpoint.wrap32(a << headroom), inverse)
    shift = spec.y[1] - bits - headroom
    rescaled = fixedpoint.requantize(quotient, spec.y[0], np.maximum(shift, -31), rounding)
    rescaled = np.where(shift < -31, 0, rescaled)
    return np.where(b == 0, np.sign(a) << 16, rescaled)


@operator("binary")
@dataclass(frozen=True, slots=True)
class PRelu(Op):
    """x, and alpha * x below zero."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The shape of x, to which alpha broadcasts."""
        x, alpha = inputs
        if broadcast_shape((x.shape, alpha.shape)) != x.shape:
            raise ValueError(f"slopes of shape {alpha.shape} do not broadcast to {x.shape}")
        return (TensorType(x.shape, x.dtype),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """In float32."""
        x, alpha = (np.asarray(v, np.float32) for v in inputs)
        return (np.where(x >= 0, x, x * alpha).astype(np.float32),)

    def rescaling(self, operands: Operands) -> Rescaling:
        """`a` rescales what is not negative, `y` the products."""
        (x, x_zero), (alpha, alpha_zero) = (only_quant(tensor) for tensor in operands.inputs)
        y, y_zero = only_quant(operands.outputs[0])
        low, high = operands.outputs[0].type.dtype.limits
        above, below = (fixedpoint.quantize_multiplier(real) for real in (x / y, x * alpha / y))
        return Rescaling(-x_zero, -alpha_zero, y_zero, low, high, a=above, y=below)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """TensorFlow Lite's reference kernel."""
        spec = self.rescaling(operands)
        x, alpha = (np.asarray(v, np.int64) + o for v, o in zip(inputs, (spec.a_offset, spec.b_offset), strict=True))
        above = fixedpoint.requantize(x, *spec.a, operands.rounding)
        below = fixedpoint.requantize(x * alpha, *spec.y, operands.rounding)
        y = np.where(x >= 0, above, below) + spec.y_offset
        return (np.clip(y, spec.low, spec.high).astype(operands.outputs[0].type.dtype.numpy),)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """The loops of `Binary`."""
        quantized = operands.inputs[0].type.quant is not None
        variant = (
            ("expression", "left >= 0.0f ? left : left * right"),
            ("clamped", False),
            ("form", "prelu" if quantized else "plain"),
            ("short", operands.inputs[0].type.dtype.short),
            ("left_shift", 0),
        )
        helpers = (f"clamp_{operands.inputs[0].type.dtype.short}", "requantize") if quantized else ()
        record = self.rescaling(operands).record() if quantized else {}
        return (pairwise("prelu", operands, variant, helpers, record),)

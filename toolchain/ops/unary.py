"""Functions of one input, element by element. On int8 each is a table of 256 entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import fixedpoint
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.ops import integer
from toolchain.ops.base import Call, Constant, Field, Kernel, Op, Operands, QuantRule, only_quant, operator
from toolchain.ops.overlap import elementwise

if TYPE_CHECKING:
    from toolchain.config import Rounding
    from toolchain.ir.graph import Tensor

Function = Callable[[Any, float, float], Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One function: in numpy as f(x, alpha, beta), and in C as an expression of v, layer->alpha, layer->beta."""

    function: Function
    expression: str
    helpers: tuple[str, ...] = ()


def _erf(x: Any) -> Any:
    values = np.asarray(x)
    return np.array([math.erf(v) for v in values.ravel().tolist()], values.dtype).reshape(values.shape)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _celu(x: Any, alpha: float, _: float) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def _gelu_tanh(x: Any, _: float, __: float) -> Any:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _elu(x: Any, alpha: float) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _plain(function: Callable[[Any], Any], expression: str, *helpers: str) -> Kind:
    return Kind(lambda x, _, __: function(x), expression, helpers)


KINDS: dict[str, Kind] = {
    "relu": _plain(lambda x: np.maximum(x, 0), "v > 0.0f ? v : 0.0f"),
    "relu6": _plain(lambda x: np.clip(x, 0, 6), "clamp_f32(v, 0.0f, 6.0f)", "clamp_f32"),
    "leaky": Kind(lambda x, a, _: np.where(x >= 0, x, a * x), "v >= 0.0f ? v : layer->alpha * v"),
    "elu": Kind(lambda x, a, _: _elu(x, a), "v > 0.0f ? v : layer->alpha * expm1f(v)"),
    "selu": Kind(lambda x, a, b: b * _elu(x, a), "layer->beta * (v > 0.0f ? v : layer->alpha * expm1f(v))"),
    "celu": Kind(_celu, "v > 0.0f ? v : layer->alpha * expm1f(v / layer->alpha)"),
    "sigmoid": _plain(_sigmoid, "logistic(v)", "logistic"),
    "tanh": _plain(np.tanh, "tanhf(v)"),
    "hard_sigmoid": Kind(
        lambda x, a, b: np.clip(a * x + b, 0, 1),
        "clamp_f32(layer->alpha * v + layer->beta, 0.0f, 1.0f)",
        ("clamp_f32",),
    ),
    "hard_swish": _plain(
        lambda x: x * np.clip(x + 3, 0, 6) / 6, "v * clamp_f32(v + 3.0f, 0.0f, 6.0f) / 6.0f", "clamp_f32"
    ),
    "silu": _plain(lambda x: x * _sigmoid(x), "v * logistic(v)", "logistic"),
    "gelu": _plain(lambda x: 0.5 * x * (1 + _erf(x * math.sqrt(0.5))), "0.5f * v * (1.0f + erff(v * 0.70710678f))"),
    "gelu_tanh": Kind(_gelu_tanh, "0.5f * v * (1.0f + tanhf(0.79788456f * (v + 0.044715f * v * v * v)))"),
    "softplus": _plain(_softplus, "log1p_exp(v)", "log1p_exp"),
    "mish": _plain(lambda x: x * np.tanh(_softplus(x)), "v * tanhf(log1p_exp(v))", "log1p_exp"),
    "exp": _plain(np.exp, "expf(v)"),
    "log": _plain(np.log, "logf(v)"),
    "sqrt": _plain(np.sqrt, "sqrtf(v)"),
    "sqrt_down": _plain(np.sqrt, "sqrtf(v)"),
    "rsqrt": _plain(lambda x: 1 / np.sqrt(x), "1.0f / sqrtf(v)"),
    "abs": _plain(np.abs, "fabsf(v)"),
    "neg": _plain(np.negative, "-v"),
    "reciprocal": _plain(lambda x: 1 / x, "1.0f / v"),
    "square": _plain(np.square, "v * v"),
    "floor": _plain(np.floor, "floorf(v)"),
    "ceil": _plain(np.ceil, "ceilf(v)"),
    "round": _plain(np.rint, "rintf(v)"),
    "sign": _plain(np.sign, "(float)((v > 0.0f) - (v < 0.0f))"),
    "sin": _plain(np.sin, "sinf(v)"),
    "cos": _plain(np.cos, "cosf(v)"),
    "tan": _plain(np.tan, "tanf(v)"),
    "asin": _plain(np.arcsin, "asinf(v)"),
    "acos": _plain(np.arccos, "acosf(v)"),
    "atan": _plain(np.arctan, "atanf(v)"),
    "sinh": _plain(np.sinh, "sinhf(v)"),
    "cosh": _plain(np.cosh, "coshf(v)"),
    "asinh": _plain(np.arcsinh, "asinhf(v)"),
    "acosh": _plain(np.arccosh, "acoshf(v)"),
    "atanh": _plain(np.arctanh, "atanhf(v)"),
    "erf": _plain(_erf, "erff(v)"),
    "softsign": _plain(lambda x: x / (1 + np.abs(x)), "v / (1.0f + fabsf(v))"),
    "clip": Kind(np.clip, "clamp_f32(v, layer->alpha, layer->beta)", ("clamp_f32",)),
    "thresholded_relu": Kind(lambda x, a, _: np.where(x > a, x, 0), "v > layer->alpha ? v : 0.0f"),
    "identity": _plain(lambda x: x, "v"),
    "not": _plain(np.logical_not, "v == 0"),
}
"""Every kind. round takes halves to even; sqrt_down truncates the steps of a quantized root, as TensorFlow Lite."""

IN_FLOAT32 = frozenset(["sigmoid", "sqrt_down"])
"""Kinds whose table TensorFlow Lite computes in float32 where that decides a tie or a truncation."""
FIXED_QUANT = {"sigmoid": QuantParams((1 / 256,), -128), "tanh": QuantParams((1 / 128,), 0)}


@operator("unary")
@dataclass(frozen=True, slots=True)
class Unary(Op):
    """y = kind(x). alpha and beta are the kind's parameters in the order its definition names them."""

    kind: str
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def quant_rule(self) -> QuantRule:  # type: ignore[override]
        """Sigmoid and tanh have the fixed output parameters of TensorFlow Lite."""
        if self.kind in FIXED_QUANT:
            return QuantRule.FIXED
        return {"identity": QuantRule.SAME_AS_INPUT, "not": QuantRule.INDEX}.get(self.kind, QuantRule.OWN_RANGE)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The input's shape and type."""
        (x,) = inputs
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind} is not a function of one input")
        return (TensorType(x.shape, x.dtype),)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """The function in the input's own precision."""
        x = np.asarray(inputs[0])
        with np.errstate(all="ignore"):
            y = KINDS[self.kind].function(x, self.alpha, self.beta)
        return (np.asarray(y).astype(x.dtype),)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """A look-up in `table`."""
        return (self.table(operands)[np.asarray(inputs[0]).astype(np.uint8)],)

    def table(self, operands: Operands) -> Array:
        """The 256 outputs, indexed by the input as uint8; what TensorFlow Lite computes in integers as it does."""
        (scale, zero_point), (out_scale, out_zero) = only_quant(operands.inputs[0]), only_quant(operands.outputs[0])
        out = operands.outputs[0].type.dtype
        low, high = out.limits
        q = values_by_index(operands.inputs[0].type.dtype) - zero_point
        limits = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0), "clip": (self.alpha, self.beta)}.get(self.kind)
        if limits is not None:
            low, high = (int(v) for v in fixedpoint.quantize(limits, out_scale, out_zero, *out.limits))
        steps = self._integer_steps(q, scale, out_scale, operands.rounding)
        if steps is None:
            steps = self._real_steps(q, scale, out_scale)
        steps = np.clip(np.where(np.isnan(steps), low - out_zero, steps) + out_zero, low, high)
        return np.asarray(steps, out.numpy)

    def _integer_steps(self, q: Array, scale: float, out_scale: float, rounding: Rounding) -> Array | None:
        """Output steps from its zero point, in TensorFlow Lite's integers; None where it computes on reals."""
        if self.kind in {"relu", "relu6", "clip"}:
            return fixedpoint.requantize(q, *fixedpoint.quantize_multiplier(scale / out_scale), rounding)
        if self.kind == "leaky":
            slopes = (1.0, abs(float(np.float32(self.alpha))))
            ratios = [fixedpoint.quantize_multiplier(scale * slope / out_scale) for slope in slopes]
            signed = q if self.alpha >= 0 else -q
            above, below = (fixedpoint.requantize(v, *r, rounding) for v, r in zip((q, signed), ratios, strict=True))
            return np.where(q >= 0, above, below)
        if self.kind == "abs":
            ratio = float(np.float32(scale) / np.float32(out_scale))
            return fixedpoint.requantize(np.abs(q), *fixedpoint.quantize_multiplier(ratio), rounding)
        if self.kind == "hard_swish":
            return integer.hard_swish(q, scale, out_scale)
        return integer.inverse_root(q, scale, out_scale, rounding) if self.kind == "rsqrt" else None

    def _real_steps(self, q: Array, scale: float, out_scale: float) -> Array:
        """The function of the reals, rounded; NaN where it has no value."""
        kind = np.float32 if self.kind in IN_FLOAT32 else np.float64
        with np.errstate(all="ignore"):
            real = KINDS[self.kind].function(q.astype(kind) * kind(scale), self.alpha, self.beta)
            steps = np.clip(real / kind(out_scale), -(2.0**30), 2.0**30)
        return np.trunc(steps) if self.kind == "sqrt_down" else fixedpoint.round_half_away(steps)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """A table for quantized tensors, else the expression."""
        x = operands.inputs[0].type
        if operands.quantized:
            return (table_call(self.table(operands), operands),)
        if x.dtype is not (DType.BOOL if self.kind == "not" else DType.FLOAT32):
            raise ValueError(f"{operands.inputs[0].name}: {self.kind} has no kernel for {x.dtype.value}")
        kind = KINDS[self.kind]
        fields = tuple(name for name in ("alpha", "beta") if f"layer->{name}" in kind.expression)
        variant = (("type", x.dtype.c), ("expression", kind.expression), ("fields", fields))
        kernel = Kernel("unary", "unary", f"{self.kind}_{x.dtype.short}", variant, kind.helpers)
        record: dict[str, Field] = {"elements": x.elements, **{name: float(getattr(self, name)) for name in fields}}
        return (Call(kernel, record, overlaps=(elementwise(x.dtype, x.dtype, x.elements),)),)

    def has_integer_form(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> str | None:
        """Every function of reals has a table."""
        del inputs, outputs
        return "it is a function of booleans" if self.kind == "not" else None

    def fixed_quant(self, dtype: DType) -> QuantParams:
        """The parameters of sigmoid and tanh."""
        del dtype
        return FIXED_QUANT[self.kind]


def values_by_index(dtype: DType) -> Array:
    """The 256 values of int8 or uint8 in the order of their bits, as int64."""
    values: Array = np.arange(256).astype(np.uint8).view(dtype.numpy).astype(np.int64)
    return values


def table_call(table: Array, operands: Operands) -> Call:
    """The call y = table[(uint8_t)x]."""
    x, y = operands.inputs[0].type, operands.outputs[0].type
    if x.dtype.bytes != 1 or y.dtype.bytes != 1:
        raise ValueError(f"{operands.inputs[0].name}: found {x.dtype.value} -> {y.dtype.value}, expected 8 bits")
    suffix = x.dtype.short if x.dtype is y.dtype else f"{x.dtype.short}_{y.dtype.short}"
    variant = (("x_type", x.dtype.c), ("y_type", y.dtype.c))
    record: dict[str, Field] = {"elements": x.elements, "table": Constant(table)}
    overlap = elementwise(x.dtype, y.dtype, x.elements)
    return Call(Kernel("unary", "table", f"table_{suffix}", variant), record, overlaps=(overlap,))

"""Functions of one input, element by element. On int8 each is a table of 256 entries.

On int16 limits, leaky, abs and neg are exact rescalings, sigmoid and tanh as in TensorFlow Lite, and all others
tables of 513 entries between which the kernel interpolates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import fixedpoint
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.ops import integer, integer16
from toolchain.ops.base import Call, Constant, Field, Kernel, Op, Operands, QuantRule, only_quant, operator
from toolchain.ops.overlap import elementwise

if TYPE_CHECKING:
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
FIXED_QUANT_INT16 = QuantParams((1 / 32768,), 0)
LIMITS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
STEEP = frozenset(["log", "sqrt", "sqrt_down", "rsqrt", "reciprocal", "tan", "asin", "acos", "acosh", "atanh"])
"""Functions that bend too sharply somewhere for a table of 513 entries over the whole range."""
JUMPS = frozenset(["floor", "ceil", "round", "sign", "thresholded_relu"])
"""Functions that a table would smooth."""


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
        """A look-up in `table`, or what the kernels of int16 compute."""
        x, y = operands.inputs[0].type.dtype, operands.outputs[0].type.dtype
        if x is not DType.INT16:
            return (self.table(operands)[np.asarray(inputs[0]).astype(np.uint8)],)
        rescaling = self._rescaling(operands)
        if rescaling is not None:
            return (rescaling.apply(inputs[0], operands),)
        if self.kind in FIXED_QUANT:
            q = integer16.sigmoid_or_tanh(self.kind, inputs[0], only_quant(operands.inputs[0])[0])
        else:
            q = integer16.interpolate(inputs[0], self._interpolation_table(operands))
        return (q.astype(y.numpy),)

    def _rescaling(self, operands: Operands) -> Rescaling | None:
        """The function as a product with a slope on each side of zero, or None."""
        limits = (self.alpha, self.beta) if self.kind == "clip" else LIMITS.get(self.kind)
        if limits is not None:
            return Rescaling.of(operands, limits=limits)
        alphas = {"leaky": self.alpha, "abs": -1.0, "neg": 1.0}
        if self.kind not in alphas:
            return None
        return Rescaling.of(operands, sign=-1 if self.kind == "neg" else 1, below=alphas[self.kind])

    def _interpolation_table(self, operands: Operands) -> Array:
        kind, y = KINDS[self.kind], only_quant(operands.outputs[0])
        if self.kind == "gelu":
            return integer16.interpolation_table(_gelu_float32, only_quant(operands.inputs[0]), y)

        def function(x: Any) -> Any:
            real = kind.function(x.astype(np.float64), self.alpha, self.beta)
            edge = {"rsqrt": integer16.HIGHEST, "log": integer16.LOWEST}.get(self.kind)
            return real if edge is None else np.where(x > 0, real, edge * y[0])

        return integer16.interpolation_table(function, only_quant(operands.inputs[0]), y)

    def table(self, operands: Operands) -> Array:
        """The 256 outputs, indexed by the input as uint8; what TensorFlow Lite computes in integers as it does."""
        (scale, zero_point), (out_scale, out_zero) = only_quant(operands.inputs[0]), only_quant(operands.outputs[0])
        out = operands.outputs[0].type.dtype
        values = values_by_index(operands.inputs[0].type.dtype)
        rescaling = None if self.kind == "neg" else self._rescaling(operands)
        if rescaling is not None:
            return rescaling.apply(values, operands)
        q, steps = values - zero_point, None
        if self.kind == "hard_swish":
            steps = integer.hard_swish(q, scale, out_scale)
        elif self.kind == "rsqrt":
            steps = integer.inverse_root(q, scale, out_scale, operands.rounding)
        if steps is None:
            steps = self._steps(q, scale, out_scale)
        low, high = out.limits
        return np.asarray(np.clip(np.where(np.isnan(steps), low - out_zero, steps) + out_zero, low, high), out.numpy)

    def _steps(self, q: Array, scale: float, out_scale: float) -> Array:
        """The function of the reals in the output's steps, rounded; NaN where it has no value."""
        kind = np.float32 if self.kind in IN_FLOAT32 else np.float64
        with np.errstate(all="ignore"):
            real = KINDS[self.kind].function(q.astype(kind) * kind(scale), self.alpha, self.beta)
            steps = np.clip(real / kind(out_scale), -(2.0**30), 2.0**30)
        return np.trunc(steps) if self.kind == "sqrt_down" else fixedpoint.round_half_away(steps)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """A table for quantized tensors, else the expression."""
        x = operands.inputs[0].type
        if operands.quantized:
            if x.dtype is DType.INT16:
                return (self._lower_int16(operands),)
            return (table_call(self.table(operands), operands),)
        if x.dtype is not (DType.BOOL if self.kind == "not" else DType.FLOAT32):
            raise ValueError(f"{operands.inputs[0].name}: {self.kind} has no kernel for {x.dtype.value}")
        kind = KINDS[self.kind]
        fields = tuple(name for name in ("alpha", "beta") if f"layer->{name}" in kind.expression)
        variant = (("type", x.dtype.c), ("expression", kind.expression), ("fields", fields))
        kernel = Kernel("unary", "unary", f"{self.kind}_{x.dtype.short}", variant, kind.helpers)
        record: dict[str, Field] = {"elements": x.elements, **{name: float(getattr(self, name)) for name in fields}}
        return (Call(kernel, record, overlaps=(elementwise(x.dtype, x.dtype, x.elements),)),)

    def _lower_int16(self, operands: Operands) -> Call:
        rescaling = self._rescaling(operands)
        if rescaling is not None:
            return rescaling.call(operands)
        x = operands.inputs[0].type
        overlap = elementwise(x.dtype, x.dtype, x.elements)
        record: dict[str, Field] = {"elements": x.elements}
        if self.kind in FIXED_QUANT:
            multiplier, shift = integer16.sigmoid_scaling(self.kind, only_quant(operands.inputs[0])[0])
            table = Constant(integer16.sigmoid_table())
            record |= {"multiplier": multiplier, "half": (1 << shift) >> 1, "shift": shift, "table": table}
            kernel = Kernel("unary", f"{self.kind}_s16", f"{self.kind}_s16")
            return Call(kernel, record, overlaps=(overlap,))
        record["table"] = Constant(self._interpolation_table(operands))
        return Call(Kernel("unary", "curve", "curve_s16", (), ("interpolate_s16",)), record, overlaps=(overlap,))

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        """Every function of reals has a table on int8; on int16 those that a short table can hold."""
        del inputs, outputs
        if self.kind == "not":
            return "it is a function of booleans"
        if dtype is DType.INT16 and self.kind in STEEP | JUMPS:
            return f"{self.kind} is too steep somewhere for a table of 513 entries"
        return None

    def fixed_quant(self, dtype: DType) -> QuantParams:
        """The parameters of sigmoid and tanh."""
        return FIXED_QUANT_INT16 if dtype is DType.INT16 else FIXED_QUANT[self.kind]


def _gelu_float32(x: Array) -> Array:
    """The exact GELU, rounded to float32 where TensorFlow Lite rounds it."""
    argument = x * np.float32(-math.sqrt(0.5))
    complement = np.array([math.erfc(v) for v in argument.tolist()], np.float32)
    return np.asarray(np.float32(0.5) * x * complement)


@dataclass(frozen=True, slots=True)
class Rescaling:
    """y = clamp(slope * (x - zero_x) + zero_y), with a slope of its own below zero if `below` is given.

    Slopes are (multiplier, shift); `sign` and `below_sign` are 1 or -1.
    """

    slope: tuple[int, int]
    below: tuple[int, int]
    sign: int
    below_sign: int
    low: int
    high: int

    @classmethod
    def of(
        cls, operands: Operands, *, sign: int = 1, below: float = 1.0, limits: tuple[float, float] | None = None
    ) -> Rescaling:
        """The integers for sign * x, below zero `below` * x; ratios of scales in float32, as TensorFlow Lite."""
        (scale, _), (out_scale, out_zero) = only_quant(operands.inputs[0]), only_quant(operands.outputs[0])
        low, high = operands.outputs[0].type.dtype.limits
        if limits is not None:
            low, high = (int(v) for v in fixedpoint.quantize(limits, out_scale, out_zero, low, high))
        above, bent = (
            fixedpoint.quantize_multiplier(float(np.float32(scale) * np.float32(alpha) / np.float32(out_scale)))
            for alpha in (1.0, abs(below))
        )
        return cls(above, bent, sign, sign if below >= 0 else -sign, low, high)

    def apply(self, x: Array, operands: Operands) -> Array:
        """The outputs in numpy."""
        zero_x, zero_y = only_quant(operands.inputs[0])[1], only_quant(operands.outputs[0])[1]
        q = np.asarray(x, np.int64) - zero_x
        above = fixedpoint.requantize(self.sign * q, *self.slope, operands.rounding)
        below = fixedpoint.requantize(self.below_sign * q, *self.below, operands.rounding)
        y = np.clip(np.where(q >= 0, above, below) + zero_y, self.low, self.high)
        return np.asarray(y.astype(operands.outputs[0].type.dtype.numpy))

    def call(self, operands: Operands) -> Call:
        """The call of the kernel."""
        x, y = operands.inputs[0].type, operands.outputs[0].type
        zeros = (only_quant(tensor)[1] for tensor in (operands.inputs[0], operands.outputs[0]))
        record: dict[str, Field] = {"elements": x.elements, **dict(zip(("zero_x", "zero_y"), zeros, strict=True))}
        record |= {"low": self.low, "high": self.high, "multiplier": self.slope[0], "shift": self.slope[1]}
        bent = (self.slope, self.sign) != (self.below, self.below_sign)
        if bent:
            record |= {"below_multiplier": self.below[0], "below_shift": self.below[1]}
        variant = (
            ("x_type", x.dtype.c),
            ("y_type", y.dtype.c),
            ("short", y.dtype.short),
            ("value", "v" if self.sign > 0 else "-v"),
            ("below", ("v" if self.below_sign > 0 else "-v") if bent else ""),
        )
        shape = ("_bent" if bent else "") + ("_negative" if self.sign < 0 else "_abs" if self.below_sign < 0 else "")
        suffix = x.dtype.short if x.dtype is y.dtype else f"{x.dtype.short}_{y.dtype.short}"
        helpers = ("requantize", f"clamp_{y.dtype.short}")
        kernel = Kernel("unary", "rescale", f"rescale{shape}_{suffix}", variant, helpers)
        return Call(kernel, record, overlaps=(elementwise(x.dtype, y.dtype, x.elements),))


@operator("unary")
@dataclass(frozen=True, slots=True)
class Lookup(Op):
    """A function of one int8 input by its 256 outputs, indexed by the input as uint8."""

    values: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """The input's shape and type."""
        if len(self.values) != len(values_by_index(DType.INT8)):
            raise ValueError(f"a table of {len(self.values)} values, expected one for each int8")
        return (inputs[0],)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """It exists on integers alone."""
        del inputs
        raise ValueError("a table of integers has no float meaning")

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """A look-up."""
        table = np.asarray(self.values, operands.outputs[0].type.dtype.numpy)
        return (table[np.asarray(inputs[0]).astype(np.uint8)],)

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """The table."""
        return (table_call(np.asarray(self.values, operands.outputs[0].type.dtype.numpy), operands),)


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

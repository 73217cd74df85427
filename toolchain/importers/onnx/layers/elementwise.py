"""Functions of one, two or many inputs, element by element."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from toolchain.importers.layer import NoCFormError, normal_axis
from toolchain.importers.onnx.layer import Layer, handles
from toolchain.ir.types import DType
from toolchain.ops.elementwise import Cast, PRelu, Select

UNARY = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hard_swish",
    "Log": "log",
    "Mish": "mish",
    "Neg": "neg",
    "Not": "not",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}
"""Functions without attributes."""

PARAMETRIC: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "LeakyRelu": ("leaky", (("alpha", 0.01),)),
    "Elu": ("elu", (("alpha", 1.0),)),
    "Selu": ("selu", (("alpha", 1.6732632423543772), ("gamma", 1.0507009873554805))),
    "Celu": ("celu", (("alpha", 1.0),)),
    "HardSigmoid": ("hard_sigmoid", (("alpha", 0.2), ("beta", 0.5))),
    "ThresholdedRelu": ("thresholded_relu", (("alpha", 1.0),)),
}
"""Functions with attributes: kind, then the attributes (with their defaults) that are alpha and beta."""

BINARY = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Equal": "equal",
    "Less": "less",
    "Greater": "greater",
    "LessOrEqual": "less_equal",
    "GreaterOrEqual": "greater_equal",
    "And": "and",
    "Or": "or",
    "Xor": "xor",
}

VARIADIC = {"Sum": "add", "Mean": "add", "Min": "min", "Max": "max"}


@handles(*UNARY)
def unary(layer: Layer) -> str:
    """A function without attributes."""
    return layer.unary(UNARY[layer.kind], layer.x)


@handles(*PARAMETRIC)
def parametric(layer: Layer) -> str:
    """A function with attributes."""
    kind, fields = PARAMETRIC[layer.kind]
    return layer.unary(kind, layer.x, *(float(layer.get(name, default)) for name, default in fields))


@handles("Gelu")
def gelu(layer: Layer) -> str:
    """Exact or by tanh."""
    return layer.unary("gelu_tanh" if layer.get("approximate", "none") == "tanh" else "gelu", layer.x)


@handles("Swish")
def swish(layer: Layer) -> str:
    """X * sigmoid(alpha * x)."""
    alpha = float(layer.get("alpha", 1.0))
    if alpha == 1.0:
        return layer.unary("silu", layer.x)
    return layer.binary("mul", layer.x, layer.unary("sigmoid", layer.binary("mul", layer.x, alpha)))


@handles("Clip")
def clip(layer: Layer) -> str:
    """Bounds are attributes before opset 11, then inputs; a missing bound is infinite."""
    low = _bound(layer, 1, "min", -math.inf)
    high = _bound(layer, 2, "max", math.inf)
    if low == 0.0 and high == math.inf:
        return layer.unary("relu", layer.x)
    if (low, high) == (0.0, 6.0):
        return layer.unary("relu6", layer.x)
    if (low, high) == (-math.inf, math.inf):
        return layer.x
    return layer.unary("clip", layer.x, low, high)


def _bound(layer: Layer, index: int, attribute: str, default: float) -> float:
    if layer.has(index):
        bound = layer.constant_value(index, f"bound {attribute}")
        if bound.size != 1:
            raise ValueError(f"bound {attribute} of shape {bound.shape}, expected a scalar")
        return _infinite(float(bound.reshape(())))
    return _infinite(float(layer.get(attribute, default)))


def _infinite(bound: float) -> float:
    """Frameworks write the largest float for 'no bound'."""
    return math.copysign(math.inf, bound) if abs(bound) >= 3.4e38 else bound


@handles(*BINARY)
def binary(layer: Layer) -> str:
    """Two inputs under numpy's broadcasting, or the older one by axis."""
    return layer.binary(BINARY[layer.kind], layer.x, _aligned(layer))


def _aligned(layer: Layer) -> str:
    """The second input; before opset 7 its axes begin at `axis` of the first."""
    b = layer.operand(1)
    if layer.opset >= 7 or "axis" not in layer.attributes:
        return b
    axis, shape = layer.axis(0), layer.builder.shape(b)
    return layer.reshape(b, (*shape, *(1,) * (layer.rank - axis - len(shape))))


@handles(*VARIADIC)
def variadic(layer: Layer) -> str:
    """One function over any number of inputs, from left to right."""
    kind = VARIADIC[layer.kind]
    total = reduce(lambda a, b: layer.binary(kind, a, b), layer.inputs[1:], layer.x)
    if layer.kind != "Mean" or len(layer.inputs) == 1:
        return total
    return layer.binary("mul", total, 1.0 / len(layer.inputs))


@handles("Pow")
def power(layer: Layer) -> str:
    """The usual constant exponents become functions of one input."""
    exponent = layer.value(1)
    if exponent is not None and exponent.size == 1 and exponent.ndim <= layer.rank and layer.is_float(layer.x):
        number = float(exponent.reshape(()))
        kind = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}.get(number)
        if number == 1.0:
            return layer.x
        if kind is not None:
            return layer.unary(kind, layer.x)
        return layer.binary("pow", layer.x, layer.constant(exponent.astype(np.float32)))
    return layer.binary("pow", layer.x, layer.operand(1))


@handles("Mod")
def modulo(layer: Layer) -> str:
    """Remainder with the divisor's sign; `fmod` takes the dividend's."""
    if layer.get("fmod", 0):
        raise NoCFormError("fmod=1, expected 0 (the remainder with the divisor's sign)")
    return layer.binary("mod", layer.x, layer.operand(1))


@handles("PRelu")
def prelu(layer: Layer) -> str:
    """Slopes broadcast to x; before opset 7 they run over channels."""
    slope = layer.operand(1)
    shape = layer.builder.shape(slope)
    if layer.opset < 7 and len(shape) == 1 and layer.rank > 2:
        slope = layer.reshape(slope, (-1 if shape[0] != 1 else 1, *(1,) * (layer.rank - 2)))
    return layer.add(PRelu(), layer.x, slope)


@handles("Where")
def where(layer: Layer) -> str:
    """Select by a boolean tensor."""
    return layer.add(Select(), layer.x, layer.operand(1), layer.operand(2))


TYPES = {
    1: DType.FLOAT32,
    2: DType.UINT8,
    3: DType.INT8,
    5: DType.INT16,
    6: DType.INT32,
    7: DType.INT64,
    9: DType.BOOL,
    10: DType.FLOAT32,
    11: DType.FLOAT32,
    16: DType.FLOAT32,
}
"""ONNX element types; all floating-point types are computed in float32."""


@handles("Cast", "CastLike")
def cast(layer: Layer) -> str:
    """Change the element type."""
    if layer.kind == "CastLike" and layer.operand(1) in layer.builder.four_bit:
        raise NoCFormError("to 4 bits, expected float, int8..int64, uint8 or bool")
    dtype = layer.type(1).dtype if layer.kind == "CastLike" else TYPES.get(int(layer.get("to", 0)))
    if dtype is None:
        raise NoCFormError(f"element type {layer.get('to', 0)}, expected float, int8..int64, uint8 or bool")
    return layer.x if dtype is layer.type(0).dtype else layer.add(Cast(dtype), layer.x)


@handles("Identity", "Dropout")
def identity(layer: Layer) -> str:
    """Nothing at inference."""
    training = layer.value(2) if layer.kind == "Dropout" else None
    if training is not None and bool(training.reshape(-1)[0]):
        raise NoCFormError("training_mode is set, expected a model exported for inference")
    if len([name for name in layer.outputs if name]) > 1:
        raise NoCFormError("its mask output is used, expected only the values")
    return layer.x


@handles("Shrink")
def shrink(layer: Layer) -> str:
    """X + bias below -lambd, x - bias above lambd, else 0."""
    lambd, bias = float(layer.get("lambd", 0.5)), float(layer.get("bias", 0.0))
    below = layer.add(Select(), layer.binary("less", layer.x, -lambd), layer.binary("add", layer.x, bias), _zero(layer))
    above = layer.binary("greater", layer.x, lambd)
    return layer.add(Select(), above, layer.binary("sub", layer.x, bias), below)


def _zero(layer: Layer) -> str:
    return layer.constant(np.float32(0.0))


@handles("Hardmax")
def hardmax(layer: Layer) -> str:
    """Not expressible with the operators at hand."""
    normal_axis(int(layer.get("axis", -1)), layer.rank)
    raise NoCFormError("it has no C form; take ArgMax of its input instead")

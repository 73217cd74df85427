"""Functions of one or two inputs, element by element, and changes of type."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np

from toolchain.importers.layer import NoCFormError
from toolchain.importers.tflite.layer import Layer, handles, real_values
from toolchain.ir.types import DType
from toolchain.ops.elementwise import Binary, Cast, Dequantize, PRelu, Quantize, Select, Unary

UNARY: dict[str, Unary] = {
    "ABS": Unary("abs"),
    "CEIL": Unary("ceil"),
    "COS": Unary("cos"),
    "ELU": Unary("elu", 1.0),
    "EXP": Unary("exp"),
    "FLOOR": Unary("floor"),
    "HARD_SWISH": Unary("hard_swish"),
    "LOG": Unary("log"),
    "LOGISTIC": Unary("sigmoid"),
    "NEG": Unary("neg"),
    "RELU": Unary("relu"),
    "RELU6": Unary("relu6"),
    "RELU_0_TO_1": Unary("clip", 0.0, 1.0),
    "RELU_N1_TO_1": Unary("clip", -1.0, 1.0),
    "ROUND": Unary("round"),
    "RSQRT": Unary("rsqrt"),
    "SIGN": Unary("sign"),
    "SIN": Unary("sin"),
    "SQRT": Unary("sqrt"),
    "SQUARE": Unary("square"),
    "TANH": Unary("tanh"),
}
"""Functions without options."""

BINARY = {
    "ADD": "add",
    "SUB": "sub",
    "MUL": "mul",
    "DIV": "div",
    "MAXIMUM": "max",
    "MINIMUM": "min",
    "POW": "pow",
    "FLOOR_MOD": "mod",
    "SQUARED_DIFFERENCE": "squared_difference",
}

COMPARISONS = {
    "EQUAL": "equal",
    "NOT_EQUAL": "not_equal",
    "LESS": "less",
    "LESS_EQUAL": "less_equal",
    "GREATER": "greater",
    "GREATER_EQUAL": "greater_equal",
    "LOGICAL_AND": "and",
    "LOGICAL_OR": "or",
}


def apply_unary(layer: Layer, op: Unary) -> str:
    """A function of one input; of integers only where they stand for reals, or are known."""
    if not (layer.is_float(layer.x) or layer.quantized or layer.value(0) is not None):
        raise NoCFormError(f"an input of {layer.type(0).dtype.value}, expected float32 or quantized int8")
    return layer.emit(op, layer.x)


@handles(*UNARY)
def unary(layer: Layer) -> str:
    """A function without options."""
    truncates = layer.kind == "SQRT" and layer.quantized
    return apply_unary(layer, Unary("sqrt_down") if truncates else UNARY[layer.kind])


@handles("GELU")
def gelu(layer: Layer) -> str:
    """Exact or by tanh."""
    return apply_unary(layer, Unary("gelu_tanh" if layer.get("Approximate", False) else "gelu"))


@handles("LEAKY_RELU")
def leaky(layer: Layer) -> str:
    """Slope alpha below zero."""
    return apply_unary(layer, Unary("leaky", float(layer.get("Alpha", 0.0))))


@handles("LOGICAL_NOT")
def logical_not(layer: Layer) -> str:
    """Booleans only."""
    if layer.type(0).dtype is not DType.BOOL:
        raise ValueError(f"an input of {layer.type(0).dtype.value}, expected bool")
    return layer.emit(Unary("not"), layer.x)


@handles(*BINARY)
def binary(layer: Layer) -> str:
    """Two inputs under broadcasting, then limits."""
    op = Binary(BINARY[layer.kind], layer.clamp())
    _check_pair(layer)
    if layer.quantized and op.kind in {"pow", "mod"}:
        return layer.activated(layer.compute(op, layer.x, layer.operand(1)))
    if op.clamp is not None and not layer.quantized and not layer.is_float(layer.x):
        raise NoCFormError(f"a fused activation of {layer.type(0).dtype.value}, expected float32 or int8")
    return layer.activated(layer.emit(op, layer.x, layer.operand(1)))


@handles("FLOOR_DIV")
def floor_div(layer: Layer) -> str:
    """The quotient rounded down."""
    a, b = layer.value(0), layer.value(1)
    if a is not None and b is not None and not layer.is_float(layer.x):
        if not b.all():
            raise ValueError("a division by zero")
        return layer.constant(np.floor_divide(a, b))
    if not (layer.is_float(layer.x) or layer.quantized):
        raise NoCFormError(f"an input of {layer.type(0).dtype.value}, expected float32")
    return layer.unary("floor", layer.binary("div", layer.x, layer.operand(1)))


def _check_pair(layer: Layer) -> None:
    if (layer.type(0).quant is None) != (layer.type(1).quant is None):
        raise NoCFormError("quantized and float operands mixed, expected both int8 or both float32")


@handles(*COMPARISONS)
def comparison(layer: Layer) -> str:
    """Booleans of two inputs."""
    _check_pair(layer)
    return layer.emit(
        Binary(COMPARISONS[layer.kind], coarse=layer.quantized and layer.type(0).dtype is DType.INT8),
        layer.x,
        layer.operand(1),
    )


@handles("ADD_N")
def add_n(layer: Layer) -> str:
    """The sum of any number of inputs, from left to right."""
    return reduce(lambda a, b: layer.binary("add", a, b), layer.inputs[1:], layer.x)


@handles("PRELU")
def prelu(layer: Layer) -> str:
    """Slopes broadcast to the input."""
    _check_pair(layer)
    return layer.emit(PRelu(), layer.x, layer.operand(1))


@handles("SELECT", "SELECT_V2")
def select(layer: Layer) -> str:
    """Elements of one input or of the other; the older form takes a vector of conditions along the first axis."""
    condition, a, b = (layer.operand(index) for index in range(3))
    if layer.type(0).dtype is not DType.BOOL:
        raise ValueError(f"a condition of {layer.type(0).dtype.value}, expected bool")
    rank = len(layer.builder.shape(a))
    if layer.kind == "SELECT" and layer.rank == 1 and rank > 1:
        condition = layer.reshape(condition, (*layer.shape, *(1,) * (rank - 1)))
    return layer.emit(Select(), condition, layer.rescaled(a), layer.rescaled(b))


@handles("QUANTIZE")
def quantize(layer: Layer) -> str:
    """Reals to integers, or integers to another scale."""
    if layer.declared[0].quant is None:
        raise ValueError("its output has no scale, expected one")
    if not (layer.is_float(layer.x) or layer.quantized):
        raise NoCFormError(f"an input of {layer.type(0).dtype.value}, expected float32 or quantized int8")
    return layer.emit(Quantize(), layer.x)


@handles("DEQUANTIZE")
def dequantize(layer: Layer) -> str:
    """Integers to reals; of constants here and now."""
    value, quant = layer.value(0), layer.type(0).quant
    if layer.is_float(layer.x):
        return layer.x
    if quant is None:
        raise ValueError("its input has no scale, expected one")
    if value is not None:
        return layer.builder.constant(layer.origin, np.asarray(real_values(value, quant)))
    return layer.emit(Dequantize(), layer.x)


@handles("CAST")
def cast(layer: Layer) -> str:
    """The same numbers in another type; of quantized tensors the integers, whatever they stand for."""
    declared = layer.declared[0]
    if layer.unsigned:
        raise NoCFormError("a cast of uint8, expected one of int8, int32 or float32")
    if declared.dtype is layer.type(0).dtype:
        return layer.x
    types = [replace(declared, shape=layer.shape)]
    return layer.builder.add(Cast(declared.dtype), [layer.x], origin=layer.origin, types=types)[0]


@handles("ZEROS_LIKE")
def zeros_like(layer: Layer) -> str:
    """Zeros in the shape of the input."""
    if layer.quantized:
        raise NoCFormError("no int8 form, expected a float model")
    return layer.constant(np.zeros(layer.shape, layer.type(0).dtype.numpy))

"""What convolutions and fully connected layers share: y = clamp(weight x + bias), in float and in integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.config import Rounding
from toolchain.errors import InputError
from toolchain.fixedpoint import quantize, quantize_multiplier, quantize_multipliers, requantize
from toolchain.ir.graph import Tensor
from toolchain.ir.types import Array, DType
from toolchain.ops.base import Constant, Field, Kernel, Operands, only_quant

Clamp = tuple[float, float]
WIDEST = 256
"""Largest magnitude of an int8 input minus its zero point, or of the two added apart, rounded up."""
EXACT_IN_FLOAT32 = 1 << 24
"""Sums of integers below this bound are exact in float32, in any order; in float64 all int32 are."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearSpec:
    """The integers of one layer: y = clamp(requantize(weight (x - zero_x) + bias) + zero_y).

    `weight` int8 with outputs first; `bias` int32, one per output; `multiplier` and `shift` int32, one element or
    one per output.
    """

    weight: Array
    bias: Array
    multiplier: NDArray[np.int32]
    shift: NDArray[np.int32]
    zero_x: int
    zero_y: int
    low: int
    high: int
    rounding: Rounding

    @property
    def per_channel(self) -> bool:
        """Whether each output has its own multiplier."""
        return self.multiplier.size > 1

    @property
    def exact(self) -> np.dtype[Any]:
        """The narrowest floating-point type in which the accumulator is exact: numpy multiplies those fast."""
        narrow = _magnitude(self.weight, self.bias) < EXACT_IN_FLOAT32
        return np.dtype(np.float32 if narrow else np.float64)

    def centred(self, x: Array) -> Array:
        """Return x - zero_x in the exact type: what the weights multiply, and 0 where there is padding."""
        return np.subtract(x, self.zero_x, dtype=self.exact)

    def output(self, products: Array) -> Array:
        """Return int8 outputs from sums of products (..., outputs)."""
        total = products.astype(np.int64) + self.bias
        scaled = requantize(total, self.multiplier, self.shift, self.rounding)
        return np.clip(scaled + self.zero_y, self.low, self.high).astype(np.int8)

    def folded_bias(self, zero: int | None = None) -> Array:
        """The bias of the layer that takes x as it is: bias - zero * (sum of the output's weights); zero_x if None."""
        sums = self.weight.reshape(len(self.weight), -1).sum(axis=1, dtype=np.int64)
        return np.asarray(self.bias - (self.zero_x if zero is None else zero) * sums, np.int32)

    def record(self, weight: Array, *, offset: bool) -> dict[str, Field]:
        """The kernel's fields; `weight` in the kernel's order, `offset` as in the kernel's variant."""
        bias = self.bias if offset else self.folded_bias()
        scaling: dict[str, Field] = {"multiplier": int(self.multiplier[0]), "shift": int(self.shift[0])}
        if self.per_channel:
            scaling = {"multiplier": Constant(self.multiplier), "shift": Constant(self.shift)}
        zero: dict[str, Field] = {"zero_x": self.zero_x} if offset else {}
        limits: dict[str, Field] = {"zero_y": self.zero_y, "low": self.low, "high": self.high}
        return {"weight": Constant(weight), "bias": Constant(bias), **scaling, **zero, **limits}


def integer_limits(clamp: Clamp | None, y: Tensor) -> tuple[int, int]:
    """TensorFlow Lite's CalculateActivationRangeQuantized: the activation's limits in y's integers."""
    low, high = y.type.dtype.limits
    if clamp is None:
        return low, high
    first, last = (int(quantize(edge, *only_quant(y), low, high)) for edge in clamp)
    return first, last


def float_limits(clamp: Clamp) -> tuple[float, float]:
    """The activation's limits as finite float32 numbers."""
    largest = float(np.finfo(np.float32).max)
    return max(clamp[0], -largest), min(clamp[1], largest)


def clamped(y: Array, clamp: Clamp | None) -> Array:
    """Float32 `y` after its fused activation."""
    y = y.astype(np.float32, copy=False)
    return y if clamp is None else np.clip(y, np.float32(clamp[0]), np.float32(clamp[1]))


def linear_spec(operands: Operands, clamp: Clamp | None, *, single_product: bool = False) -> LinearSpec:
    """Return the integers of (x, weight, bias) -> y. Raises InputError where the accumulator may overflow.

    `single_product`: input scale times weight scale in float32, as TensorFlow Lite does for fully connected layers
    with one weight scale (GetQuantizedConvolutionMultipler); elsewhere in float64.
    """
    x, weight, bias = operands.inputs[:3]
    y = operands.outputs[0]
    weights, biases = constant(weight), constant(bias).astype(np.int32)
    multiplier, shift = quantize_multipliers(_ratios(x, weight, y, single_product=single_product))
    low, high = integer_limits(clamp, y)
    if _magnitude(weights, biases) >= 1 << 31:
        raise InputError(f"{weight.name}: sums of its products may not fit 32 bits; export this model as float32")
    return LinearSpec(
        weights, biases, multiplier, shift, only_quant(x)[1], only_quant(y)[1], low, high, operands.rounding
    )


def _magnitude(weight: Array, bias: Array) -> int:
    """What no accumulator exceeds, whatever the inputs."""
    sums = np.abs(weight.reshape(len(weight), -1).astype(np.int64)).sum(axis=1)
    return int((sums * WIDEST + np.abs(bias.astype(np.int64))).max(initial=0))


def _ratios(x: Tensor, weight: Tensor, y: Tensor, *, single_product: bool) -> NDArray[np.float64]:
    if weight.type.quant is None or weight.type.quant.zero_point != 0:
        raise ValueError(f"{weight.name}: expected symmetric weights, found {weight.type.quant}")
    scales = np.asarray(weight.type.quant.scale, np.float64)
    (scale_x, _), (scale_y, _) = only_quant(x), only_quant(y)
    if single_product and scales.size == 1:
        scales, scale_x = np.float64(np.float32(scale_x) * scales.astype(np.float32)), 1.0
    return np.asarray(scale_x * scales / scale_y, np.float64)


def product_multiplier(a: Tensor, b: Tensor, y: Tensor) -> tuple[int, int]:
    """(multiplier, shift) of a product of two activations; the product of scales in float32 as TensorFlow Lite."""
    scale = np.float32(only_quant(a)[0]) * np.float32(only_quant(b)[0])
    return quantize_multiplier(float(scale) / only_quant(y)[0])


def constant(tensor: Tensor) -> Array:
    """The tensor's data. Raises InputError for a computed tensor."""
    if tensor.data is None:
        raise InputError(f"{tensor.name}: computed by the model, expected constant weights; use a MatMul for it")
    return tensor.data


def constant_reason(inputs: tuple[Tensor, ...]) -> str | None:
    """Why a layer has no integer form, if its weight or bias is computed."""
    computed = [tensor.name for tensor in inputs[1:3] if tensor.data is None]
    return f"{', '.join(computed)} computed by the model, not constant" if computed else None


def linear_kernel(family: str, macro: str, variant: dict[str, bool], *inner: str, dsp: tuple[str, ...] = ()) -> Kernel:
    """The kernel of a macro for float (with or without limits) or int8, calling `inner` helpers.

    The symbol names the variant. `dsp`: the helpers of its DSP body, which calls none of `inner`.
    """
    floating = variant["float"]
    flags = "".join(f"_{word}" for flag, word in _WORDS.items() if variant[flag])
    facts = {"type": "float" if floating else "int8_t", **variant}
    symbol = f"{macro}{flags}_{'f32' if floating else 's8'}"
    if dsp:
        return Kernel(family, macro, symbol, tuple(facts.items()), ("clamp_s8",), ("requantize", *inner), dsp)
    outer = (("clamp_f32",) if variant["clamped"] else ()) if floating else ("requantize", "clamp_s8")
    return Kernel(family, macro, symbol, tuple(facts.items()), outer + inner)


def dot_helper(variant: dict[str, bool]) -> str:
    """The helper that sums the products of one run of inputs and weights."""
    if variant["float"]:
        return "dot_f32"
    return "dot_offset_s8" if variant["offset"] else "dot_s8"


_WORDS = {"clamped": "clamped", "plain": "plain", "offset": "offset", "per_channel": "channels"}


def linear_call_parts(
    operands: Operands, clamp: Clamp | None, weight: Array, spec: LinearSpec | None, *, padded: bool
) -> tuple[dict[str, bool], dict[str, Field]]:
    """(variant, record fields) of a layer: float when there is no `spec`. `padded`: whether taps may be left out."""
    if spec is None:
        limits: dict[str, Field] = {}
        if clamp is not None:
            limits = dict(zip(("low", "high"), float_limits(clamp), strict=True))
        variant = {"float": True, "clamped": clamp is not None, "offset": False, "per_channel": False, "plain": False}
        bias = constant(operands.inputs[2])
        return variant, {"weight": Constant(weight), "bias": Constant(bias), **limits}
    offset = padded and spec.zero_x != 0
    variant = {"float": False, "clamped": False, "offset": offset, "per_channel": spec.per_channel, "plain": False}
    return variant, spec.record(weight, offset=offset)


def int8_spec(operands: Operands, clamp: Clamp | None, *, single_product: bool = False) -> LinearSpec | None:
    """`linear_spec` of an int8 layer, None for a float one. Raises ValueError for other element types."""
    dtype = operands.inputs[0].type.dtype
    if dtype is DType.FLOAT32:
        return None
    if dtype is not DType.INT8:
        raise ValueError(f"{operands.inputs[0].name}: {dtype.value} activations are not implemented, only int8")
    return linear_spec(operands, clamp, single_product=single_product)

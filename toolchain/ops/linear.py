"""What convolutions and fully connected layers share: y = clamp(weight x + bias), in float and in integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.config import Rounding
from toolchain.errors import InputError
from toolchain.fixedpoint import (
    quantize,
    quantize_multiplier,
    quantize_multipliers,
    reduced_multiplier,
    requantize,
    requantize_once,
    requantize_wide,
    saturate32,
)
from toolchain.ir.graph import Tensor
from toolchain.ir.types import Array, DType
from toolchain.ops.base import Constant, Kernel, Operands, Plain, only_quant
from toolchain.ops.shifts import one_shift, with_one_shift

Clamp = tuple[float, float]
WIDEST = {DType.INT8: 256, DType.INT16: 1 << 15}
"""Largest magnitude of an int8 input minus its zero point, or of the two added apart, rounded up; of an int16 input."""
ACCUMULATOR_BITS = {DType.INT8: 31, DType.INT16: 47}
"""Magnitudes of sums that fit the accumulator: int32 beside int8, beside int16 what an int64 product leaves."""
LARGEST_SHIFT = 14
EXACT_IN_FLOAT32 = 1 << 24
"""Sums of integers below this bound are exact in float32, in any order; in float64 all int32 are."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearSpec:
    """The integers of one layer: y = clamp(requantize(weight (x - zero_x) + bias) + zero_y).

    `weight` with outputs first: int8, or int16 where 8 bits less a zero point of the source model need 9; `bias` one
    per output; `multiplier` and `shift` int32, one element or one per output. x and y are `dtype`: int8 with an int32
    bias and accumulator, or int16 without zero points and with the forms TensorFlow Lite has for it.
    `rescale` names what makes outputs of sums: "requantize" (int8); beside int16 with an int64 bias
    "requantize_wide" or "requantize_once"; with an int32 bias "requantize_narrow", which first saturates to int32
    (TensorFlow Lite leaves open what happens where the sum does not fit).
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
    dtype: DType
    rescale: str

    @property
    def per_channel(self) -> bool:
        """Whether each output has its own multiplier."""
        return self.multiplier.size > 1

    @property
    def wide(self) -> bool:
        """Whether the weights are int16."""
        return self.weight.dtype == np.int16

    @property
    def exact(self) -> np.dtype[Any]:
        """The narrowest floating-point type in which the accumulator is exact: numpy multiplies those fast."""
        narrow = _magnitude(self.weight, self.bias, self.dtype) < EXACT_IN_FLOAT32
        return np.dtype(np.float32 if narrow else np.float64)

    def centred(self, x: Array) -> Array:
        """Return x - zero_x in the exact type: what the weights multiply, and 0 where there is padding."""
        return np.subtract(x, self.zero_x, dtype=self.exact)

    def output(self, products: Array) -> Array:
        """Return the outputs from sums of products (..., outputs)."""
        total = products.astype(np.int64) + self.bias
        if self.rescale == "requantize_wide":
            scaled = requantize_wide(total, self.multiplier, self.shift)
        elif self.rescale == "requantize_once":
            scaled = requantize_once(total, self.multiplier, self.shift)
        else:
            scaled = requantize(saturate32(total), self.multiplier, self.shift, self.rounding)
        return np.asarray(np.clip(scaled + self.zero_y, self.low, self.high).astype(self.dtype.numpy))

    def folded_bias(self, zero: int | None = None) -> Array:
        """The bias of the layer that takes x as it is: bias - zero * (sum of the output's weights); zero_x if None."""
        sums = self.weight.reshape(len(self.weight), -1).sum(axis=1, dtype=np.int64)
        return np.asarray(self.bias - (self.zero_x if zero is None else zero) * sums, self.bias.dtype)

    @property
    def scaling(self) -> tuple[Array, Array]:
        """(multiplier, shift) as the kernel's rescaling takes them."""
        if self.rescale == "requantize_once":
            return self.multiplier, np.asarray(31 - self.shift, np.int32)
        if self.rescale != "requantize_wide":
            return self.multiplier, self.shift
        multiplier, shift = reduced_multiplier(self.multiplier, self.shift)
        return multiplier.astype(np.int32), shift.astype(np.int32)

    def record(self, weight: Array, *, offset: bool) -> dict[str, Plain]:
        """The kernel's fields; `weight` in the kernel's order, `offset` as in the kernel's variant."""
        bias = self.bias if offset else self.folded_bias()
        multiplier, shift = self.scaling
        scaling: dict[str, Plain] = {"multiplier": int(multiplier[0]), "shift": int(shift[0])}
        if self.per_channel:
            common = one_shift(self)
            scaling = {"multiplier": Constant(multiplier), "shift": Constant(shift) if common is None else common}
        zero: dict[str, Plain] = {"zero_x": self.zero_x} if offset else {}
        if self.dtype is DType.INT8:
            zero["zero_y"] = self.zero_y
        limits: dict[str, Plain] = {"low": self.low, "high": self.high}
        return {"weight": Constant(weight), "bias": Constant(bias), **scaling, **zero, **limits}


def weights_of(operands: Operands, spec: LinearSpec | None) -> Array:
    """The weights that the kernel takes, outputs first. Raises InputError for computed ones."""
    return constant(operands.inputs[1]) if spec is None else spec.weight


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
    with one weight scale (GetQuantizedConvolutionMultipler); elsewhere in float64. These layers are also the ones
    whose sums its desktop kernels round once, with all bits of the multiplier: so do policy `litert` and, of int16
    sums, `single`.
    """
    x, weight, bias = operands.inputs[:3]
    y = operands.outputs[0]
    dtype = x.type.dtype
    weights, biases = constant(weight), constant(bias)
    biases = biases.astype(np.int64 if biases.dtype == np.int64 and dtype is DType.INT16 else np.int32)
    multiplier, shift = quantize_multipliers(_ratios(x, weight, y, single_product=single_product))
    low, high = integer_limits(clamp, y)
    zeros = only_quant(x)[1], only_quant(y)[1]
    _check(x, y, zeros)
    if _magnitude(weights, biases, dtype) >= 1 << ACCUMULATOR_BITS[dtype]:
        bits = 1 + ACCUMULATOR_BITS[dtype]
        raise InputError(f"{weight.name}: sums of its products may not fit {bits} bits; export this model as float32")
    rescale = _rescale(operands.rounding, dtype, long_bias=biases.dtype == np.int64, single_product=single_product)
    if rescale in {"requantize_once", "requantize_wide"} and shift.max(initial=0) > LARGEST_SHIFT:
        raise InputError(f"{y.name}: an output scale far below input scale times weight scale, expected a larger one")
    return LinearSpec(weights, biases, multiplier, shift, *zeros, low, high, operands.rounding, dtype, rescale)


def _rescale(rounding: Rounding, dtype: DType, *, long_bias: bool, single_product: bool) -> str:
    """The helper that makes outputs of sums; LiteRT's fully connected layers round once."""
    once = rounding is Rounding.LITERT or (rounding is Rounding.SINGLE and long_bias)
    if single_product and once:
        return "requantize_once"
    if long_bias:
        return "requantize_wide"
    return "requantize" if dtype is DType.INT8 else "requantize_narrow"


def _check(x: Tensor, y: Tensor, zeros: tuple[int, int]) -> None:
    if x.type.dtype is not y.type.dtype:
        raise ValueError(f"{y.name}: {y.type.dtype.value} from {x.type.dtype.value}, expected one type")
    if x.type.dtype is DType.INT16 and zeros != (0, 0):
        raise ValueError(f"{x.name}: int16 activations with zero points {zeros}, expected 0")


def _magnitude(weight: Array, bias: Array, dtype: DType) -> int:
    """What no accumulator exceeds, whatever the inputs."""
    sums = np.abs(weight.reshape(len(weight), -1).astype(np.int64)).sum(axis=1)
    return int((sums * WIDEST[dtype] + np.abs(bias.astype(np.int64))).max(initial=0))


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


def linear_kernel(
    family: str,
    macro: str,
    variant: dict[str, Any],
    *inner: str,
    dsp: tuple[str, ...] = (),
    mve: tuple[str, ...] = (),
) -> Kernel:
    """The kernel of a macro for float (with or without limits), int8 or int16, calling `inner` helpers.

    `dsp` and `mve`: the helpers of its bodies for such cores, which call none of `inner`. The symbol names the
    variant: `plain` and `left` where numbers (as of outputs that are scaled up) rule out the body for DSP, for MVE,
    `octets` where that for DSP sums the products only; `shifts` for `channels` where int8 outputs share no shift.
    """
    short = variant["short"]
    words = [word for flag, word in _WORDS.items() if variant[flag] and not (variant["wide"] and flag == "offset")]
    if variant["per_channel"] and variant["rescale"] == "requantize":
        words[words.index("channels")] = "shifts"
    if short == "s8":
        plain = "octets" if variant.get("octets") else "plain"
        words += [word for flag, word in (("dsp", plain), ("mve", "left")) if variant.get(flag) is False]
    flags = "".join(f"_{word}" for word in words)
    if variant["float"]:
        outer: tuple[str, ...] = ("clamp_f32",) if variant["clamped"] else ()
    else:
        outer = (*rescaling(variant), f"clamp_{short}")
    symbol, facts = f"{macro}{flags}_{short}", tuple(variant.items())
    if not dsp and not mve:
        return Kernel(family, macro, symbol, facts, outer + inner)
    return Kernel(family, macro, symbol, facts, (), outer + inner, dsp or outer + inner, mve or None)


def rescaling(variant: dict[str, Any]) -> tuple[str, ...]:
    """The helper that makes outputs of integer sums, behind one that it calls."""
    called = ("requantize",) if variant["rescale"] in {"requantize_narrow", "requantize_packed"} else ()
    return (*called, variant["rescale"])


def dot_helper(variant: dict[str, Any]) -> str:
    """The helper that sums the products of one run of inputs and weights."""
    if variant["wide"]:
        return "dot_wide_s8"
    return "dot_offset_s8" if variant["offset"] else f"dot_{variant['short']}"


_WORDS = {
    "clamped": "clamped",
    "wide": "wide",
    "offset": "offset",
    "per_channel": "channels",
    "narrow": "b32",
    "once": "once",
    "once32": "once32",
}


def linear_call_parts(
    operands: Operands, clamp: Clamp | None, weight: Array, spec: LinearSpec | None, *, padded: bool
) -> tuple[dict[str, Any], dict[str, Plain]]:
    """(variant, record fields) of a layer: float when there is no `spec`. `padded`: whether taps may be left out."""
    if spec is None:
        limits: dict[str, Plain] = {}
        if clamp is not None:
            limits = dict(zip(("low", "high"), float_limits(clamp), strict=True))
        flags = {"float": True, "clamped": clamp is not None}
        flags |= dict.fromkeys(("wide", "offset", "per_channel", "one_shift"), False)
        types = {"type": "float", "weight": "float", "bias": "float", "sum": "float", "short": "f32"}
        record: dict[str, Plain] = {"weight": Constant(weight), "bias": Constant(constant(operands.inputs[2]))}
        return {**types, "rescale": "", **flags, **dict.fromkeys(("narrow", "once", "once32"), False)}, record | limits
    offset = spec.wide or (padded and spec.zero_x != 0)
    return _integer_variant(spec, offset=offset), spec.record(weight, offset=offset)


def _integer_variant(spec: LinearSpec, *, offset: bool) -> dict[str, Any]:
    """int16 inputs are summed in 64 bits, whatever the bias."""
    long = spec.dtype is DType.INT16
    types = {"type": spec.dtype.c, "weight": "int16_t" if spec.wide else "int8_t", "bias": f"{spec.bias.dtype.name}_t"}
    types |= {"sum": "int64_t" if long else "int32_t", "short": spec.dtype.short}
    flags = {"float": False, "clamped": False, "wide": spec.wide, "offset": offset, "per_channel": spec.per_channel}
    flags["one_shift"] = spec.per_channel and one_shift(spec) is not None
    types["rescale"] = "requantize_packed" if flags["one_shift"] else spec.rescale
    once, narrow = spec.rescale == "requantize_once", long and spec.bias.dtype == np.int32
    return {**types, **flags, "narrow": narrow and not once, "once": once and not narrow, "once32": once and narrow}


def integer_spec(operands: Operands, clamp: Clamp | None, *, single_product: bool = False) -> LinearSpec | None:
    """`linear_spec` of an int8 or int16 layer, None for a float one. Raises ValueError for other element types."""
    dtype = operands.inputs[0].type.dtype
    if dtype is DType.FLOAT32:
        return None
    if dtype not in WIDEST:
        raise ValueError(f"{operands.inputs[0].name}: {dtype.value} activations, expected int8 or int16")
    return linear_spec(operands, clamp, single_product=single_product)


def kernel_spec(operands: Operands, clamp: Clamp | None, *, single_product: bool = False) -> LinearSpec | None:
    """`integer_spec` by numbers that mean the same and that kernels take more easily: `with_one_shift`."""
    spec = integer_spec(operands, clamp, single_product=single_product)
    return None if spec is None else with_one_shift(spec)

"""Layers that keep state from run to run: SVDF, a filter over time behind a fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.fixedpoint import quantize_multiplier, requantize, saturate32
from toolchain.ir.types import Array, DType, TensorType
from toolchain.ops.base import Call, Constant, Field, Kernel, Op, Operands, float32, only_quant, operator
from toolchain.ops.linear import Clamp, clamped, constant, float_limits

if TYPE_CHECKING:
    from toolchain.ir.graph import Tensor


def scale_product(*tensors: Tensor) -> np.float32:
    """The product of scales in float32, as TensorFlow Lite forms it."""
    product: np.float32 = np.float32(1)
    for tensor in tensors:
        product = np.float32(product * np.float32(only_quant(tensor)[0]))
    return product


@operator("recurrent")
@dataclass(frozen=True, slots=True)
class Svdf(Op):
    """Filters over time of products with the input, summed over ranks: one step of a sequence.

    (x[n, inputs], feature[filters, inputs], time[filters, memory], bias[units], state[n, filters * memory]).
    Each filter remembers its last `memory` products with the input; units are sums over `rank` filters and time.
    Gives (y[n, units], the next state). On integers x and y are int8, the state and `time` int16 without zero point.
    """

    rank: int
    clamp: Clamp | None = None

    updates = ((1, 4),)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, feature, time, bias, state = inputs
        filters = feature.shape[0]
        if len(x.shape) != 2 or feature.shape[1:] != x.shape[1:] or time.shape[:1] != (filters,):
            raise ValueError(f"weights {feature.shape} and {time.shape} do not fit an input of {x.shape}")
        if self.rank < 1 or filters % self.rank or bias.shape != (filters // self.rank,):
            raise ValueError(f"rank {self.rank} and bias {bias.shape} do not fit {filters} filters")
        if state.shape != (x.shape[0], filters * time.shape[1]):
            raise ValueError(f"state of shape {state.shape}, expected {(x.shape[0], filters * time.shape[1])}")
        return TensorType((x.shape[0], bias.shape[0]), x.dtype), TensorType(state.shape, state.dtype)

    def _shifted(self, state: Array, newest: Array, memory: int) -> Array:
        """(n, filters, memory): every filter's memory one step on."""
        kept = state.reshape(*newest.shape, memory)[..., 1:]
        return np.concatenate([kept, newest[..., None].astype(state.dtype)], axis=-1)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x, feature, time, bias, state = float32(*inputs)
        following = self._shifted(state, x @ feature.T, time.shape[1])
        sums = np.einsum("nfm,fm->nf", following, time).reshape(len(x), -1, self.rank).sum(-1)
        return clamped(sums + bias, self.clamp), following.reshape(state.shape)

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """TensorFlow Lite's reference kernel, with sums over time saturated to 32 bits."""
        if operands.inputs[0].type.dtype is DType.FLOAT32:
            return self.reference(*inputs)
        x, feature, time, bias, state = (np.asarray(each, np.int64) for each in inputs)
        first, second = self._scales(operands)
        products = requantize((x - only_quant(operands.inputs[0])[1]) @ feature.T, *first, operands.rounding)
        newest = np.clip(products, *DType.INT16.limits)
        following = self._shifted(state, newest, time.shape[1])
        sums = np.einsum("nfm,fm->nf", following, time).reshape(len(x), -1, self.rank).sum(-1)
        y = requantize(saturate32(sums + bias), *second, operands.rounding) + only_quant(operands.outputs[0])[1]
        return np.clip(y, *DType.INT8.limits).astype(np.int8), following.reshape(state.shape).astype(np.int16)

    def _scales(self, operands: Operands) -> tuple[tuple[int, int], tuple[int, int]]:
        """(multiplier, shift) into the memory and out of it."""
        x, feature, time, _, state = operands.inputs
        into = scale_product(x, feature) / np.float32(only_quant(state)[0])
        out = scale_product(state, time) / np.float32(only_quant(operands.outputs[0])[0])
        return quantize_multiplier(float(into)), quantize_multiplier(float(out))

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x, feature, time, bias, _ = operands.inputs
        filters, memory = time.type.shape
        record: dict[str, Field] = {
            "batch": x.type.shape[0],
            "inputs": x.type.shape[1],
            "units": filters // self.rank,
            "rank": self.rank,
            "memory": memory,
            "feature": Constant(constant(feature)),
            "time": Constant(constant(time)),
            "bias": Constant(constant(bias)),
        }
        if x.type.dtype is DType.FLOAT32:
            limits = {} if self.clamp is None else dict(zip(("low", "high"), float_limits(self.clamp), strict=True))
            return (self._call("f32", record | limits, ("dot_f32",)),)
        (multiplier, shift), (out_multiplier, out_shift) = self._scales(operands)
        record |= {"zero_x": only_quant(x)[1], "multiplier": multiplier, "shift": shift}
        record |= {"zero_y": only_quant(operands.outputs[0])[1]}
        record |= {"out_multiplier": out_multiplier, "out_shift": out_shift}
        helpers = ("requantize", "requantize_narrow", "dot_offset_s8", "clamp_s8", "clamp_s16")
        return (self._call("s8", record, helpers),)

    def _call(self, short: str, record: dict[str, Field], helpers: tuple[str, ...]) -> Call:
        limited = short == "f32" and self.clamp is not None
        helpers = (*helpers, *(("clamp_f32",) if limited else ()))
        symbol = f"svdf_{'clamped_' if limited else ''}{short}"
        kernel = Kernel("recurrent", f"svdf_{short}", symbol, (("clamped", limited),), helpers)
        return Call(kernel, record, reads=(0, 4), writes=(0, 1))

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        """Only models that come quantized have one."""
        del inputs, outputs, dtype
        return "the integers of its state are not calibrated here"

    def macs(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> int:
        del outputs
        return inputs[0].shape[0] * (inputs[1].elements + inputs[2].elements)

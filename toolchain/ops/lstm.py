"""Long short-term memory over a sequence, its output and cell kept from run to run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import InputError
from toolchain.fixedpoint import quantize_multiplier, requantize, rounding_divide_by_pot
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.ops.base import Call, Constant, Field, Kernel, Op, Operands, float32, only_quant, operator
from toolchain.ops.integer16 import HIGHEST, LOWEST, sigmoid_q15, tanh_q15
from toolchain.ops.linear import constant

if TYPE_CHECKING:
    from toolchain.ir.graph import Tensor

GATES = 4
"""Input, forget, cell and output, in this order along the first axis of weights and biases."""
GATE_STEP = np.float32(2.0**-12)
"""Scale of the gates before their activations."""
HELPERS = (
    "requantize", "clamp_s8", "clamp_s16", "dot_s8", "mul_q15", "rounding_shift", "exp_q15", "two_over_one_plus_q15",
    "sigmoid_q15", "tanh_q15",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class LstmSpec:
    """The integers of TensorFlow Lite's 8x8_16 form: (multiplier, shift) per gate, biases with zero points in them.

    `cell_bits`: integer bits of the cell state, whose scale is a power of two; `clip`: its limit, or 0.
    """

    into: list[tuple[int, int]]
    back: list[tuple[int, int]]
    input_bias: Array
    recurrent_bias: Array
    hidden: tuple[int, int]
    hidden_zero: int
    cell_bits: int
    clip: int


@operator("lstm")
@dataclass(frozen=True, slots=True)
class Lstm(Op):
    """Long short-term memory over a sequence.

    (x, input weight[4, cells, inputs], recurrent weight[4, cells, cells], bias[4, cells], h[n, cells], c[n, cells]).
    x is (n, steps, inputs), or (steps, n, inputs) if `time_major`; gives (y of all steps, the next h, the next c).
    On integers x, h and y are int8, c is int16 and the bias int32; `hidden_scale` and `hidden_zero` are the grid of
    the product of output gate and cell. `clip` limits the cell where it is positive.
    """

    time_major: bool = False
    clip: float = 0.0
    hidden_scale: float = 1.0
    hidden_zero: int = 0

    updates = ((1, 4), (2, 5))

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, weight, recurrent, bias, hidden, cell = inputs
        if len(x.shape) != len(weight.shape) or weight.shape[0] != GATES or weight.shape[2] != x.shape[2]:
            raise ValueError(f"weights {weight.shape} do not fit an input of {x.shape}")
        cells, batch = weight.shape[1], x.shape[1 if self.time_major else 0]
        if recurrent.shape != (GATES, cells, cells) or bias.shape != (GATES, cells):
            raise ValueError(f"recurrent weights {recurrent.shape} and bias {bias.shape} do not fit {cells} cells")
        if hidden.shape != (batch, cells) or cell.shape != (batch, cells):
            raise ValueError(f"states {hidden.shape} and {cell.shape}, expected {(batch, cells)}")
        y = TensorType((*x.shape[:2], cells), x.dtype)
        return y, TensorType(hidden.shape, hidden.dtype), TensorType(cell.shape, cell.dtype)

    def _steps(self, x: Array) -> Array:
        return x if self.time_major else x.swapaxes(0, 1)

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        x, weight, recurrent, bias, hidden, cell = float32(*inputs)
        outputs = []
        for step in self._steps(x):
            gates = np.einsum("ni,gci->gnc", step, weight) + np.einsum("nh,gch->gnc", hidden, recurrent)
            first, forget, update, output = gates + bias[:, None]
            one = np.float32(1)
            cell = cell * (one / (one + np.exp(-forget))) + np.tanh(update) * (one / (one + np.exp(-first)))
            cell = np.clip(cell, -self.clip, self.clip) if self.clip > 0 else cell
            hidden = np.tanh(cell) * (one / (one + np.exp(-output)))
            outputs.append(hidden)
        return self._steps(np.stack(outputs)), hidden, cell

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """TensorFlow Lite's kernel."""
        if operands.inputs[0].type.dtype is DType.FLOAT32:
            return self.reference(*inputs)
        spec = self._spec(operands)
        x, weight, recurrent, _, hidden, cell = (np.asarray(each, np.int64) for each in inputs)
        outputs = []
        for step in self._steps(x):
            gates = [self._gate(operands, spec, index, step @ weight[index].T, hidden @ recurrent[index].T)
                     for index in range(GATES)]  # fmt: skip
            first, forget, output = (sigmoid_q15(gates[index]) for index in (0, 1, 3))
            kept = rounding_divide_by_pot(forget * cell, 15)
            added = rounding_divide_by_pot(first * tanh_q15(gates[2], 3), 15 + spec.cell_bits)
            cell = np.clip(kept + added, LOWEST, HIGHEST)
            cell = np.clip(cell, -spec.clip, spec.clip) if spec.clip else cell
            product = output * tanh_q15(cell, spec.cell_bits)
            hidden = np.clip(requantize(product, *spec.hidden, operands.rounding) + spec.hidden_zero, -128, 127)
            outputs.append(hidden)
        y = self._steps(np.stack(outputs)).astype(np.int8)
        return y, hidden.astype(np.int8), cell.astype(np.int16)

    def _gate(self, operands: Operands, spec: LstmSpec, index: int, given: Array, back: Array) -> Array:
        first = requantize(given + spec.input_bias[index], *spec.into[index], operands.rounding)
        second = requantize(back + spec.recurrent_bias[index], *spec.back[index], operands.rounding)
        return np.clip(second + np.clip(first, LOWEST, HIGHEST), LOWEST, HIGHEST)

    def _spec(self, operands: Operands) -> LstmSpec:
        x, weight, recurrent, bias, hidden, cell = operands.inputs
        (scale_x, zero_x), (scale_h, zero_h), (scale_c, _) = only_quant(x), only_quant(hidden), only_quant(cell)
        fraction, exponent = math.frexp(scale_c)
        bits = 14 + exponent
        if fraction != 0.5 or not 0 <= bits <= 6:
            raise InputError(f"{cell.name}: a cell of scale {scale_c:g}, expected 2^-15 to 2^-9")
        hidden_scale = np.float32(2.0**-15 / float(np.float32(self.hidden_scale)) * 2.0**-15)
        clip = np.float32(self.clip) / np.float32(scale_c)
        return LstmSpec(
            _gate_scales(weight, scale_x),
            _gate_scales(recurrent, scale_h),
            _folded(constant(weight), zero_x, constant(bias)),
            _folded(constant(recurrent), zero_h, np.zeros((), np.int64)),
            quantize_multiplier(float(hidden_scale)),
            self.hidden_zero,
            bits,
            int(min(max(clip, LOWEST), HIGHEST)),
        )

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        x, weight, recurrent, bias = (operands.inputs[index] for index in range(4))
        cells, inputs = weight.type.shape[1:]
        outer, inner = x.type.shape[:2]
        steps, batch = (outer, inner) if self.time_major else (inner, outer)
        along_step, along_sample = (batch, 1) if self.time_major else (1, steps)
        record: dict[str, Field] = {"steps": steps, "batch": batch, "inputs": inputs, "cells": cells}
        record |= {"along_step": along_step, "along_sample": along_sample}
        record |= {"input_weight": Constant(constant(weight)), "recurrent_weight": Constant(constant(recurrent))}
        if x.type.dtype is DType.FLOAT32:
            record |= {"bias": Constant(constant(bias)), "clip": float(self.clip)}
            helpers: tuple[str, ...] = ("dot_f32", "logistic", "clamp_f32")
        else:
            record |= _integer_fields(self._spec(operands))
            helpers = HELPERS
        short = x.type.dtype.short
        return (Call(Kernel("lstm", f"lstm_{short}", f"lstm_{short}", (), helpers), record, (0, 4, 5), (0, 1, 2)),)

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        """Only models that come quantized have one."""
        del inputs, outputs, dtype
        return "the integers of its states are not calibrated here"

    def macs(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> int:
        rows = outputs[0].elements // outputs[0].shape[-1]
        return rows * (inputs[1].elements + inputs[2].elements)


def _gate_scales(weight: Tensor, scale: float) -> list[tuple[int, int]]:
    """Per gate (multiplier, shift) to GATE_STEP, products and quotients in float32 as TensorFlow Lite has them."""
    quant = weight.type.quant or QuantParams((1.0,))
    scales = np.broadcast_to(np.asarray(quant.scale, np.float32), (GATES,))
    return [quantize_multiplier(float(np.float32(each * np.float32(scale)) / GATE_STEP)) for each in scales]


def _folded(weight: Array, zero_point: int, bias: Array) -> Array:
    sums = np.asarray(bias, np.int64) - zero_point * weight.astype(np.int64).sum(axis=2)
    return np.asarray(sums, np.int32)


def _integer_fields(spec: LstmSpec) -> dict[str, Field]:
    fields: dict[str, Field] = {
        "input_bias": Constant(spec.input_bias),
        "recurrent_bias": Constant(spec.recurrent_bias),
    }
    for name, pairs in (("input", spec.into), ("recurrent", spec.back)):
        fields[f"{name}_multiplier"] = tuple(multiplier for multiplier, _ in pairs)
        fields[f"{name}_shift"] = tuple(shift for _, shift in pairs)
    fields |= {"cell_bits": spec.cell_bits, "clip": spec.clip or HIGHEST + 1}
    return fields | {
        "hidden_multiplier": spec.hidden[0],
        "hidden_shift": spec.hidden[1],
        "hidden_zero": spec.hidden_zero,
    }

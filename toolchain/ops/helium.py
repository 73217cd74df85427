"""What kernels for cores with MVE (Helium) read, each array in the order in which it is read.

A dot product of 16 inputs is one instruction, so weights come in blocks of 4 outputs by 16 inputs. Four outputs are
requantized at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolchain.config import Rounding
from toolchain.ir.types import Array, DType
from toolchain.ops.base import Constant, Plain
from toolchain.ops.linear import LinearSpec
from toolchain.ops.shifts import one_shift

OUTPUTS = 4
"""Outputs that are computed together."""
INPUTS = 16
"""Inputs of one step."""
HALF = 8
"""Inputs of a last step that has no more."""
WIDEST = 1 << 15
RESCALING = {"arrays": "requantize_mve", "words": "requantize_words_mve", "tensor": "requantize_one_mve"}
"""The helper of fully connected layers, by `scaling`."""


def requantizes(spec: LinearSpec) -> bool:
    """Whether this is int8 and every output is scaled down, by one bit or more besides the multiplier."""
    int8 = spec.dtype is DType.INT8 and not spec.wide and spec.rescale == "requantize"
    return int8 and bool(((spec.shift < 0) | (spec.multiplier == 0)).all())


def takes(spec: LinearSpec, geometry: Mapping[str, Any]) -> bool:
    """Whether there is a body for a convolution: numbers along y are int16 in its record."""
    return requantizes(spec) and all(geometry[name] < WIDEST for name in geometry if name.endswith("_y"))


def scaling(spec: LinearSpec) -> str:
    """How bodies take multipliers and shifts: `tensor`, numbers of the record, or beside the biases.

    `words`, where multipliers tell shifts, or `arrays`.
    """
    if not spec.per_channel:
        return "tensor"
    return "arrays" if one_shift(spec) is None else "words"


def variant(spec: LinearSpec, *, mve: bool) -> dict[str, Any]:
    """What the templates of convolutions and fully connected layers ask about; `mve`: whether there is a body."""
    return {"mve": mve, "scaling": scaling(spec), "single": spec.rounding is Rounding.SINGLE}


def step_bytes(inputs: int) -> int:
    """Bytes of `inputs` filled up to whole steps and maybe one of half as many."""
    return -(-inputs // HALF) * HALF


def packed(rows: Array, least: int = HALF) -> Array:
    """Return int8 weights (outputs, inputs), filled up with zeros: of 4 outputs 16 inputs each, the next 16, ...

    A last step of no more than 8 inputs has 8, unless all are no more than 8 and `least` is 16.
    """
    outputs, inputs = rows.shape
    filled = np.pad(rows, ((0, -outputs % OUTPUTS), (0, max(step_bytes(inputs), least) - inputs)))
    blocks = filled.reshape(-1, OUTPUTS, filled.shape[1])
    steps = [blocks[..., first : first + INPUTS] for first in range(0, filled.shape[1], INPUTS)]
    return np.concatenate([step.reshape(len(blocks), -1) for step in steps], axis=1)


def scales(spec: LinearSpec, at_once: int) -> Array:
    """Return int32 (outputs / at_once, 1 to 3, at_once): bias and what of multiplier and shift outputs have apart."""
    bias = spec.folded_bias()
    parts = (bias, spec.multiplier, _shift(spec))[: {"tensor": 1, "words": 2, "arrays": 3}[scaling(spec)]]
    table = np.pad(np.stack(parts).astype(np.int32), ((0, 0), (0, -bias.size % at_once)))
    return np.ascontiguousarray(table.reshape(len(table), -1, at_once).swapaxes(0, 1))


def _shift(spec: LinearSpec) -> Array:
    """The shifts, each at least one bit to the right."""
    return np.where(spec.multiplier == 0, -1, spec.shift)


def scaling_fields(spec: LinearSpec, at_once: int = 1) -> dict[str, Plain]:
    """The fields by which outputs are made of sums, `at_once` of them; inputs have their zero point."""
    fields: dict[str, Plain] = {"scales": Constant(scales(spec, at_once))}
    common = one_shift(spec)
    if not spec.per_channel:
        fields |= {"multiplier": int(spec.multiplier[0]), "shift": int(_shift(spec)[0])}
    elif common is not None:
        fields |= {"shift": common}
    return fields | {"zero_y": spec.zero_y, "low": spec.low, "high": spec.high}


def dense_record(spec: LinearSpec, rows: Array) -> dict[str, Plain]:
    """The fields of a fully connected layer of weights (outputs, inputs)."""
    outputs, inputs = rows.shape
    steps, rest = divmod(step_bytes(inputs), INPUTS)
    sizes: dict[str, Plain] = {"inputs": inputs, "outputs": outputs, "steps": steps, "half": rest > 0}
    return sizes | {"weight": Constant(packed(rows)), **scaling_fields(spec, OUTPUTS)}


def conv_record(spec: LinearSpec, rows: Array, geometry: Mapping[str, Any], *, pointwise: bool) -> dict[str, Plain]:
    """The fields of a convolution of weights (outputs, inputs) and sizes, strides, padding as other bodies have."""
    channels = geometry["in_channels"]
    along_y = ("out_y", "in_y", "kernel_y", "stride_y", "pad_y", "dilation_y")
    return {
        "pixels": geometry["batch"] * geometry["out_y"] * geometry["out_x"],
        **{name: geometry[name] for name in ("out_x", "out_channels", *along_y)},
        **_inner(geometry),
        "in_row": geometry["in_x"] * channels,
        "width": geometry["kernel_x"] * channels,
        "step_x": geometry["stride_x"] * channels,
        "pad_x": geometry["pad_x"] * channels,
        "pointwise": pointwise,
        "negatives": spec.low < spec.zero_y,
        "zero_x": spec.zero_x,
        "weight": Constant(packed(rows, INPUTS)),
        **scaling_fields(spec, OUTPUTS),
    }


def conv_scratch(rows: Array) -> int:
    """Bytes of two pixels: their patches, and their outputs where those don't come in fours and are put there first."""
    fours = -(-len(rows) // OUTPUTS) * OUTPUTS
    return 2 * (max(step_bytes(rows.shape[1]), INPUTS) + (fours if len(rows) % OUTPUTS else 0))


def _inner(geometry: Mapping[str, Any]) -> dict[str, Plain]:
    """The first output row and column whose windows lie wholly inside, and the first ones behind those."""
    fields: dict[str, Plain] = {}
    for axis in "yx":
        size, outputs, kernel, stride, pad = (geometry[f"{n}_{axis}"] for n in ("in", "out", "kernel", "stride", "pad"))
        window = (kernel - 1) * geometry.get(f"dilation_{axis}", 1) + 1
        first = max(-(-pad // stride), 0)
        fields[f"inner_{axis}"] = first
        fields[f"outer_{axis}"] = max(min((size + pad - window) // stride + 1, outputs), first)
    return fields


CONV_HELPERS = ("copy_mve", "fill_mve", "copy_pair_mve", "limit_mve", "pixels_mve")


def dense_helpers(spec: LinearSpec) -> tuple[str, ...]:
    """What a fully connected layer calls."""
    how = scaling(spec)
    inner = ("requantize_mve",) if how == "words" else ()
    return ("copy_mve", "sums_4_mve", *inner, RESCALING[how], "clamp_mve")

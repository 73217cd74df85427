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

OUTPUTS = 4
"""Outputs that are computed together."""
INPUTS = 16
"""Inputs of one step."""
HALF = 8
"""Inputs of a last step that has no more."""
RESCALING = {"arrays": "requantize_mve", "tensor": "requantize_one_mve"}
"""The helper of fully connected layers, by `scaling`."""


def requantizes(spec: LinearSpec) -> bool:
    """Whether this is int8 and every output is scaled down, by one bit or more besides the multiplier."""
    int8 = spec.dtype is DType.INT8 and not spec.wide and spec.rescale == "requantize"
    return int8 and bool(((spec.shift < 0) | (spec.multiplier == 0)).all())


def scaling(spec: LinearSpec) -> str:
    """How bodies take multipliers and shifts: `tensor`, numbers of the record, or `arrays`, beside the biases."""
    return "arrays" if spec.per_channel else "tensor"


def variant(spec: LinearSpec) -> dict[str, Any]:
    """What the templates of convolutions and fully connected layers ask about."""
    return {"mve": requantizes(spec), "scaling": scaling(spec), "single": spec.rounding is Rounding.SINGLE}


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
    """Return int32 (outputs / at_once, 1 or 3, at_once): bias and, unless all are the same, multiplier and shift."""
    bias = spec.folded_bias()
    parts = (bias, spec.multiplier, _shift(spec)) if spec.per_channel else (bias,)
    table = np.pad(np.stack(parts).astype(np.int32), ((0, 0), (0, -bias.size % at_once)))
    return np.ascontiguousarray(table.reshape(len(table), -1, at_once).swapaxes(0, 1))


def _shift(spec: LinearSpec) -> Array:
    """The shifts, each at least one bit to the right."""
    return np.where(spec.multiplier == 0, -1, spec.shift)


def scaling_fields(spec: LinearSpec, at_once: int = 1) -> dict[str, Plain]:
    """The fields by which outputs are made of sums, `at_once` of them; inputs have their zero point."""
    fields: dict[str, Plain] = {"scales": Constant(scales(spec, at_once))}
    if not spec.per_channel:
        fields |= {"multiplier": int(spec.multiplier[0]), "shift": int(_shift(spec)[0])}
    return fields | {"zero_y": spec.zero_y, "low": spec.low, "high": spec.high}


def dense_record(spec: LinearSpec, rows: Array) -> dict[str, Plain]:
    """The fields of a fully connected layer of weights (outputs, inputs)."""
    outputs, inputs = rows.shape
    steps, rest = divmod(step_bytes(inputs), INPUTS)
    sizes: dict[str, Plain] = {"inputs": inputs, "outputs": outputs, "steps": steps, "half": rest > 0}
    return sizes | {"weight": Constant(packed(rows)), **scaling_fields(spec, OUTPUTS)}


def conv_record(spec: LinearSpec, rows: Array, geometry: Mapping[str, Any], *, pointwise: bool) -> dict[str, Plain]:
    """The fields of a convolution of weights (outputs, inputs) and sizes, strides, padding as other bodies have."""
    weight, patch = packed(rows, INPUTS), patch_bytes(rows)
    return {
        "pixels": geometry["batch"] * geometry["out_y"] * geometry["out_x"],
        **{name: geometry[name] for name in ("out_y", "out_x", "out_channels")},
        "pointwise": pointwise,
        **_inner(geometry),
        **_windows(geometry),
        "patch": patch,
        "zero_x": spec.zero_x,
        "weights": weight.size,
        "aside": _aside(len(rows)),
        "negatives": spec.low < spec.zero_y,
        "weight": Constant(weight),
        **scaling_fields(spec, OUTPUTS),
    }


def patch_bytes(rows: Array) -> int:
    """Bytes of the inputs under a pixel, a whole step or more."""
    return max(step_bytes(rows.shape[1]), INPUTS)


def _aside(outputs: int) -> int:
    """Bytes for the outputs of a pixel where they don't come in fours, which then are not written in their place."""
    return -(-outputs // OUTPUTS) * OUTPUTS if outputs % OUTPUTS else 0


def conv_scratch(rows: Array) -> int:
    """Bytes of two pixels: their patches, and their outputs where those don't come in fours."""
    return 2 * (patch_bytes(rows) + _aside(len(rows)))


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


def _windows(geometry: Mapping[str, Any]) -> dict[str, Plain]:
    """Sizes of windows and steps between them, in bytes along x."""
    channels, dilation = geometry["in_channels"], geometry["dilation_y"]
    in_row, width = geometry["in_x"] * channels, geometry["kernel_x"] * channels
    run = -(-width // INPUTS) * INPUTS
    pad_x, stride_y = geometry["pad_x"] * channels, geometry["stride_y"]
    return {
        "in_y": geometry["in_y"],
        "in_row": in_row,
        "in_picture": geometry["in_y"] * in_row,
        "kernel_y": geometry["kernel_y"],
        "width": width,
        "stride_y": stride_y,
        "pad_y": geometry["pad_y"],
        "dilation_y": dilation,
        "pad_x": pad_x,
        "step_y": stride_y * in_row,
        "step_x": geometry["stride_x"] * channels,
        "begin": geometry["pad_y"] * in_row + pad_x,
        "behind": width - run,
        "behind_x": dilation * in_row - run,
    }


CONV_HELPERS = ("copy_mve", "fill_mve", "copy_pair_mve", "pixels_mve")


def dense_helpers(spec: LinearSpec) -> tuple[str, ...]:
    """What a fully connected layer calls."""
    return ("copy_mve", "sums_4_mve", RESCALING[scaling(spec)], "clamp_mve")

"""What kernels for cores with MVE (Helium) read, each array in the order in which it is read.

A dot product of 16 inputs is one instruction, so weights come in blocks of 4 outputs by 16 inputs. Four outputs are
requantized at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from toolchain.ir.types import Array, DType
from toolchain.ops.base import Constant, Plain
from toolchain.ops.linear import LinearSpec

OUTPUTS = 4
"""Outputs that are computed together."""
INPUTS = 16
"""Inputs of one step."""


def requantizes(spec: LinearSpec) -> bool:
    """Whether this is int8 and every output is scaled down, by one bit or more besides the multiplier."""
    int8 = spec.dtype is DType.INT8 and not spec.wide and spec.rescale == "requantize"
    return int8 and bool(((spec.shift < 0) | (spec.multiplier == 0)).all())


def step_bytes(inputs: int) -> int:
    """Bytes of `inputs` filled up to whole steps."""
    return -(-inputs // INPUTS) * INPUTS


def packed(rows: Array) -> Array:
    """Return int8 weights (outputs, inputs) as (outputs / 4, inputs / 16, 4, 16), filled up with zeros."""
    outputs, inputs = rows.shape
    filled = np.pad(rows, ((0, -outputs % OUTPUTS), (0, -inputs % INPUTS)))
    blocks: Array = filled.reshape(-1, OUTPUTS, filled.shape[1] // INPUTS, INPUTS).swapaxes(1, 2)
    return blocks


def scales(spec: LinearSpec, bias: Array) -> Array:
    """Return int32 (outputs / 4, 3, 4): bias, multiplier and shift of each."""
    table = np.pad(parts(spec, bias), ((0, 0), (0, -bias.size % OUTPUTS)))
    rows: Array = table.reshape(3, -1, OUTPUTS).swapaxes(0, 1)
    return rows


def parts(spec: LinearSpec, bias: Array) -> Array:
    """Return int32 (3, outputs): bias, multiplier and shift of each, the shift at least one bit to the right."""
    shift = np.where(spec.multiplier == 0, -1, spec.shift)
    return np.stack([np.broadcast_to(part, bias.shape) for part in (bias, spec.multiplier, shift)]).astype(np.int32)


UNUSED = ("bias", "multiplier", "shift")
"""Fields of a `LinearSpec`'s record that stand in `scales`."""


def record(spec: LinearSpec, rows: Array, portable: Mapping[str, Plain]) -> dict[str, Plain]:
    """The fields of a layer of weights (outputs, inputs), whose inputs are taken with their zero point.

    `portable`: the fields of the portable body.
    """
    kept = {name: value for name, value in portable.items() if name not in UNUSED}
    return kept | {"weight": Constant(packed(rows)), "scales": Constant(scales(spec, spec.folded_bias()))}


CONV_HELPERS = ("copy_mve", "fill_mve", "sums_2x4_mve", "requantize_mve", "clamp_mve", "store_2x4_mve")
DENSE_HELPERS = ("copy_mve", "sums_4_mve", "requantize_mve", "clamp_mve")

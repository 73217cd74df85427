"""Products of int8 tensors: the body for DSP against numpy for many pairs, odd counts, rows, ties and limits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops import batch
from toolchain.config import Rounding
from toolchain.ir.types import DType, QuantParams
from toolchain.ops.base import Body
from toolchain.ops.binary import Binary

PAIRS = tuple(each.ravel() for each in np.meshgrid(*(np.arange(-128, 128, dtype=np.int8),) * 2, indexing="ij"))
SCALES = ((0.5, 0.25, 1.0), (0.125, 0.125, 0.25), (0.05, 0.0039, 0.05), (0.01, 0.02, 0.4), (0.002, 0.003, 0.9))
"""Of both operands and the product: ties, and shifts from 1 to 17."""
SCALED_UP = (1.0, 1.0, 0.9)


def case(rng, rounding, inputs, scales):
    quant = tuple(QuantParams((float(np.float32(s)),), int(rng.choice([-128, 0, 127, 9]))) for s in scales)
    clamp = ((0.0, np.inf), (-3.0 * scales[2], 50.0 * scales[2]), None)[rng.integers(3)]
    return batch.Case(Binary("mul", clamp), inputs, quant, DType.INT8, rounding)


def cases_of(rounding):
    rng = np.random.default_rng(23)
    some = [case(rng, rounding, tuple(x[i::11] for x in PAIRS), scales) for i, scales in enumerate(SCALES)]
    some += [case(rng, rounding, tuple(x[-count:] for x in PAIRS), SCALES[count % 5]) for count in (1, 2, 3, 4, 5, 39)]
    for columns in (1, 3, 4, 6, 16):
        shape = (2, 5, columns)
        full, row = (rng.integers(-128, 128, size).astype(np.int8) for size in (shape, columns))
        some += [case(rng, rounding, each, SCALES[columns % 5]) for each in ((full, row), (row, full))]
    return [*some, case(rng, rounding, tuple(x[:999] for x in PAIRS), SCALED_UP)]


@pytest.mark.parametrize("rounding", Rounding, ids=lambda rounding: rounding.value)
def test_the_body_is_numpys_to_the_bit(rounding, tmp_path):
    batch.check(cases_of(rounding), tmp_path, body=Body.DSP)


def test_all_but_those_that_are_scaled_up_have_bodies():
    some = cases_of(Rounding.TFLM)
    bodies = [bool(each.op.lower(each.operands)[0].kernel.dsp_helpers) for each in some]
    wide = [each.inputs[0].size > 1 for each in some]
    assert not bodies[-1]
    assert sum(bodies) >= sum(wide) - 3

"""Sums of int8 tensors as weighted sums: equal to TensorFlow Lite's formula for all pairs, and so is the C."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops import batch
from toolchain.config import Rounding
from toolchain.ir.types import DType, QuantParams
from toolchain.ops.base import Body
from toolchain.ops.binary import Binary
from toolchain.ops.weighted import SHIFT, weighted_sum

PAIRS = tuple(each.ravel() for each in np.meshgrid(*(np.arange(-128, 128, dtype=np.int8),) * 2, indexing="ij"))
TIES = ((1.0, 1.0, 2.0), (0.25, 1.0, 2.0), (1.0, 3.0, 2.0), (1.0, 1.0, 1.0), (0.5, 1.0, 3.0), (40.0, 1.0, 1.0))
"""Scales of both operands and the sum: halves everywhere, and a factor that is too large."""


def case(rng, number, rounding, inputs=PAIRS):
    a, b, y = TIES[number] if number < len(TIES) else 10 ** rng.uniform(-2, -1, 3)
    zeros = rng.integers(-128, 128, 3).tolist()
    if number % 2:
        zeros[2] = -128
    quant = tuple(QuantParams((float(np.float32(s)),), z) for s, z in zip((a, b, y), zeros, strict=True))
    clamp = (0.0, np.inf) if number % 3 == 1 else (-3.0 * y, 50.0 * y) if number % 7 == 2 else None
    return batch.Case(Binary("sub" if number % 4 == 3 else "add", clamp), inputs, quant, DType.INT8, rounding)


@pytest.fixture(scope="module", params=list(Rounding), ids=lambda rounding: rounding.value)
def cases(request):
    rng = np.random.default_rng(3)
    return [case(rng, number, request.param) for number in range(18)]


def test_equal_for_all_pairs(cases):
    found = 0
    for each in cases:
        a, b, y = (quant.scale[0] for quant in each.quant)
        table = each.expected.reshape(256, 256)
        total = weighted_sum(table, a / y, b / y if each.op.kind == "add" else -b / y)
        if total is None:
            continue
        found += 1
        left, right = (np.asarray(x, np.int64).reshape(256, 256) for x in PAIRS)
        sums = (total.a_factor * left >> 8) + (total.b_factor * right >> 8) + total.constant
        assert np.abs(sums).max() < 1 << 31
        np.testing.assert_array_equal(np.clip(sums >> SHIFT, -128, 127), table)
    assert found > 0.6 * len(cases)


@pytest.mark.parametrize("body", [Body.PORTABLE, Body.DSP])
def test_bodies_are_numpys_to_the_bit(cases, body, tmp_path):
    rng = np.random.default_rng(4)
    parts = [tuple(x[number::97] for x in PAIRS) for number in range(6, 14)]
    some = [case(rng, number, cases[0].rounding, part) for number, part in enumerate(parts)]
    odd = [case(rng, number, cases[0].rounding, tuple(x[-number:] for x in PAIRS)) for number in range(6, 14)]
    batch.check([*some, *odd], tmp_path, body=body)


def test_limits_inside_int8_are_no_weighted_sum():
    table = np.clip(np.arange(-128, 128)[:, None] + np.arange(-128, 128), -100, 100).astype(np.int8)
    assert weighted_sum(table, 1.0, 1.0) is None

"""Convolutions in groups and with dilation along x: plain C against numpy; the other bodies: tests/targets."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops import batch
from tests.targets.layers import random_groups
from toolchain.config import Rounding
from toolchain.ir.types import DType
from toolchain.ops.base import Body


def case(rng, rounding):
    op, shape, weight, bias, (x, w, y) = random_groups(rng)
    values = (rng.integers(-128, 128, shape).astype(np.int8), weight, bias)
    return batch.Case(op, values, (x, w, None, y), DType.INT8, rounding, constant=(1, 2))


@pytest.mark.parametrize("rounding", Rounding, ids=lambda rounding: rounding.value)
def test_plain_c_is_numpys_to_the_bit(rounding, tmp_path):
    rng = np.random.default_rng(29)
    cases = [case(rng, rounding) for _ in range(30)]
    kernels = [each.op.lower(each.operands)[0].kernel for each in cases]
    own = [kernel for kernel in kernels if kernel.macro == "conv_groups"]
    assert len(own) > 0.8 * len(cases)
    assert 0 < sum(kernel.helpers_of(Body.DSP) == kernel.helpers_of(Body.PORTABLE) for kernel in own) < len(own)
    batch.check(cases, tmp_path)

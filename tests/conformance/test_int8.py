"""Quantized operators in int8: the C gives the integers of LiteRT's reference kernels, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance import (  # noqa: F401 - registers families
    compare,
    int8_elementwise,
    int8_linear,
    int8_shape,
    networks,
    uint8_operators,
)
from tests.conformance.family import FAMILIES, Draw
from toolchain.importers.tflite import read

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tensorflow", reason="needs tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_equals_the_reference_kernels(name: str, tmp_path: Path) -> None:
    compare.check(FAMILIES[name], tmp_path)


LISTED = """
ABS ADD ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV
ELU EQUAL EXP EXPAND_DIMS FULLY_CONNECTED GATHER GELU GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL
LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE
REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SELECT SELECT_V2
SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE
TRANSPOSE_CONV UNPACK
"""


@pytest.mark.slow
def test_every_operator_occurs() -> None:
    own = [family for family in FAMILIES.values() if family.build.__module__.split(".")[-1].startswith("int8")]
    found = {kind for each in own for index in range(each.count) for kind in kinds(each.build(Draw(each.name, index)))}
    assert not set(LISTED.split()) - found
    assert sum(family.count for family in own) >= 300


def kinds(content: bytes) -> set[str]:
    return {operator.kind for operator in read(content, "model").operators}

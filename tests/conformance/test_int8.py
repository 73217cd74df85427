"""Quantized operators in int8: the C gives the integers of LiteRT's reference kernels, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance import compare, int8_elementwise, int8_linear, int8_shape, networks, uint8_operators
from tests.conformance.family import FAMILIES

if TYPE_CHECKING:
    from pathlib import Path

assert int8_elementwise
assert int8_linear
assert int8_shape
assert networks
assert uint8_operators  # imported for the families they register
pytest.importorskip("tensorflow", reason="needs tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_equals_the_reference_kernels(name: str, tmp_path: Path) -> None:
    compare.check(FAMILIES[name], tmp_path)

"""16-bit activations, and states: the C gives the integers of LiteRT's reference kernels, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance import compare, stateful  # noqa: F401 - registers families
from tests.conformance.int16 import INT16

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tensorflow", reason="needs tensorflow")


def test_there_are_enough_cases() -> None:
    assert sum(family.count for family in INT16.values()) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("name", INT16)
def test_equals_the_reference_kernels(name: str, tmp_path: Path) -> None:
    compare.check(INT16[name], tmp_path)

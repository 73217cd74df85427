"""The same integers on hosts of 32 bits, one of them big-endian."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance import compare, int8_elementwise, int8_linear, networks  # noqa: F401 - registers families
from tests.conformance.family import FAMILIES
from tests.test_generated import HOSTS, tool

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tensorflow", reason="needs tensorflow")

VARIED = {"conv_2d": 4, "depthwise_conv_2d": 4, "add_sub_mul": 6, "softmaxes": 4, "conv_2d_uint8": 3, "networks": 6}
"""Family -> how many of its cases; all of 8-bit inputs and outputs."""


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
def test_equals_the_reference_kernels(host: str, tmp_path: Path) -> None:
    (compiler, *flags), package, runner = HOSTS[host]
    programs = [tool(compiler, package), *(tool(program, "qemu-user") for program in runner)]
    for name, count in VARIED.items():
        folder = tmp_path / name
        folder.mkdir()
        command = (programs[0], *flags, "-static")
        compare.check(FAMILIES[name], folder, count=count, compiler=command, runner=programs[1:])

"""The same integers on emulated cores with DSP and vector instructions."""

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
from tests.conformance.family import FAMILIES
from tests.conformance.programs import write
from tests.test_generated import tool
from toolchain.targets.cores import find_target
from toolchain.targets.parity import outputs

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tensorflow", reason="needs tensorflow")

VARIED = {
    "conv_2d": 8, "depthwise_conv_2d": 8, "transpose_conv": 2, "fully_connected": 3, "conv_2d_uint8": 3,
    "add_sub_mul": 3, "pools": 4, "average_pool_uint8": 2, "softmaxes": 2, "networks": 5, "classifiers": 2,
}  # fmt: skip
"""Family -> how many of its cases."""


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55"])
def test_equals_the_reference_kernels(core: str, tmp_path: Path) -> None:
    tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    tool("qemu-system-arm")
    problems: list[str] = []
    for name, count in VARIED.items():
        for index in range(count):
            trial = compare.prepared(FAMILIES[name], index, problems)
            assert trial is not None
            write("m", trial.job, tmp_path)
            found, _ = outputs(tmp_path, trial.job.graph, "m", find_target(core), trial.job.feeds)
            problems += compare.differences(
                f"{trial.name} on {core}", compare.outside(trial.job.graph, found), trial.expected, trial.steps
            )
    assert not problems, "\n".join(problems)

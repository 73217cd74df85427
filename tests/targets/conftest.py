"""Exports that the tests of the emulated cores share, and the skip where a core's tools are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import toolchain
from tests import models
from toolchain.targets.cores import TARGETS, missing_tools

DIGITS = Path(__file__).resolve().parent.parent.parent / "firmware_demo" / "digits"


@pytest.fixture
def needs():
    """Skips the test with the line that installs what a target needs."""

    def check(name: str) -> str:
        target = TARGETS[name]
        if missing := missing_tools(target):
            pytest.skip(f"{', '.join(missing)} not found: sudo apt-get install {target.packages}")
        return name

    return check


@pytest.fixture(scope="session")
def mlp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    return toolchain.export(models.mlp(folder / "mlp.onnx"), folder / "mlp", verify=False)


@pytest.fixture(scope="session")
def mlp_int8(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    x = np.random.default_rng(1).normal(size=(30, 6)).astype(np.float32)
    return toolchain.export(
        models.mlp(folder / "mlp.onnx"), folder / "mlp", quantize="int8", io="int8", calibration=x, verify=False
    )


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("targets") / "digits"
    calibration = DIGITS / "calibration.npz"
    return toolchain.export(DIGITS / "digits.onnx", out, quantize="int8", calibration=calibration, verify=False)

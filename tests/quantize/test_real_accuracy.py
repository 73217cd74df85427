"""Trained models on labelled data: what int8 costs in points of accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolchain

pytestmark = pytest.mark.slow


def image_classification(shared: Path) -> tuple[Path, Any, dict[str, Any]]:
    calibration = np.load(shared / "data/cifar10_calib.npz")["x"].astype(np.float32)
    evaluation = np.load(shared / "data/cifar10_eval.npz")
    labelled = {"x": evaluation["x"].astype(np.float32), "y": evaluation["y"]}
    return shared / "models/mlperf_tiny/ic_fp32.tflite", calibration, labelled


def keyword_spotting(shared: Path) -> tuple[Path, Any, dict[str, Any]]:
    data = np.load(shared / "data/kws_mfcc_int8.npz")
    x = (data["x"].astype(np.float32) - 83) * np.float32(0.5847029089927673)
    return shared / "models/mlperf_tiny/kws_fp32.tflite", x[:100], {"x": x, "y": data["y"]}


CASES = {"ic": (image_classification, 75.2), "kws": (keyword_spotting, 89.2)}


@pytest.mark.parametrize(("per_channel", "bound"), [(False, 0.8), (True, 0.4)])
@pytest.mark.parametrize("name", list(CASES))
def test_accuracy(name: str, per_channel: bool, bound: float, shared: Path, tmp_path: Path) -> None:
    make, accuracy = CASES[name]
    model, calibration, labelled = make(shared)
    result = toolchain.export(
        model, tmp_path / name, quantize="int8", per_channel=per_channel, calibration=calibration, eval=labelled
    )
    assert result.parity["accuracy"]["c"] >= accuracy - bound - 1e-9

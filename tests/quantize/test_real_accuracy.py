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


@pytest.mark.parametrize("name", list(CASES))
def test_a_limit_on_the_accuracy_drop(name: str, shared: Path, tmp_path: Path) -> None:
    """Met with the layers that moved named and less than a tenth more weights, or refused; the C agrees either way."""
    model, calibration, labelled = CASES[name][0](shared)
    limit = {"quantize": "int8", "calibration": calibration, "eval": labelled, "max_accuracy_drop": 0.5}
    result = toolchain.export(model, tmp_path / name, **limit)
    mixed, accuracy = result.manifest["quantization"]["mixed"], result.parity["accuracy"]
    assert accuracy["c"] == accuracy["python"] >= accuracy["model"] - 0.5 - 1e-9
    assert mixed["after"] == accuracy["python"]
    assert mixed["bytes_after"] < 1.1 * mixed["bytes_before"]
    assert bool(mixed["moves"]) == (mixed["before"] < mixed["bar"])


def test_layers_of_a_real_model_move(shared: Path, tmp_path: Path) -> None:
    """Plain minmax loses too much for a bar three dB above it: a few layers move, at under a tenth more weights."""
    model, calibration, _ = keyword_spotting(shared)
    off = {"equalize": False, "absorb_bias": False, "bias_correction": False}
    options = {"quantize": "int8", "calibration": calibration, **off}
    result = toolchain.export(model, tmp_path / "kws", min_sqnr=31.0, **options)
    mixed = result.manifest["quantization"]["mixed"]
    assert mixed["before"] < 31.0 <= mixed["after"]
    assert 0 < len(mixed["moves"]) <= 10
    assert mixed["bytes_after"] < 1.1 * mixed["bytes_before"]


def test_everything_on(shared: Path, tmp_path: Path) -> None:
    """All techniques together keep the accuracy of int8."""
    model, calibration, labelled = image_classification(shared)
    options = {"calibration_method": "auto", "optimize_weights": True, "max_accuracy_drop": 0.8}
    result = toolchain.export(
        model, tmp_path / "ic", quantize="int8", calibration=calibration, eval=labelled, **options
    )
    names = [each["name"] for each in result.manifest["quantization"]["techniques"]]
    assert names == ["equalization", "bias absorption", "automatic ranges", "weight rounding", "bias correction"]
    assert result.parity["accuracy"]["c"] >= 75.2 - 0.8 - 1e-9

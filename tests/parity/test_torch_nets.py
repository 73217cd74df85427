"""PyTorch networks end to end: the C against torch itself, float32 and int8."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("onnxscript", reason="needs onnxscript")

import toolchain  # noqa: E402
from tests.parity.nets import NETS, PLAIN, build  # noqa: E402

pytestmark = pytest.mark.slow


def expected_of(model, x) -> list[np.ndarray]:
    with torch.no_grad():
        y = model(x)
    return [t.numpy() for t in (y if isinstance(y, tuple) else (y,))]


def listed(result) -> list[np.ndarray]:
    return list(result.values()) if isinstance(result, dict) else [result]


@pytest.mark.parametrize("name", NETS)
def test_float_c_equals_torch(name: str, tmp_path: Path) -> None:
    model, x = build(name)
    result = toolchain.export(model, out=tmp_path / name, name=name, example_inputs=(x[:1],))
    for found, expected in zip(listed(result.run(x.numpy())), expected_of(model, x), strict=True):
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)
    if name in PLAIN:
        assert not re.search(r"\btranspose", (tmp_path / name / f"{name}.c").read_text().replace("transposed conv", ""))


@pytest.mark.parametrize("name", NETS)
def test_int8_per_channel_keeps_20_db(name: str, tmp_path: Path) -> None:
    model, x = build(name)
    result = toolchain.export(
        model, out=tmp_path / name, name=name, example_inputs=(x[:1],), quantize="int8", per_channel=True,
        calibration=x.numpy(),
    )  # fmt: skip
    for found, expected in zip(listed(result.run(x.numpy())), expected_of(model, x), strict=True):
        noise = float(np.mean((found - expected) ** 2))
        signal = float(np.mean(expected**2))
        assert 10 * np.log10(signal / noise) >= 20.0

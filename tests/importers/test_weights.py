"""Weights by the framework's names, from files that need no framework."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.importers.running import model_of
from toolchain.errors import InputError
from toolchain.importers.weights import extract_weights

WEIGHT = np.arange(30, dtype=np.float32).reshape(6, 5)


def test_onnx_initializers(tmp_path):
    model = model_of([onnx.helper.make_node("MatMul", ["x", "fc.weight"], ["y"])], {"x": (3, 6)}, {"fc.weight": WEIGHT})
    onnx.save_model(model, tmp_path / "net.onnx")
    for source in (model, tmp_path / "net.onnx", str(tmp_path / "net.onnx")):
        found = extract_weights(source)
        assert list(found) == ["fc.weight"]
        np.testing.assert_array_equal(found["fc.weight"], WEIGHT)


def test_mapping_is_a_state_dict():
    np.testing.assert_array_equal(extract_weights({"w": WEIGHT})["w"], WEIGHT)


def test_tflite_constants(shared):
    found = extract_weights(shared / "models/mlperf_tiny/kws_int8.tflite")
    assert {value.dtype.name for value in found.values()} <= {"int8", "int32"}
    assert sum(value.size for value in found.values() if value.dtype == np.int8) > 20_000


def test_damaged_tflite(shared, tmp_path):
    good = (shared / "models/mlperf_tiny/kws_int8.tflite").read_bytes()
    path = tmp_path / "net.tflite"
    for damaged in (b"random", good[:8], good[:3000], good[:-3000]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"net\.tflite") as caught:
            extract_weights(path)
        assert "\n" not in str(caught.value)


def test_foreign_file(tmp_path):
    pytest.importorskip("torch", reason="needs torch")
    (tmp_path / "w.pth").write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="no PyTorch file"):
        extract_weights(tmp_path / "w.pth")


def test_mapping_without_weights():
    with pytest.raises(InputError, match="no weights inside"):
        extract_weights({"epoch": 3})

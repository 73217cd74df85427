"""The MLPerf Tiny networks as trained: float parity with LiteRT, and post-training int8 accuracy on real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import toolchain

pytestmark = pytest.mark.slow


def lite_outputs(path: Path, x: np.ndarray, *, reference: bool = True) -> np.ndarray:
    """What LiteRT's kernels give for each sample."""
    tf = pytest.importorskip("tensorflow", reason="needs tensorflow")
    kind = tf.lite.experimental.OpResolverType.BUILTIN_REF if reference else tf.lite.experimental.OpResolverType.AUTO
    interpreter = tf.lite.Interpreter(str(path), experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for sample in x:
        interpreter.set_tensor(source["index"], sample.reshape(source["shape"]).astype(source["dtype"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(target["index"])[0])
    return np.stack(rows)


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    return float((scores.reshape(len(labels), -1).argmax(1) == labels).mean())


@pytest.fixture(scope="session")
def kws(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    data = np.load(shared / "data/kws_mfcc_int8.npz")
    return ((data["x"].astype(np.float32) - 83) * np.float32(0.5847029089927673)), data["y"]


@pytest.fixture(scope="session")
def cifar(shared: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    evaluation, calibration = np.load(shared / "data/cifar10_eval.npz"), np.load(shared / "data/cifar10_calib.npz")
    return evaluation["x"].astype(np.float32), evaluation["y"], calibration["x"].astype(np.float32)


@pytest.mark.parametrize(("name", "shape"), [("ad", (640,)), ("ic", (32, 32, 3)), ("vww", (96, 96, 3))])
def test_float_c_equals_litert(name: str, shape: tuple[int, ...], shared: Path, tmp_path: Path, rng) -> None:
    path = shared / f"models/mlperf_tiny/{name}_fp32.tflite"
    x = rng.uniform(0, 255 if name == "ic" else 1, (8, *shape)).astype(np.float32)
    result = toolchain.export(path, out=tmp_path / name, name=name)
    expected = lite_outputs(path, x)
    assert np.abs(result.run(x) - expected).max() <= 1e-5 * max(np.ptp(expected), 1.0)


@pytest.mark.parametrize(("name", "shape"), [("ic", (32, 32, 3)), ("vww", (96, 96, 3))])
def test_keras_files_equal_their_tflite_twins(name: str, shape: tuple[int, ...], shared: Path, tmp_path: Path, rng):
    pytest.importorskip("tensorflow", reason="needs tensorflow")
    folder = shared / "models/mlperf_tiny"
    x = rng.uniform(0, 255 if name == "ic" else 1, (8, *shape)).astype(np.float32)
    result = toolchain.export(folder / f"{name}.h5", out=tmp_path / name, name=name)
    expected = lite_outputs(folder / f"{name}_fp32.tflite", x)
    assert np.abs(result.run(x) - expected).max() <= 1e-4 * max(np.ptp(expected), 1.0)


def test_the_autoencoder_of_keras_equals_keras(shared: Path, tmp_path: Path, rng) -> None:
    """Not its .tflite twin: the converter of that time lost the biases of the layers before a batch-norm."""
    tf = pytest.importorskip("tensorflow", reason="needs tensorflow")
    path = shared / "models/mlperf_tiny/ad.h5"
    x = rng.uniform(0, 1, (8, 640)).astype(np.float32)
    result = toolchain.export(path, out=tmp_path / "ad", name="ad")
    model = tf.keras.models.load_model(path, compile=False)
    expected = model.predict(x, verbose=0)
    assert np.abs(result.run(x) - expected).max() <= 1e-5 * np.ptp(expected)
    for dense in (layer for layer in model.layers[:-1] if layer.name.startswith("dense")):
        kernel, bias = dense.get_weights()
        dense.set_weights([kernel, np.zeros_like(bias)])
    twin = lite_outputs(shared / "models/mlperf_tiny/ad_fp32.tflite", x)
    assert np.abs(model.predict(x, verbose=0) - twin).max() <= 1e-4 * np.ptp(twin)


def test_dynamic_range_kws_keeps_its_accuracy(shared: Path, tmp_path: Path, kws) -> None:
    x, y = kws
    result = toolchain.export(shared / "models/mlperf_tiny/kws_fp32.tflite", out=tmp_path / "kws", name="kws")
    assert accuracy(result.run(x), y) >= 0.887


@pytest.mark.parametrize(("per_channel", "allowed"), [(True, 0.010), (False, 0.020)])
def test_int8_kws_accuracy(per_channel: bool, allowed: float, shared: Path, tmp_path: Path, kws) -> None:
    x, y = kws
    result = toolchain.export(
        shared / "models/mlperf_tiny/kws_fp32.tflite", out=tmp_path / "kws", name="kws", quantize="int8",
        per_channel=per_channel, calibration=x[:100],
    )  # fmt: skip
    assert accuracy(result.run(x), y) >= 0.892 - allowed


@pytest.mark.parametrize(("per_channel", "allowed"), [(True, 0.010), (False, 0.020)])
def test_int8_ic_accuracy(per_channel: bool, allowed: float, shared: Path, tmp_path: Path, cifar) -> None:
    x, y, samples = cifar
    result = toolchain.export(
        shared / "models/mlperf_tiny/ic_fp32.tflite", out=tmp_path / "ic", name="ic", quantize="int8",
        per_channel=per_channel, calibration=samples,
    )  # fmt: skip
    assert accuracy(result.run(x), y) >= 0.752 - allowed

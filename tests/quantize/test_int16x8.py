"""Activations of 16 bits, weights of 8: exact in numpy, on the host and on an emulated Cortex-M4."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolchain
from tests.importers.lite import Lite, converter
from tests.quantize import blocks
from toolchain import pipeline
from toolchain.config import Options, Rounding
from toolchain.errors import InputError
from toolchain.importers.tflite import load
from toolchain.ir.graph import Graph
from toolchain.ir.types import DType
from toolchain.passes import float_layers, optimize
from toolchain.quantize import quantize
from toolchain.quantize.integers import Trial
from toolchain.verify.compare import interpret_batch


def test_activations_have_16_bits_and_no_zero_point() -> None:
    graph = blocks.separable()
    made, report = quantize(graph, blocks.noise(graph, 32), Options("net", "int16x8", io="int16"))
    for tensor in made.tensors.values():
        if tensor.data is None:
            assert tensor.type.dtype is DType.INT16
            assert tensor.type.quant.zero_point == 0
    assert report.fallbacks == ()
    assert Trial(graph, blocks.noise(graph, 16, seed=77), Rounding.TFLM).decibels(made) >= 50


@pytest.mark.parametrize(("mode", "io"), [("int16x8", "int8"), ("int8", "int16")])
def test_ends_are_of_the_mode_or_float(mode: str, io: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"io: found {io} beside quantize {mode}"):
        toolchain.export("net.onnx", tmp_path / "out", quantize=mode, io=io)


@pytest.mark.slow
@pytest.mark.parametrize("io", ["float32", "int16"])
@pytest.mark.parametrize("name", list(blocks.NETS))
def test_exports_are_exact(name: str, io: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 dB, and one result in numpy, C on this machine (checked by export) and C on an emulated Cortex-M4."""
    graph = blocks.NETS[name]()
    monkeypatch.setattr(pipeline, "load", lambda *_: graph)
    calibration = {graph.port(n).name: outside(graph, n, x) for n, x in blocks.noise(graph, 48).items()}
    result = toolchain.export(graph, tmp_path / "out", name="net", quantize="int16x8", io=io, calibration=calibration)
    assert [row["differing"] for row in result.parity["parity"]] == [0]
    assert min(result.parity["signal_to_noise_db"].values()) >= 50
    if io == "int16" and shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc"):
        found = pipeline.verify_folder(tmp_path / "out", target="cortex-m4")
        assert [row["differing"] for row in found["parity"]] == [0, 0]


def outside(graph: Graph, name: str, batch: np.ndarray) -> np.ndarray:
    """Samples without the batch axis, in the framework's layout."""
    return pipeline.samples.to_framework(graph, name, batch)[:, 0]


class Blocks:
    """The nets once more, as TensorFlow functions."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def conv(self, x: Any, channels: int, kernel: int = 3, stride: int = 1) -> Any:
        import tensorflow as tf

        inputs = int(x.shape[-1])
        weight = self.rng.normal(0, 1 / np.sqrt(inputs * kernel**2), (kernel, kernel, inputs, channels))
        return self.norm(tf.nn.conv2d(x, weight.astype(np.float32), stride, "SAME"))

    def depthwise(self, x: Any, stride: int = 1) -> Any:
        import tensorflow as tf

        weight = self.rng.normal(0, 1 / 3, (3, 3, int(x.shape[-1]), 1)).astype(np.float32)
        return self.norm(tf.nn.depthwise_conv2d(x, weight, (1, stride, stride, 1), "SAME"))

    def norm(self, x: Any) -> Any:
        channels = int(x.shape[-1])
        scale = self.rng.uniform(0.3, 2.0, channels).astype(np.float32)
        return x * scale + self.rng.normal(0, 0.5, channels).astype(np.float32)

    def head(self, x: Any) -> Any:
        import tensorflow as tf

        weight = self.rng.normal(0, 0.3, (int(x.shape[-1]), 10)).astype(np.float32)
        return tf.reduce_mean(x, (1, 2)) @ weight + self.rng.normal(0, 0.1, 10).astype(np.float32)

    def separable(self, x: Any) -> Any:
        import tensorflow as tf

        x = tf.nn.relu(self.conv(x, 16, stride=2))
        for channels in (16, 32):
            x = tf.nn.relu(self.conv(tf.nn.relu(self.depthwise(x)), channels, 1))
        return self.head(x)

    def mobilenet(self, x: Any) -> Any:
        import tensorflow as tf

        x = tf.nn.relu6(self.conv(x, 16, stride=2))
        for _ in range(2):
            inside = tf.nn.relu6(self.depthwise(tf.nn.relu6(self.conv(x, 64, 1))))
            x = x + self.conv(inside, 16, 1)
        return self.head(tf.nn.relu6(self.conv(x, 32, 1)))

    def excited(self, x: Any) -> Any:
        import tensorflow as tf

        x = tf.nn.relu(self.conv(x, 16, stride=2))
        inside = tf.nn.relu6(self.depthwise(self.conv(x, 48, 1)))
        gate = tf.nn.relu(self.conv(tf.reduce_mean(inside, (1, 2), keepdims=True), 12, 1))
        return self.head(x + self.conv(inside * tf.sigmoid(self.conv(gate, 48, 1)), 16, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["separable", "mobilenet", "excited"])
def test_lite_files_of_the_same_nets_equal_the_reference_kernels(name: str) -> None:
    tf = pytest.importorskip("tensorflow", reason="needs tensorflow")
    rng = np.random.default_rng(3)
    made = converter(getattr(Blocks(1), name), [(1, 24, 24, 3)])
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    batches = [[rng.normal(size=(1, 24, 24, 3)).astype(np.float32)] for _ in range(16)]
    made.representative_dataset = lambda: iter(batches)
    made.target_spec.supported_ops = [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    made.inference_input_type = made.inference_output_type = tf.int16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = bytes(made.convert())
    reference = Lite(content)
    graph = optimize(load(content, subject=name))
    assert float_layers(graph) == ()
    x = rng.integers(-20000, 20000, (8, 1, 24, 24, 3)).astype(np.int16)
    wanted = np.stack([reference.run([sample])[0] for sample in x])
    found = interpret_batch(graph, {graph.inputs[0]: x}, Rounding.LITERT)[graph.outputs[0]]
    assert np.array_equal(found.reshape(wanted.shape), wanted)

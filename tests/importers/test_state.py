"""Models that keep state from run to run: the numbers of every step are LiteRT's, and a reset begins again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import toolchain
from tests.conformance.flat import Flat
from tests.importers import lite
from toolchain.config import Rounding
from toolchain.errors import InputError, UnsupportedError
from toolchain.importers.tflite import load
from toolchain.passes import optimize
from toolchain.verify.compare import interpret_batch

if TYPE_CHECKING:
    from pathlib import Path

tf = pytest.importorskip("tensorflow", reason="needs tensorflow")

STEPS = 6
INPUT = (1, 6)


def streaming(kind: str) -> bytes:
    """A window over the last inputs that begins with numbers of its own, and a running sum that begins at zero."""
    rng = np.random.default_rng(3)
    weight = rng.normal(0, 0.4, (24, 6)).astype(np.float32)
    window, total = tf.Variable(rng.normal(0, 1, (1, 4, 6)).astype(np.float32)), tf.Variable(tf.zeros(INPUT))

    @tf.function(input_signature=[tf.TensorSpec(INPUT, tf.float32)])
    def step(x):
        window.assign(tf.concat([window[:, 1:], x[:, None]], 1))
        total.assign_add(0.5 * tf.nn.relu(tf.matmul(tf.reshape(window, (1, 24)), weight)))
        return total + x

    holder = tf.Module()
    holder.kept = window, total
    made = tf.lite.TFLiteConverter.from_concrete_functions([step.get_concrete_function()], holder)
    made.experimental_enable_resource_variables = True
    if kind != "float":
        made.optimizations = [tf.lite.Optimize.DEFAULT]
        made.representative_dataset = lambda: iter([[rng.normal(0, 1, INPUT).astype(np.float32)] for _ in range(30)])
        sets = tf.lite.OpsSet
        sixteen = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        made.target_spec.supported_ops = [sixteen if kind == "int16" else sets.TFLITE_BUILTINS_INT8]
    return lite.convert(made)


@pytest.mark.parametrize("kind", ["float", "int8", "int16"])
def test_variables(kind: str, rng: np.random.Generator, tmp_path: Path) -> None:
    content = streaming(kind)
    x = rng.normal(0, 1, (STEPS, *INPUT)).astype(np.float32)
    reference = lite.Lite(content)
    expected = np.stack([reference.run([step])[0] for step in x])
    assert np.abs(expected[0] - lite.Lite(content).run([x[1]])[0]).max() > 0.1
    graph = optimize(load(content))
    assert sorted(state.initial.any() for state in graph.states) == [False, True]
    atol = 1e-5 * np.ptp(expected) if kind == "float" else 0
    np.testing.assert_allclose(
        interpret_batch(graph, {graph.inputs[0]: x}, Rounding.LITERT)[graph.outputs[0]], expected, 0, atol
    )
    path = tmp_path / "net.tflite"
    path.write_bytes(content)
    result = toolchain.export(path, out=tmp_path / "net", vectors=2, rounding="litert")
    for _ in range(2):
        np.testing.assert_allclose(result.run(x[:, 0]), expected[:, 0], 0, atol)
    assert "memcpy(bytes + " in (tmp_path / "net/net.c").read_text()


def floats(model: Flat, rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[int]:
    return [model.constant(rng.normal(0, 0.7, shape).astype(np.float32)) for shape in shapes]


def lstm_file(rng: np.random.Generator, **omitted: int) -> bytes:
    """Five cells over four steps of two samples; `omitted`: where an input that is usually there is left out."""
    model = Flat()
    x = model.input((2, 4, 6), kind="FLOAT32")
    weights = floats(model, rng, *[(5, 6)] * 4, *[(5, 5)] * 4)
    biases = floats(model, rng, *[(5,)] * 4)
    states = [model.tensor((2, 5), kind="FLOAT32", variable=True) for _ in range(2)]
    y = model.tensor([2, 4, 5], kind="FLOAT32")
    inputs = [x, *weights, -1, -1, -1, *biases, -1, -1, *states]
    for index in omitted.values():
        inputs[index] = -1
    options = {"fusedActivationFunction": 4, "cellClip": 0.9}
    model.operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], "UnidirectionalSequenceLSTMOptions", **options)
    return model.content(y)


def test_float_lstm(rng: np.random.Generator, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(lstm_file(rng))
    reference = lite.Lite(path.read_bytes())
    steps = rng.normal(0, 1, (STEPS, 2, 4, 6)).astype(np.float32)
    expected = np.stack([reference.run([step])[0] for step in steps])
    result = toolchain.export(path, out=tmp_path / "net")
    found = result.run(steps.reshape(-1, 4, 6)).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, 0, 1e-5 * np.ptp(expected))
    assert len(result.graph.states) == 2


def test_what_an_lstm_lacks_is_said(rng: np.random.Generator) -> None:
    with pytest.raises(UnsupportedError, match="a coupled input gate, expected a plain LSTM"):
        load(lstm_file(rng, input_gate=1, recurrent=5, bias=12))


def test_float_svdf(rng: np.random.Generator, tmp_path: Path) -> None:
    model = Flat()
    x = model.input((2, 5), kind="FLOAT32")
    constants = [rng.normal(0, 1, shape).astype(np.float32) for shape in ((6, 5), (6, 4), (3,))]
    kept = model.tensor((2, 24), kind="FLOAT32", variable=True)
    y = model.tensor([2, 3], kind="FLOAT32")
    inputs = [x, *(model.constant(each) for each in constants), kept]
    model.operator("SVDF", inputs, [y], "SVDFOptions", rank=2, fusedActivationFunction=1)
    path = tmp_path / "net.tflite"
    path.write_bytes(model.content(y))
    reference = lite.Lite(path.read_bytes())
    steps = rng.normal(0, 1, (STEPS, 2, 5)).astype(np.float32)
    expected = np.stack([reference.run([step])[0] for step in steps])
    found = toolchain.export(path, out=tmp_path / "net").run(steps.reshape(-1, 5))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, 0, 1e-5 * np.ptp(expected))


def test_quantization_here_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(streaming("float"))
    with pytest.raises(InputError, match="keeps state between runs"):
        toolchain.export(path, out=tmp_path / "net", quantize="int8", calibration=np.zeros((4, 6), np.float32))

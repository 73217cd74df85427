"""Keras and TensorFlow models against TensorFlow itself."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs tensorflow")

from toolchain.errors import InputError  # noqa: E402
from toolchain.importers import load  # noqa: E402
from toolchain.importers.weights import extract_weights  # noqa: E402
from toolchain.interpret import run  # noqa: E402
from toolchain.passes import optimize  # noqa: E402

pytestmark = pytest.mark.slow
layers = tf.keras.layers


def separable() -> tf.keras.Model:
    return tf.keras.Sequential(
        [
            tf.keras.Input((12, 10, 3), name="picture"),
            layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
            layers.Activation("swish"),
            layers.Conv2D(6, 1, dilation_rate=1),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, activation="softmax", name="scores"),
        ]
    )


def branching() -> tf.keras.Model:
    left, right = tf.keras.Input((8,), name="left"), tf.keras.Input((6,), name="right")
    x = layers.Concatenate()([layers.Dense(5, activation="tanh")(left), layers.Dense(5, activation="elu")(right)])
    return tf.keras.Model([left, right], [layers.Dense(2, name="first")(x), layers.Dense(3, name="second")(x)])


def temporal() -> tf.keras.Model:
    return tf.keras.Sequential(
        [
            tf.keras.Input((20, 4)),
            layers.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def decoder() -> tf.keras.Model:
    return tf.keras.Sequential(
        [
            tf.keras.Input((4, 4, 6)),
            layers.Conv2DTranspose(5, 3, strides=2, padding="same", activation="relu"),
            layers.UpSampling2D(2, interpolation="bilinear"),
            layers.ZeroPadding2D(1),
            layers.Conv2D(2, 3, dilation_rate=2),
            layers.LeakyReLU(),
        ]
    )


MODELS = {"separable": separable, "branching": branching, "temporal": temporal, "decoder": decoder}


def expected_of(model: tf.keras.Model, feeds: list[np.ndarray]) -> list[np.ndarray]:
    found = model(feeds if len(feeds) > 1 else feeds[0], training=False)
    return [np.asarray(t) for t in (found if isinstance(found, list | tuple) else [found])]


def assert_equal(model: tf.keras.Model, source: object, rng: np.random.Generator) -> None:
    graph = optimize(load(source))
    feeds = [rng.normal(size=(1, *t.shape[1:])).astype(np.float32) for t in model.inputs]
    found = run(graph, dict(zip(graph.inputs, feeds, strict=True)))
    by_shape = {graph.tensors[name].type.shape: name for name in graph.outputs}
    for expected in expected_of(model, feeds):  # a SavedModel numbers its outputs as it likes
        name = by_shape[expected.shape]
        assert np.abs(found[name] - expected).max() <= 1e-5 * max(np.ptp(expected), 1e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["live", ".keras", ".h5", "saved_model"])
def test_every_form_of_a_model(name: str, form: str, tmp_path: Path, rng: np.random.Generator) -> None:
    tf.keras.utils.set_random_seed(1)
    model = MODELS[name]()
    source: object = model
    if form == "saved_model":
        source = tmp_path / "saved"
        model.export(source, verbose=False)
    elif form != "live":
        source = tmp_path / f"model{form}"
        model.save(source)
    assert_equal(model, source, rng)


def test_ports_carry_the_users_names(tmp_path: Path) -> None:
    graph = load(branching())
    assert [graph.port(name).name for name in graph.inputs] == ["left", "right"]
    model = branching()
    model.save(tmp_path / "m.keras")
    graph = load(tmp_path / "m.keras")
    assert [graph.port(name).name for name in graph.inputs] == ["left", "right"]


def test_weights_carry_the_layers_names() -> None:
    model = branching()
    weights = extract_weights(model)
    assert list(weights) == [w.path for w in model.weights]
    for array, w in zip(weights.values(), model.weights, strict=True):
        assert np.array_equal(array, w.numpy())


@pytest.mark.parametrize("form", [".keras", ".h5"])
def test_a_lambda_layer_is_refused_before_it_runs(form: str, tmp_path: Path) -> None:
    model = tf.keras.Sequential([tf.keras.Input((3,)), layers.Lambda(lambda x: x + 1)])
    model.save(tmp_path / f"m{form}")
    with pytest.raises(InputError, match="Lambda"):
        load(tmp_path / f"m{form}")


def test_a_foreign_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"module": "os", "class_name": "system", "config": {}}))
    with pytest.raises(InputError, match="system"):
        load(path)


def test_open_dimensions_ask_for_a_shape() -> None:
    model = tf.keras.Sequential([tf.keras.Input((None, 4), name="frames"), layers.Conv1D(2, 3)])
    with pytest.raises(InputError, match="--input-shape"):
        load(model)
    graph = load(model, input_shape=(("frames", (1, 9, 4)),))
    assert graph.tensors[graph.inputs[0]].type.shape == (1, 9, 4)


def test_keras_2_files_with_a_retired_argument_load(shared: Path) -> None:
    graph = load(shared / "models/mlperf_tiny/vww.h5")
    assert graph.tensors[graph.inputs[0]].type.shape == (1, 96, 96, 3)

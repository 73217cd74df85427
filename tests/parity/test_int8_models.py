"""Quantized TensorFlow Lite models: the C equals TensorFlow Lite Micro and LiteRT's reference kernels bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import toolchain
from tests.importers.lite import Lite
from toolchain import pipeline
from toolchain.importers import load
from toolchain.passes import optimize
from toolchain.samples import Samples, feeds
from toolchain.targets.cores import TARGETS, missing_tools
from toolchain.verify.compare import interpret_batch

pytestmark = pytest.mark.slow

MODELS = ("ad_int8", "hello_world_int8", "ic_int8", "kws_int8", "vww_int8")


def model_path(shared: Path, name: str) -> Path:
    folder = "tflm" if name.startswith("hello") else "mlperf_tiny"
    return shared / f"models/{folder}/{name}.tflite"


@pytest.mark.parametrize("name", MODELS)
def test_c_equals_tensorflow_lite_micro(name: str, shared: Path, tmp_path: Path) -> None:
    cases = json.loads((shared / "data/tflm_golden.json").read_text())["models"][name]
    result = toolchain.export(model_path(shared, name), out=tmp_path / name, name=name)
    shape = result.graph.tensors[result.graph.inputs[0]].type.shape
    flat = np.arange(np.prod(shape))
    x = np.stack([(flat * 37 + 11) % case["modulus"] + case["offset"] for case in cases]).astype(np.int8)
    found = result.run(x.reshape(len(cases), *shape[1:]))
    assert found.reshape(len(cases), -1).tolist() == [case["output"] for case in cases]


@pytest.mark.parametrize("core", [core for core in TARGETS if core != "host"])
def test_every_core_computes_the_same(core: str, shared: Path, tmp_path: Path) -> None:
    """On noise and corner cases, all four; against numpy and the host's build."""
    if missing := missing_tools(TARGETS[core]):
        pytest.skip(f"{', '.join(missing)} not found: sudo apt-get install {TARGETS[core].packages}")
    for name in MODELS:
        out = toolchain.export(model_path(shared, name), out=tmp_path / name, name=name, verify=False).out
        rows = pipeline.verify_folder(out, target=core)["parity"]
        assert {row["reference"] for row in rows} == {"numpy", "host"}
        assert [row["differing"] for row in rows] == [0] * len(rows)


def samples_for(name: str, shared: Path, rng: np.random.Generator) -> np.ndarray:
    if name == "kws_int8":
        return np.load(shared / "data/kws_mfcc_int8.npz")["x"]
    if name == "ic_int8":
        return (np.load(shared / "data/cifar10_eval.npz")["x"].astype(np.int16) - 128).astype(np.int8)
    shape = {"vww_int8": (96, 96, 3), "ad_int8": (640,), "hello_world_int8": (1,)}[name]
    return rng.integers(-128, 128, (100, *shape)).astype(np.int8)


@pytest.mark.parametrize(
    ("name", "rounding"),
    [
        ("kws_int8", "litert"),
        ("ic_int8", "litert"),
        ("vww_int8", "litert"),
        ("ad_int8", "litert"),
        ("ad_int8", "single"),
    ],
)
def test_c_equals_litert(name: str, rounding: str, shared: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    """`ad` has only fully connected layers, which the reference kernels round once."""
    pytest.importorskip("tensorflow", reason="needs tensorflow")
    path = model_path(shared, name)
    x = samples_for(name, shared, rng)
    assert len(x) == {"kws_int8": 500, "ic_int8": 500}.get(name, 100)
    reference = Lite(path.read_bytes())
    expected = np.stack([reference.run([sample[None]])[0] for sample in x])
    out = tmp_path / name
    result = toolchain.export(path, out=out, name=name, rounding=rounding, verify=False)
    assert np.array_equal(result.run(x).reshape(expected.shape), expected)
    assert result.manifest["options"]["rounding"] == rounding
    assert f"Rounding policy {rounding}." in (out / "report.html").read_text()
    header = (out / f"{name}.h").read_text()
    assert f'(policy "{rounding}"' in header


def test_kws_keeps_its_accuracy(shared: Path, tmp_path: Path) -> None:
    data = np.load(shared / "data/kws_mfcc_int8.npz")
    result = toolchain.export(model_path(shared, "kws_int8"), out=tmp_path / "kws", name="kws")
    scores = result.run(data["x"])
    assert (scores.argmax(1) == data["y"]).mean() == pytest.approx(0.898, abs=0.003)


@pytest.mark.parametrize("name", ["kws_int8", "ic_int8"])
def test_passes_keep_every_integer(name: str, shared: Path, rng: np.random.Generator) -> None:
    graph = load(model_path(shared, name))
    better = optimize(graph)
    batch = feeds(graph, Samples("test", {"x": samples_for(name, shared, rng)[:20]}))
    before, after = interpret_batch(graph, batch), interpret_batch(better, batch)
    assert np.array_equal(before[graph.outputs[0]], after[better.outputs[0]])

"""export() from model to folder: what is written, that it is right, that failures leave nothing behind."""

import json

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import toolchain
from tests import models
from tests.conftest import ABSENT
from toolchain import pipeline
from toolchain.errors import CheckFailedError, InlayError, InputError, UnsupportedError
from toolchain.options import default_name

WRITTEN = {
    "mlp.c",
    "mlp.h",
    "mlp_weights.h",
    "mlp_vectors.h",
    "graph.npz",
    "manifest.json",
    "parity.json",
    "report.html",
}


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    return models.mlp(tmp_path_factory.mktemp("models") / "mlp.onnx")


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(3).normal(size=(40, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def labelled(mlp, samples):
    return {"x": samples, "y": truth(mlp, samples).argmax(axis=1)}


@pytest.fixture(scope="module")
def exported(mlp, tmp_path_factory):
    return toolchain.export(mlp, tmp_path_factory.mktemp("out") / "mlp")


def truth(path, x):
    session = ReferenceEvaluator(str(path))
    (name,) = session.input_names
    return np.concatenate([session.run(None, {name: row[None]})[0] for row in x])


def test_writes_the_contract(exported):
    assert {path.name for path in exported.out.iterdir()} == WRITTEN
    assert {path.name for path in exported.files} == WRITTEN
    manifest = json.loads((exported.out / "manifest.json").read_text())
    assert manifest == json.loads(json.dumps(exported.manifest))
    assert manifest["macs"] == 6 * 8 + 8 * 3
    assert manifest["source"]["name"] == "mlp.onnx"
    frameworks = [] if "onnxruntime" in ABSENT else ["onnxruntime"]
    assert [row["reference"] for row in exported.parity["parity"]] == ["numpy", *frameworks]
    assert "<svg" in (exported.out / "report.html").read_text()


def test_runs_like_the_framework(exported, mlp, samples):
    np.testing.assert_allclose(exported.run(samples), truth(mlp, samples), atol=1e-4)


def test_images_keep_the_framework_layout(tmp_path):
    model = models.convnet(tmp_path / "net.onnx")
    x = np.random.default_rng(4).normal(size=(3, 2, 6, 6)).astype(np.float32)
    result = toolchain.export(model, tmp_path / "out", sanitize=True)
    np.testing.assert_allclose(result.run(x), truth(model, x), atol=1e-4)


def test_int8_with_accuracy(mlp, tmp_path, samples, labelled):
    result = toolchain.export(
        mlp, tmp_path / "q", quantize="int8", calibration=samples, eval=labelled, io="int8", sanitize=True
    )
    assert result.parity["parity"][0]["largest"] == 0
    assert result.parity["accuracy"]["model"] == 100.0
    assert result.parity["accuracy"]["c"] >= 85.0
    assert result.run(samples).dtype == np.int8
    assert result.manifest["inputs"][0]["quant"]["scale"]


def test_same_model_same_bytes(exported, mlp, tmp_path):
    again = toolchain.export(mlp, tmp_path / "elsewhere" / "mlp")
    for name in WRITTEN:
        assert (again.out / name).read_bytes() == (exported.out / name).read_bytes(), name


def test_no_paths_or_dates_in_the_files(exported):
    for path in exported.out.iterdir():
        if path.suffix != ".npz":
            assert str(exported.out.parent) not in path.read_text()


def test_replaces_its_own_folder_and_keeps_foreign_files(mlp, tmp_path):
    toolchain.export(mlp, tmp_path / "out", name="old", verify=False)
    (tmp_path / "out" / "mine.o").write_text("mine")
    toolchain.export(mlp, tmp_path / "out", name="second", verify=False)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "mine.o" in names
    assert "second.c" in names
    assert "old.c" not in names
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_foreign_folder_is_not_touched(mlp, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="inlay did not write it"):
        toolchain.export(mlp, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        ({"max_ram": 8}, CheckFailedError, "arena: .*allowed 8 .*max_ram"),
        ({"max_flash": 8}, CheckFailedError, "flash .*allowed 8 .*max_flash"),
        ({"max_stack": 0}, CheckFailedError, "stack .*allowed 0 .*max_stack"),
        ({"quantize": "int8"}, InputError, r"int8 needs calibration samples; pass --calibration.*x \(1, 6\)"),
        ({"quantize": "int4"}, InputError, "quantize: found 'int4', expected float32 or int8"),
        ({"name": "int"}, InputError, "keyword"),
        ({"name": "../x"}, InputError, "C identifier"),
        ({"calibration_method": "magic"}, InputError, "calibration_method: found 'magic'"),
        ({"rounding": "up"}, InputError, "rounding: found 'up', expected tflm, single, litert"),
        ({"max_ram": -1}, InputError, "max_ram: found -1"),
        ({"nonsense": 1}, InputError, "unknown option nonsense"),
        ({"max_ram": "many"}, InputError, "max_ram: found many, expected 0 or more"),
        ({"max_accuracy_drop": 1}, InputError, "needs labelled samples"),
        ({"vectors": 0}, InputError, "vectors: found 0, expected 1 or more"),
        ({"input_shape": {"x": (0, 6)}}, InputError, "input_shape: found"),
        ({"input_shape": {"x": 6}}, InputError, "expected a tuple of dimensions"),
        ({"input_shape": "1,6"}, InputError, "expected a tuple of dimensions"),
        ({"quantize": "int8", "calibration": [[1, 2], [3]]}, InputError, "calibration: not one array"),
        ({"eval": {"x": np.zeros((3, 6))}}, InputError, "found no labels"),
        ({"eval": {"x": np.zeros((3, 6)), "y": np.zeros(2)}}, InputError, "2 labels for 3 samples"),
        ({"eval": {"x": np.zeros((3, 5)), "y": np.zeros(3)}}, InputError, r"found shape \(3, 5\)"),
        ({"cc": "no-such-cc"}, InputError, "install gcc"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(mlp, tmp_path, flags, error, words):
    with pytest.raises(error, match=words) as caught:
        toolchain.export(mlp, tmp_path / "deep" / "out", **flags)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_accuracy_budget(mlp, tmp_path, samples, labelled):
    wrong = {"x": samples, "y": labelled["y"]}
    flags = {"quantize": "int8", "calibration": samples * 1000, "eval": wrong}
    with pytest.raises(CheckFailedError, match=r"loses .* points of accuracy .*allowed 1"):
        toolchain.export(mlp, tmp_path / "out", max_accuracy_drop=1, **flags)
    assert not list(tmp_path.iterdir())


def test_foreign_models(tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("hello, I am not a model")
    (tmp_path / "model.xyz").write_text("x")
    (tmp_path / "dir").mkdir()
    for name in ("empty.onnx", "text.onnx", "model.xyz", "dir", "none.onnx"):
        with pytest.raises(InputError, match=name.partition(".")[0]):
            toolchain.export(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_unsupported_layers_are_named(tmp_path):
    with pytest.raises(UnsupportedError) as caught:
        toolchain.export(models.unsupported(tmp_path / "net.onnx"), tmp_path / "out")
    assert len(caught.value.problems) == 2


def test_a_wrong_kernel_is_found_and_the_layer_named(mlp, tmp_path, monkeypatch):
    emit = pipeline.emit.emit

    def broken(program, *arguments, **flags):
        texts = emit(program, *arguments, **flags)
        text = texts["mlp.c"]
        at = text.index("static void dense")
        texts["mlp.c"] = text[:at] + text[at:].replace("+ dot_f32", "- dot_f32")
        return texts

    monkeypatch.setattr(pipeline.emit, "emit", broken)
    with pytest.raises(CheckFailedError, match=r"mlp\.c: scores differs from .*first layer .*hidden"):
        toolchain.export(mlp, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_verify_again_from_the_folder(exported, samples):
    rows = pipeline.verify_folder(exported.out, data=samples)["parity"]
    assert rows[0]["passed"]
    assert rows[0]["samples"] == len(samples)
    with pytest.raises(InputError, match="found 'z80'"):
        pipeline.verify_folder(exported.out, target="z80")


def test_verify_finds_changed_weights(mlp, tmp_path):
    result = toolchain.export(mlp, tmp_path / "out", verify=False)
    header = result.out / "mlp_weights.h"
    digits = header.read_text()
    at = digits.index("= {")
    header.write_text(digits[:at] + digits[at:].replace("1", "3", 3))
    with pytest.raises(CheckFailedError, match="differs from numpy"):
        pipeline.verify_folder(result.out)


def test_verify_of_no_export(tmp_path):
    with pytest.raises(InputError, match=r"no manifest\.json"):
        pipeline.verify_folder(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InlayError, match="not written by inlay"):
        pipeline.verify_folder(tmp_path)


def test_live_model(mlp, tmp_path):
    result = toolchain.export(onnx.load(mlp), tmp_path / "live", name="live", verify=False)
    assert result.manifest["source"]["name"] == "ModelProto"
    assert not result.parity["verified"]


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/My Net-2.onnx", "my_net_2"), ("int.onnx", "int_model"), ("3d.onnx", "model_3d"), ("é.h5", "model")],
)
def test_default_names(path, name):
    assert default_name(path) == name

"""Files nobody should have to debug: one line, status 2, nothing left behind."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.golden import models
from toolchain import cli


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def a_pickle(folder: Path) -> Path:
    path = folder / "model.pt"
    path.write_bytes(pickle.dumps(Bomb(folder / "exploded")))
    return path


def onnx_file(folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = models.separable()
    change(model)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def contradictory(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((8, 5, 3, 3), np.float32), "stem.weight"))


def cyclic(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def enormous(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40


def not_a_number(model: onnx.ModelProto) -> None:
    values = np.full((8, 2, 3, 3), np.nan, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "stem.weight"))


def absent_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def escaping_data(model: onnx.ModelProto) -> None:
    absent_data(model)
    model.graph.initializer[0].external_data[0].value = "../../../../etc/passwd"


def open_dimension(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def unknown_layers(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Frobnicate"
    model.graph.node[3].op_type = "Confuse"


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def truncated(folder: Path) -> Path:
    content = models.separable().SerializeToString()
    (folder / "model.onnx").write_bytes(content[: len(content) * 2 // 3])
    return folder / "model.onnx"


NOISE = np.random.default_rng(3).bytes(4000)
FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "none.onnx", "no such file"),
    "empty": (raw("model.onnx", b""), "empty"),
    "random onnx": (raw("model.onnx", NOISE), "model.onnx"),
    "random tflite": (raw("model.tflite", NOISE), "model.tflite"),
    "random tflite with its identifier": (raw("model.tflite", NOISE[:4] + b"TFL3" + NOISE), "model.tflite"),
    "random h5": (raw("model.h5", NOISE), "model.h5"),
    "random pt2": (raw("model.pt2", NOISE), "model.pt2"),
    "truncated": (truncated, "model.onnx"),
    "foreign": (raw("model.png", b"\x89PNG\r\n"), "expected"),
    "pickle": (a_pickle, "pt2"),
    "contradictory shapes": (lambda f: onnx_file(f, contradictory), "stem"),
    "cycle": (lambda f: onnx_file(f, cyclic), "model.onnx"),
    "2^40": (lambda f: onnx_file(f, enormous), "model.onnx"),
    "nan": (lambda f: onnx_file(f, not_a_number), "stem.weight"),
    "absent data": (lambda f: onnx_file(f, absent_data), "weights.bin"),
    "escaping data": (lambda f: onnx_file(f, escaping_data), "model.onnx"),
    "open dimension": (lambda f: onnx_file(f, open_dimension), "--input-shape"),
    "unknown": (lambda f: onnx_file(f, unknown_layers), "Frobnicate"),
}


@pytest.mark.parametrize("kind", FILES)
def test_bad_model_files(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, expected = FILES[kind]
    path = make(tmp_path)
    status = cli.run(["export", str(path), "--out", str(tmp_path / "out"), "--name", "m"])
    error = capfd.readouterr().err
    assert status == 2, error
    assert expected in error.replace("\n", " ")
    assert "Traceback" not in error
    assert {p.name for p in tmp_path.iterdir()} <= {path.name}


def test_all_unsupported_layers_are_listed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = onnx_file(tmp_path, unknown_layers)
    assert cli.run(["export", str(path), "--out", str(tmp_path / "out"), "--name", "m"]) == 2
    error = capfd.readouterr().err
    assert "Frobnicate" in error
    assert "Confuse" in error


@pytest.mark.parametrize("name", ["int", "9lives", "a-b", "x\ny", "main;"])
def test_names_that_c_cannot_have(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = onnx_file(tmp_path, lambda _: None)
    assert cli.run(["export", str(path), "--out", str(tmp_path / "out"), "--name", name]) == 2
    assert not (tmp_path / "out").exists()
    assert capfd.readouterr().err


def awkward_names(model: onnx.ModelProto) -> None:
    last = model.graph.output[0]
    for node in model.graph.node:
        node.name = "while(1) {\n*/ int \\ ??/ " + node.name
        node.output[:] = ["int\n*/" if name == last.name else name for name in node.output]
    last.name = "int\n*/"
    model.graph.input[0].name = "for"
    model.graph.node[0].input[0] = "for"


def test_names_with_newlines_and_keywords_export_and_pass(tmp_path: Path) -> None:
    path = onnx_file(tmp_path, awkward_names)
    assert cli.run(["export", str(path), "--out", str(tmp_path / "out"), "--name", "m"]) == 0


def test_int8_without_samples_says_what_to_pass(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = onnx_file(tmp_path, lambda _: None)
    arguments = ["export", str(path), "--out", str(tmp_path / "out"), "--name", "m", "--quantize", "int8"]
    assert cli.run(arguments) == 2
    assert "--calibration" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()

"""Files nobody should have to debug: one line, status 2, nothing left behind."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.golden import models
from tests.models import mlp
from toolchain import cli, pipeline


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


X = np.random.default_rng(4).normal(size=(20, 6)).astype(np.float32)
ARRAYS = {
    "good": {"x": X},
    "others": {"first": X, "second": X},
    "narrow": {"x": X[:, :5]},
    "nan": {"x": np.where(X > 1, np.nan, X)},
    "none": {"x": X[:0]},
    "number": {"x": np.float32(3)},
    "words": {"x": np.array(["a", "b"])},
    "unlabelled": {"x": X},
    "few_labels": {"x": X, "y": np.zeros(5, int)},
    "half_labels": {"x": X, "y": np.full(20, 0.5)},
    "far_labels": {"x": X, "y": np.arange(20)},
    "labelled": {"x": X, "y": np.arange(20) % 3},
}
INT8 = ("--quantize", "int8", "--calibration")
OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "no such samples": ((*INT8, "gone.npz"), "gone.npz: not there"),
    "a folder of samples": ((*INT8, "."), "is a folder; expected a .npz or .npy file"),
    "samples that are text": ((*INT8, "text.npz"), "not a .npz or .npy file of numbers"),
    "samples cut off": ((*INT8, "cut.npz"), "not a .npz or .npy file of numbers"),
    "other names": ((*INT8, "others.npz"), "found arrays ['first', 'second'], expected one per model input: x"),
    "narrow samples": ((*INT8, "narrow.npz"), "found shape (20, 5), expected (samples, 6)"),
    "a number": ((*INT8, "number.npz"), "found shape (), expected (samples, 6)"),
    "nan samples": ((*INT8, "nan.npz"), "found NaN or infinity, expected finite numbers"),
    "no samples": ((*INT8, "none.npz"), "found no samples, expected at least one"),
    "words": ((*INT8, "words.npz"), "found an array of <U1, expected numbers"),
    "no labels": (("--eval", "unlabelled.npz"), "found no labels, expected an array named y"),
    "few labels": (("--eval", "few_labels.npz"), "found 5 labels for 20 samples"),
    "half labels": (("--eval", "half_labels.npz"), "found labels that are not whole numbers"),
    "far labels": (("--eval", "far_labels.npz"), "found labels from 0 to 19, expected class indices from 0 to 2"),
    "accuracy without labels": (("--max-accuracy-drop", "1"), "needs labelled samples; pass --eval"),
    "accuracy of nan": (("--eval", "labelled.npz", "--max-accuracy-drop", "nan"), "found nan, expected 0 or more"),
    "noise of nan": ((*INT8, "good.npz", "--min-sqnr", "nan"), "found nan, expected 0 or more"),
    "noise of floats": (("--min-sqnr", "20"), "found quantize float32"),
    "int8 ends of floats": (("--io", "int8"), "found int8, but nothing is quantized"),
    "int16 ends of int8": ((*INT8, "good.npz", "--io", "int16"), "found int16 beside quantize int8"),
    "shape twice": (("--input-shape", "x=1,6", "--input-shape", "x=2,6"), "found x twice"),
    "shape of nothing": (("--input-shape", "q=1,6"), "--input-shape q, expected one of x"),
    "half a command": (("--cc", '"gcc'), "expected a command; mend --cc or $CC"),
    "no vectors": (("--vectors", "0"), "--vectors"),
    "long folder": (("--out", "a" * 300), "cannot be a folder (File name too long)"),
    "long folder inside": (("--out", "new/" + "a" * 300 + "/out"), "File name too long"),
    "folder in a file": (("--out", "text.npz/out"), "text.npz is a file, expected a folder"),
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model x[1, 6] -> scores[1, 3] and files of samples."""
    monkeypatch.chdir(tmp_path)
    mlp(tmp_path / "mlp.onnx")
    for name, arrays in ARRAYS.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "text.npz").write_text("these are no samples")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:300])
    return tmp_path


def assert_refused(arguments: list[str], words: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Status 2, one line with these words, the same files as before."""
    before = sorted(folder.rglob("*"))
    assert cli.run(arguments) == 2
    error = capfd.readouterr().err
    assert error.startswith("inlay: ")
    assert len(error.strip().splitlines()) == 1
    assert words in error
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("kind", OPTIONS)
def test_bad_options(kind: str, desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given, words = OPTIONS[kind]
    out = () if "--out" in given else ("--out", "out")
    assert_refused(["export", "mlp.onnx", *out, *given], words, desk, capfd)


def test_a_model_with_a_name_too_long(desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert_refused(["inspect", "m" * 300 + ".onnx"], "cannot be read (File name too long)", desk, capfd)


@pytest.mark.parametrize("output", ["nowhere/w.h", ".", "a" * 300])
def test_weights_that_cannot_be_written(output: str, desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert_refused(["weights", "mlp.onnx", "-o", output], output, desk, capfd)


def test_a_full_disk_leaves_nothing(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline, "copy_sources", full)
    words = "cannot be written (No space left on device)"
    assert_refused(["export", "mlp.onnx", "--out", "deep/out", "--no-verify"], words, desk, capfd)


@pytest.mark.parametrize("io", ["int16", "float32"])
def test_ends_that_a_quantized_model_does_not_have(
    io: str, shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = str(shared / "models/mlperf_tiny/ad_int8.tflite")
    words = f"io: found {io}, but input_1 of ad_int8 is int8 in the model; leave --io out"
    assert_refused(["export", model, "--out", str(tmp_path / "out"), "--io", io], words, tmp_path, capfd)


def without_c(folder: Path) -> None:
    (folder / "mlp.c").unlink()


def cut_graph(folder: Path) -> None:
    (folder / "graph.npz").write_bytes((folder / "graph.npz").read_bytes()[:200])


def half_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"generator"')


def other_options(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"tflm"', '"upwards"'))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_c, "mlp.c: not there, though the manifest lists it"),
        (cut_graph, "not a graph that inlay wrote"),
        (half_manifest, "not readable as JSON"),
        (other_options, "'upwards' is not a valid Rounding"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "bench"])
def test_damaged_exports(
    command: str, damage: Callable[[Path], None], words: str, desk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["export", "mlp.onnx", "--out", "out", "--no-verify", "--json"]) == 0
    capfd.readouterr()
    damage(desk / "out")
    assert_refused([command, "out", *(("--target", "host") if command == "bench" else ())], words, desk, capfd)

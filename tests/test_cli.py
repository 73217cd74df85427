"""The command line as a user meets it: exit statuses, one-line errors, JSON."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests import models
from toolchain import cli
from toolchain.cli.flags import parse_shapes


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    return str(models.mlp(tmp_path_factory.mktemp("models") / "mlp.onnx"))


def run(capsys, *arguments):
    status = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("command", ["export", "verify", "inspect", "weights", "bench", "ops"])
def test_help(capsys, command):
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert "Usage" in out


def test_help_imports_no_framework():
    code = (
        "import sys; from toolchain import cli; cli.run(['export', '--help']); "
        "print([m for m in ('numpy', 'torch', 'tensorflow', 'onnx', 'jinja2') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_version(capsys):
    status, out, _ = run(capsys, "--version")
    assert (status, out[:6]) == (0, "inlay ")


def test_export_and_verify(capsys, mlp, tmp_path):
    status, out, _ = run(capsys, "export", mlp, "--out", tmp_path / "out")
    assert status == 0
    for word in ("MACs", "parity", "numpy", "arena", "weights", "mlp_weights.h"):
        assert word in out
    status, out, _ = run(capsys, "verify", tmp_path / "out", "--json")
    assert status == 0
    assert json.loads(out)["parity"][0]["passed"]
    status, out, _ = run(capsys, "verify", tmp_path / "out")
    assert "numpy" in out


def test_export_json_is_only_json(capsys, mlp, tmp_path):
    status, out, err = run(capsys, "export", mlp, "--out", tmp_path / "out", "--json", "--no-verify")
    assert (status, err) == (0, "")
    assert json.loads(out)["manifest"]["name"] == "mlp"


def test_int8_from_files(capsys, mlp, tmp_path):
    x = np.random.default_rng(5).normal(size=(30, 6)).astype(np.float32)
    np.savez(tmp_path / "c.npz", x=x)
    np.savez(tmp_path / "e.npz", x=x, y=np.zeros(30, np.int64))
    files = ("--calibration", tmp_path / "c.npz", "--eval", tmp_path / "e.npz")
    status, out, _ = run(capsys, "export", mlp, "--out", tmp_path / "out", "--quantize", "int8", *files)
    assert status == 0
    assert "accuracy C" in out
    assert "equal to the bit" in out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["export", "none.onnx", "--out", "o"], 2, "none.onnx"),
        (["export", "MLP"], 2, "Missing option"),
        (["export", "MLP", "--out", "o", "--quantize", "int8"], 2, "pass --calibration"),
        (["export", "MLP", "--out", "o", "--calibration", "none.npz"], 2, "none.npz: not there"),
        (["export", "MLP", "--out", "o", "--max-ram", "many"], 2, "max-ram"),
        (["export", "MLP", "--out", "o", "--max-ram", "3"], 1, "allowed 3"),
        (["export", "MLP", "--out", "o", "--input-shape", "1x6"], 2, "expected [NAME=]1,3,32,32"),
        (["export", "MLP", "--out", "o", "--max-accuracy-drop", "1"], 2, "pass --eval"),
        (["export", "MLP", "--out", "o", "--bogus"], 2, "--bogus"),
        (["frobnicate"], 2, "frobnicate"),
        (["verify", "nowhere"], 2, "no manifest.json"),
        (["bench", "nowhere", "--target", "cortex-m4"], 2, "no manifest.json"),
        (["inspect", "none.onnx"], 2, "none.onnx"),
        (["weights", "none.onnx"], 2, "none.onnx"),
        (["weights", "MLP", "--quantize", "int3"], 2, "int3"),
    ],
)
def test_errors(capsys, mlp, tmp_path, monkeypatch, arguments, status, words):
    monkeypatch.chdir(tmp_path)
    found, out, err = run(capsys, *(mlp if argument == "MLP" else argument for argument in arguments))
    assert found == status
    assert words in err
    assert err.startswith("inlay: ")
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_bench_names_the_targets(capsys, mlp, tmp_path):
    run(capsys, "export", mlp, "--out", tmp_path / "out", "--no-verify")
    status, _, err = run(capsys, "bench", tmp_path / "out", "--target", "z80")
    assert status == 2
    assert "found 'z80', expected cortex-m0" in err


def test_inspect(capsys, mlp):
    status, out, _ = run(capsys, "inspect", mlp, "--json")
    document = json.loads(out)
    assert status == 0
    assert document["macs"] == 72
    assert document["inputs"][0]["name"] == "x"
    assert "hidden" in run(capsys, "inspect", mlp)[1]


def test_inspect_names_every_unsupported_layer(capsys, tmp_path):
    status, _, err = run(capsys, "inspect", models.unsupported(tmp_path / "net.onnx"))
    assert status == 2
    assert "det" in err
    assert "nonzero" in err


def test_weights(capsys, mlp, tmp_path):
    status, out, _ = run(capsys, "weights", mlp, "-o", tmp_path / "w.h", "--quantize", "int8", "--json")
    assert status == 0
    assert {row["name"] for row in json.loads(out)} == {"w1", "b1", "w2", "b2"}
    text = (tmp_path / "w.h").read_text()
    assert "static const int8_t w_w1[48]" in text
    assert "W_W1_SCALE" in text


def test_ops(capsys):
    status, out, _ = run(capsys, "ops", "--json")
    assert status == 0
    document = json.loads(out)
    assert {"Conv", "Dense", "Softmax"} <= {row["operator"] for row in document["operators"]}
    assert "Gemm" in document["importers"]["onnx"]
    table = run(capsys, "ops")[1]
    assert "MaxPool" in table
    assert "x[start:stop:step] on every axis" in table


def test_shapes():
    assert parse_shapes(["a=1,3", "2"]) == {"a": (1, 3), "": (2,)}

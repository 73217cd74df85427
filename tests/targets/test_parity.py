"""The same bits on every emulated core, and what is said when they are not."""

import dataclasses
import re

import pytest

import toolchain
from tests import models
from toolchain import emit, pipeline
from toolchain.errors import CheckFailedError, InputError
from toolchain.targets import cores, parity
from toolchain.targets.cores import TARGETS

EMULATED = [name for name in TARGETS if name != "host"]


@pytest.mark.parametrize("name", EMULATED)
def test_integers_are_equal_to_the_bit(mlp_int8, needs, name):
    document = pipeline.verify_folder(mlp_int8.out, target=needs(name))
    assert {row["reference"] for row in document["parity"]} >= {"numpy"}
    for row in document["parity"]:
        assert (row["passed"], row["differing"], row["allowed"]) == (True, 0, 0.0)


@pytest.mark.parametrize("name", ["cortex-m0", "cortex-m4", "cortex-m55", "rv32imc"])
def test_floats_are_near(mlp, needs, name):
    rows = pipeline.verify_folder(mlp.out, target=needs(name))["parity"]
    assert {row["passed"] for row in rows} == {True}


@pytest.mark.slow
@pytest.mark.parametrize("name", EMULATED)
def test_a_convolutional_network(digits, needs, name):
    document = pipeline.verify_folder(digits.out, target=needs(name))
    assert {row["differing"] for row in document["parity"]} == {0}


def test_single_rounding(needs, tmp_path, rng):
    x = rng.normal(size=(30, 6)).astype("float32")
    options = {"quantize": "int8", "io": "int8", "rounding": "single", "calibration": x, "verify": False}
    result = toolchain.export(models.mlp(tmp_path / "mlp.onnx"), tmp_path / "out", **options)
    rows = pipeline.verify_folder(result.out, target=needs("cortex-m4"))["parity"]
    assert [row["differing"] for row in rows] == [0] * len(rows)


def test_samples_of_the_user(mlp_int8, needs, rng):
    x = rng.normal(size=(7, 6)).astype("float32")
    rows = pipeline.verify_folder(mlp_int8.out, data=x, target=needs("cortex-m4"))["parity"]
    assert rows[0]["samples"] == 7


def test_a_difference_names_core_and_output(mlp_int8, needs, tmp_path):
    needs("cortex-m4")
    copy = tmp_path / "mlp"
    copy.mkdir()
    for file in mlp_int8.out.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    header = copy / "mlp_weights.h"
    text = header.read_text()
    rows = re.compile(r"^( {4} *)(-?)(?=\d+,)", re.MULTILINE)
    header.write_text(rows.sub(lambda found: found[1] + ("" if found[2] else "-"), text))
    with pytest.raises(CheckFailedError, match=r"mlp\.c on cortex-m4: \w+ differs from (numpy|host)"):
        pipeline.verify_folder(copy, target="cortex-m4")


def test_the_first_layer_that_differs(mlp_int8, needs, monkeypatch):
    target = TARGETS[needs("cortex-m4")]
    _, graph, program = pipeline.read_export(mlp_int8.out)
    sample = parity.samples.synthetic(graph, 3)
    last = {name: array[-1:] for name, array in sample.items()}
    assert parity.differing_layer(graph, program, target, last) is None
    right = emit.emit

    def broken(*arguments, **options):
        texts = right(*arguments, **options)
        return texts | {"mlp_weights.h": texts["mlp_weights.h"].replace(", -", ",  ")}

    monkeypatch.setattr(emit, "emit", broken)
    assert "hidden" in parity.differing_layer(graph, program, target, last)


def test_a_fault(mlp, needs, monkeypatch):
    target = dataclasses.replace(TARGETS[needs("cortex-m4")], fpu=False)
    monkeypatch.setitem(TARGETS, "cortex-m4", target)
    with pytest.raises(CheckFailedError, match=r"mlp\.c on cortex-m4: the program faulted"):
        pipeline.verify_folder(mlp.out, target="cortex-m4")


def test_host_is_the_ordinary_check(mlp_int8):
    assert "target" not in pipeline.verify_folder(mlp_int8.out, target="host")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target": "cortex-m9"}, "found 'cortex-m9', expected cortex-m0, "),
        ({"target": "cortex-m4", "sanitize": True}, "are for the host"),
        ({"target": "cortex-m4", "cc": "clang"}, "are for the host"),
    ],
)
def test_errors(mlp_int8, arguments, words):
    with pytest.raises(InputError, match=words):
        pipeline.verify_folder(mlp_int8.out, **arguments)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cortex-m4", "sudo apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"),
        ("rv32imc", "sudo apt-get install gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc"),
    ],
)
def test_missing_tools_come_with_the_line_that_installs_them(mlp_int8, monkeypatch, name, line):
    monkeypatch.setattr(cores.shutil, "which", lambda _: None)
    with pytest.raises(InputError, match=line):
        pipeline.bench_folder(mlp_int8.out, name)


def test_a_model_too_big_for_the_board(mlp_int8, needs, monkeypatch):
    target = TARGETS[needs("cortex-m4")]
    small = dataclasses.replace(target, memory=dataclasses.replace(target.memory, ram_bytes="1K"))
    monkeypatch.setitem(TARGETS, "cortex-m4", small)
    with pytest.raises(InputError, match="bytes too many for the RAM of mps2-an386"):
        pipeline.verify_folder(mlp_int8.out, target="cortex-m4")

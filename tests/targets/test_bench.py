"""Instructions, bytes and stack of a run: two ways of counting agree, and the parts add up."""

import json

import pytest

from toolchain import cli, pipeline
from toolchain.errors import InputError
from toolchain.targets import bench
from toolchain.targets.cores import TARGETS
from toolchain.targets.emulator import find_counter


@pytest.fixture(scope="module")
def measured(mlp_int8):
    if bench.find_counter("qemu-system-arm") is None:
        pytest.skip("this QEMU loads no plugins")
    return pipeline.bench_folder(mlp_int8.out, "cortex-m4")


@pytest.fixture
def counted(needs, measured):
    needs("cortex-m4")
    return measured


def test_parts_add_up(counted):
    assert counted["counted_by"] == "QEMU plugin"
    total = counted["instructions"]
    assert sum(row["instructions"] for row in counted["functions"]) == total
    slack = 4 * len(counted["layers"]) + 8  # the marks' own calls
    for part in ("layers", "kernels"):
        assert sum(row["instructions"] for row in counted[part]) == pytest.approx(total, abs=slack)
        assert sum(row["macs"] for row in counted[part]) == counted["macs"] == 72
    assert total <= counted["estimated_cycles"] <= 3 * total


def test_memory(counted, mlp_int8):
    assert counted["arena_bytes"] == mlp_int8.manifest["sizes"]["arena_bytes"]
    folded = 32  # numbers of a kernel with one caller, which the compiler puts into its code
    assert mlp_int8.manifest["sizes"]["weights_bytes_by_body"]["dsp"] <= counted["constants_bytes"] + folded
    assert 100 < counted["code_bytes"] < 4000
    assert 0 < counted["stack_bytes"] < 1000
    assert abs(counted["stack_bytes"] - counted["stack_computed_bytes"]) < 64


def test_the_layers_are_the_users(counted):
    assert {"hidden", "scores"} & {row["layer"] for row in counted["layers"]}


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "host"])
def test_the_clock_agrees_with_the_counter(mlp_int8, needs, monkeypatch, name):
    target = TARGETS[needs(name)]
    if find_counter(target.emulator) is None:
        pytest.skip("this QEMU loads no plugins")
    exact = pipeline.bench_folder(mlp_int8.out, name)["instructions"]
    monkeypatch.setattr(bench, "find_counter", lambda _: None)
    coarse = pipeline.bench_folder(mlp_int8.out, name)
    assert coarse["counted_by"].startswith("clock")
    assert coarse["instructions"] == pytest.approx(exact, abs=2 * target.tick + 40)


def test_two_runs_count_the_same(counted, mlp_int8):
    assert pipeline.bench_folder(mlp_int8.out, "cortex-m4") == counted


def test_host_counts_nanoseconds(mlp_int8):
    document = pipeline.bench_folder(mlp_int8.out, "host", level="3", native=True)
    assert document["nanoseconds"] > 0
    assert "instructions" not in document
    assert "-march=native -O3" in document["compiler"]


def test_native_is_the_hosts(needs, mlp_int8):
    with pytest.raises(InputError, match="--native: found --target cortex-m4, expected host"):
        pipeline.bench_folder(mlp_int8.out, needs("cortex-m4"), native=True)


def test_comparison(needs, mlp, mlp_int8, capsys):
    needs("cortex-m4")
    arguments = ["bench", str(mlp_int8.out), "--target", "cortex-m4", "-O3", "--compare", str(mlp.out)]
    assert cli.run([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ratio"]["instructions"] == pytest.approx(
        document["this"]["instructions"] / document["other"]["instructions"], abs=1e-4
    )
    assert "-O3" in document["this"]["compiler"]
    assert cli.run(arguments) == 0
    assert "ratio" in capsys.readouterr().out


def test_tables(needs, mlp_int8, capsys):
    assert cli.run(["bench", str(mlp_int8.out), "--target", needs("cortex-m4")]) == 0
    out = capsys.readouterr().out
    for word in ("instructions", "stack", "arena", "Kernels", "Layers", "dense_s8"):
        assert word in out


def test_levels(mlp_int8):
    with pytest.raises(InputError, match="-O9: not a level"):
        pipeline.bench_folder(mlp_int8.out, "host", level="9")


@pytest.mark.slow
def test_a_convolutional_network(digits, needs):
    document = pipeline.bench_folder(digits.out, needs("cortex-m4"))
    assert document["macs"] == 199_936
    assert document["instructions_per_mac"] < 10
    unseen = document["stack_bytes"] - document["stack_computed_bytes"]  # memcpy adds, a path not taken spares some
    assert abs(unseen) < 32

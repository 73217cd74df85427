"""Equalization, bias absorption and bias correction: the float function stays, the integers come nearer to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.nets import Net
from tests.quantize import blocks
from toolchain.config import Options, Rounding
from toolchain.ir.graph import Graph
from toolchain.ops.conv import Conv
from toolchain.ops.elementwise import Binary
from toolchain.ops.reduce import Reduce
from toolchain.ops.shape import Reshape
from toolchain.ops.unary import Unary
from toolchain.passes import optimize
from toolchain.quantize import quantize
from toolchain.quantize.absorb import absorb_bias
from toolchain.quantize.channels import FIXED, Channels
from toolchain.quantize.equalize import BALANCES, equalize
from toolchain.quantize.integers import Trial
from toolchain.quantize.prepare import extents

TABLE = Path(__file__).parent / "contributions.json"
OFF = {"equalize": False, "absorb_bias": False, "bias_correction": False}
STAGES = {
    "minmax alone": OFF,
    "with equalization": {**OFF, "equalize": True},
    "with bias absorption": {**OFF, "equalize": True, "absorb_bias": True},
    "with bias correction": {},
}


def fresh_decibels(graph: Graph, **flags: bool) -> float:
    """Signal-to-noise ratio on samples that calibration has not seen."""
    result, _ = quantize(graph, blocks.noise(graph, 48), Options("net", "int8", **flags))
    return Trial(graph, blocks.noise(graph, 32, seed=77), Rounding.TFLM).decibels(result)


@pytest.fixture(scope="module")
def contributions() -> dict[str, dict[str, float]]:
    return {
        name: {stage: round(fresh_decibels(make(), **flags), 1) for stage, flags in STAGES.items()}
        for name, make in blocks.NETS.items()
    }


@pytest.mark.slow
def test_the_table_of_contributions(contributions: dict[str, dict[str, float]], request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        TABLE.write_text(json.dumps(contributions, indent=2) + "\n")
    committed = json.loads(TABLE.read_text())
    for name, row in contributions.items():
        assert row == pytest.approx(committed[name], abs=1.0), name


@pytest.mark.slow
def test_per_tensor_bounds(contributions: dict[str, dict[str, float]]) -> None:
    assert contributions["rescaled"]["minmax alone"] < 10
    last = {name: row["with bias correction"] for name, row in contributions.items()}
    assert last["rescaled"] >= 40
    assert min(last["mobilenet"], last["excited"], last["branched"]) >= 22
    assert all(last[name] > row["minmax alone"] for name, row in contributions.items())


def test_channels_four_decades_apart_keep_40_decibels() -> None:
    graph = blocks.rescaled(blocks.separable())
    assert fresh_decibels(graph, **OFF) < 10
    assert fresh_decibels(graph) >= 40


@pytest.mark.parametrize("name", list(blocks.NETS))
def test_equalization_keeps_the_function(name: str) -> None:
    graph = blocks.NETS[name](1)
    seen = extents(graph, blocks.noise(graph, 12))
    trial = Trial(graph, blocks.noise(graph, 12), Rounding.TFLM)
    for balance in BALANCES:
        changed, count = equalize(graph, seen, balance)
        assert count > 0
        assert trial.decibels(changed) > 110


@pytest.mark.parametrize("name", ["separable", "mobilenet", "excited"])
def test_absorption_keeps_the_function_on_the_samples(name: str) -> None:
    graph = blocks.NETS[name](1)
    changed, origins = absorb_bias(graph, extents(graph, blocks.noise(graph, 12)))
    assert origins
    assert Trial(graph, blocks.noise(graph, 12), Rounding.TFLM).decibels(changed) > 110


def test_a_limit_that_is_reached_stays() -> None:
    """ReLU6 clips about half of all values of some channels: equalization must not change what it clips."""
    net = Net(3)
    x = net.op(Unary("relu6"), net.conv(net.op(Binary("mul"), net.input(1, 3, 8, 8), net.const(9.0)), 8))
    x = net.op(Unary("relu6"), net.conv(x, 8, groups=8))
    graph = optimize(net.graph(net.conv(x, 4, 1)))
    samples = blocks.noise(graph, 32)
    for balance in BALANCES:
        changed, _ = equalize(graph, extents(graph, samples), balance)
        assert Trial(graph, samples, Rounding.TFLM).decibels(changed) > 110


def test_classes_of_channels() -> None:
    net = Net()
    x = net.conv(net.input(1, 2, 4, 4), 3)
    y = net.conv(net.relu(x), 3)
    joined = net.add(net.relu(x), net.op(Unary("leaky", 0.1), y))
    flat = net.op(Reshape((1, 48)), joined)
    gate = net.op(Unary("sigmoid"), net.conv(net.op(Reduce("mean", (2, 3), True), joined), 3, 1))
    gated = net.op(Reduce("mean", (2, 3), False), net.op(Binary("mul"), joined, gate))
    graph = optimize(net.graph(net.dense(flat, 2), net.dense(gated, 2)))
    channels = Channels(graph)
    convolutions = [node for node in graph.nodes if isinstance(node.op, Conv)]
    first, second, before_gate = (channels.classes(node.outputs[0]) for node in convolutions)
    assert first.tolist() == second.tolist()
    assert len(set(first.tolist())) == 3
    assert before_gate.tolist() == [FIXED] * 3


def test_each_technique_can_be_switched_off_and_says_what_it_did() -> None:
    graph = blocks.separable()
    samples = blocks.noise(graph, 32)
    _, report = quantize(graph, samples, Options("net", "int8"))
    assert [each.name for each in report.techniques] == ["equalization", "bias absorption", "bias correction"]
    assert {each.after > each.before for each in report.techniques if each.kept} == {True}
    _, report = quantize(graph, samples, Options("net", "int8", **OFF))
    assert report.techniques == ()
    _, report = quantize(graph, samples, Options("net", "int8", **{**OFF, "bias_correction": True}))
    assert [each.name for each in report.techniques] == ["bias correction"]


def test_nothing_to_equalize_is_said() -> None:
    net = Net()
    graph = optimize(net.graph(net.dense(net.input(1, 6), 3)))
    rng = np.random.default_rng(0)
    samples = {n: rng.normal(size=(40, 1, 6)).astype(np.float32) for n in graph.inputs}
    _, report = quantize(graph, samples, Options("net", "int8"))
    assert [each.kept for each in report.techniques[:2]] == [False, False]

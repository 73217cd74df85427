"""What is chosen by measurement: ranges, weight rounding, mixed precision; the account; samples that look wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.nets import Net
from tests.quantize import blocks
from toolchain import interpret, samples
from toolchain.config import CalibrationMethod, Options, Rounding
from toolchain.errors import CheckFailedError
from toolchain.ir.graph import Graph
from toolchain.ir.types import DType
from toolchain.ops.conv import Conv
from toolchain.ops.elementwise import Binary
from toolchain.passes import optimize
from toolchain.quantize import ACCOUNTED, QuantizationReport, quantize, scale_mismatch
from toolchain.quantize.assign import Choices
from toolchain.quantize.feedback import round_weights
from toolchain.quantize.integers import Trial, integers, trial_count
from toolchain.quantize.methods import calibrated_range
from toolchain.quantize.noise import decibels, spread
from toolchain.quantize.observe import observe

OFF = {"equalize": False, "absorb_bias": False, "bias_correction": False}


def small(seed: int = 0) -> Graph:
    net = blocks.BlockNet(seed)
    x = net.act(net.norm(net.conv(net.input(1, 3, 8, 8), 8)), "relu")
    return net.head(net.act(net.norm(net.conv(x, 12)), "relu"))


def with_outliers(graph: Graph, count: int = 24) -> dict[str, np.ndarray]:
    """Noise in which one value in a thousand is thirty times too large."""
    batch = blocks.noise(graph, count)
    rng = np.random.default_rng(9)
    return {name: np.where(rng.random(x.shape) < 1e-3, 30 * x, x).astype(np.float32) for name, x in batch.items()}


def test_auto_is_at_least_as_good_as_every_method() -> None:
    graph = small()
    batch = with_outliers(graph)
    trial = Trial(graph, batch, Rounding.TFLM)
    observers = observe(graph, batch)
    single = [
        trial.decibels(integers(graph, {n: calibrated_range(o, m) for n, o in observers.items()}, Choices()).graph)
        for m in CalibrationMethod
        if m is not CalibrationMethod.AUTO
    ]
    made, report = quantize(graph, batch, Options("net", "int8", calibration_method=CalibrationMethod.AUTO, **OFF))
    assert trial.decibels(made) >= max(single) > min(single) + 1
    assert report.techniques[0].name == "automatic ranges"


def test_error_feedback_lowers_the_error_of_every_layer() -> None:
    """Per layer, on the inputs it was optimized for: less error than nearest rounding, no integer more than 127."""
    graph = small(2)
    batch = blocks.noise(graph, 24)
    ranges = {n: calibrated_range(o, CalibrationMethod.MINMAX) for n, o in observe(graph, batch).items()}
    made = integers(graph, ranges, Choices())
    rounded, layers = round_weights(made, batch, Rounding.TFLM, lambda *_: None)
    assert layers == 3
    trial = Trial(graph, blocks.noise(graph, 24, seed=8), Rounding.TFLM)
    assert trial.decibels(rounded) > trial.decibels(made.graph) + 1
    for name, tensor in rounded.tensors.items():
        before = made.graph.tensors[name]
        assert tensor.type == before.type
        if tensor.data is not None and tensor.type.dtype is DType.INT8:
            assert np.abs(tensor.data.astype(int)).max() <= 127
            assert np.abs(tensor.data.astype(int) - before.data).max() <= 8


def one_bad_layer() -> Graph:
    """Two layers whose outputs meet in a sum; one has outputs of very different sizes, so that per tensor it is bad."""
    net = Net(4)
    x = net.input(1, 4, 6, 6)
    factors = np.array([100.0, 1, 1, 1, 1, 1], np.float32).reshape(1, 6, 1, 1)
    wide = net.op(Binary("mul"), net.conv(x, 6), net.const(factors))
    y = net.op(Binary("mul"), net.relu(wide), net.const(1 / factors))
    return optimize(net.graph(net.add(net.conv(x, 6), y)))


def test_the_fewest_layers_move_until_the_bar_is_met() -> None:
    graph = one_bad_layer()
    batch = blocks.noise(graph, 24)
    base, _ = quantize(graph, batch, Options("net", "int8", **OFF))
    trial = Trial(graph, batch, Rounding.TFLM)
    bar = trial.decibels(base) + 1
    made, report = quantize(graph, batch, Options("net", "int8", min_sqnr=bar, **OFF))
    assert report.mixed is not None
    assert trial.decibels(made) >= bar
    assert report.mixed.after == trial.decibels(made)
    assert len(report.mixed.moves) == 1
    assert report.mixed.bytes_after > report.mixed.bytes_before
    ranked = [each for each in report.mixed.sensitivity if each.move == "scales per channel"]
    assert report.mixed.moves[0] == (ranked[0].origin, "scales per channel")


def needed(mode: str, gain: float) -> tuple[Graph, QuantizationReport]:
    """A graph so many dB better than per-channel scales give in a mode."""
    graph = small()
    batch = blocks.noise(graph, 24)
    made, report = quantize(graph, batch, Options("net", mode, per_channel=True, **OFF))
    assert report.mixed is None
    bar = Trial(graph, batch, Rounding.TFLM).decibels(made) + gain
    return quantize(graph, batch, Options("net", mode, per_channel=True, min_sqnr=bar, **OFF))


def test_outputs_move_to_16_bits_where_scales_do_not_help() -> None:
    made, report = needed("int8", 0.1)
    assert [move for _, move in report.mixed.moves] == ["16-bit output"]
    assert report.fallbacks == ()
    assert any(tensor.type.dtype is DType.INT16 for tensor in made.tensors.values())


def test_layers_move_to_float_where_nothing_else_helps() -> None:
    made, report = needed("int16x8", 0.5)
    assert [move for _, move in report.mixed.moves] == ["float"]
    assert [reason for _, reason in report.fallbacks] == ["it needs float to meet the bar"]
    floats = [n for n in made.nodes if isinstance(n.op, Conv) and made.tensors[n.outputs[0]].type.quant is None]
    assert len(floats) == 1


def test_a_bar_that_cannot_be_met_fails() -> None:
    graph = small()
    with pytest.raises(CheckFailedError, match=r"min_sqnr: int8 gives .* dB, .* expected 190\.00 or more"):
        quantize(graph, blocks.noise(graph, 16), Options("net", "int8", min_sqnr=190.0))


def test_a_bar_that_is_met_moves_nothing() -> None:
    graph = small()
    _, report = quantize(graph, blocks.noise(graph, 16), Options("net", "int8", min_sqnr=10.0))
    assert report.mixed.moves == ()
    assert report.mixed.bytes_after == report.mixed.bytes_before


def test_the_account_of_layers() -> None:
    """Each figure against its definition, from the runs themselves."""
    graph = small()
    batch = blocks.noise(graph, 8)
    made, report = quantize(graph, batch, Options("net", "int8", **OFF))
    assert [row.origin for row in report.layers] == [node.origin for node in graph.nodes]
    row = report.layers[0]
    floats, integers_ = [], []
    for index in range(8):
        sample = {name: array[index] for name, array in batch.items()}
        floats.append(interpret.run(graph, sample, keep=True)[graph.nodes[0].outputs[0]])
        integers_.append(interpret.run(made, sample, keep=True)[row.tensor])
    kind = made.tensors[row.tensor].type
    found = samples.dequantize_array(np.stack(integers_), kind)
    wanted = np.stack(floats).astype(np.float64)
    assert row.accumulated_db == pytest.approx(decibels((wanted**2).sum(), ((wanted - found) ** 2).sum()))
    assert row.scale == kind.quant.scale[0]
    assert row.saturated == 0
    assert sum(row.values.counts) == wanted.size
    assert sum(row.weights.counts) == graph.tensors[graph.nodes[0].inputs[1]].data.size
    assert 30 < row.weights_db < 60
    assert row.activation_db > row.accumulated_db


def test_saturation_is_counted() -> None:
    graph = small()
    batch = with_outliers(graph)
    options = Options("net", "int8", calibration_method=CalibrationMethod.ENTROPY, **OFF)
    _, report = quantize(graph, batch, options)
    row = max(report.layers, key=lambda each: each.saturated)
    name = next(node.outputs[0] for node in graph.nodes if node.origin == row.origin)
    few = spread(spread(batch, trial_count(graph)), ACCOUNTED)
    runs = [interpret.run(graph, {n: x[i] for n, x in few.items()}, keep=True)[name] for i in range(ACCOUNTED)]
    values = np.stack(runs)
    assert 0 < row.saturated == np.mean((values < row.range[0]) | (values > row.range[1]))


def warnings_of(graph: Graph, batch: dict[str, np.ndarray]) -> list[str]:
    return list(quantize(graph, batch, Options("net", "int8", **OFF))[1].warnings)


def test_samples_that_look_wrong_are_said() -> None:
    graph = small()
    name = graph.inputs[0]
    good = blocks.noise(graph, 24)[name]
    assert warnings_of(graph, {name: good}) == []
    assert "use 100 or more" in warnings_of(graph, {name: good[:3]})[0]
    assert "all 24 calibration samples are the same" in warnings_of(graph, {name: np.repeat(good[:1], 24, 0)})[0]
    outlying = good.copy()
    outlying[7] *= 255
    assert "sample 7 reaches" in warnings_of(graph, {name: outlying})[0]
    assert "hardly differ" in warnings_of(graph, {name: good / 255 / 100})[0]
    assert "is 0 for every sample" in " ".join(warnings_of(graph, {name: good * 0}))
    assert scale_mismatch(graph, {name: good}, {name: good}) == []
    assert "scaled wrongly" in scale_mismatch(graph, {name: good / 255}, {name: good})[0]


def test_every_new_option_has_a_default() -> None:
    """Manifests of older exports lack the new options and still load."""
    optional = {f.name for f in dataclasses.fields(Options) if f.default is not dataclasses.MISSING}
    assert {"equalize", "absorb_bias", "bias_correction", "optimize_weights", "min_sqnr"} <= optional

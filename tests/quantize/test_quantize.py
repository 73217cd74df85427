"""Float graphs become int8 graphs that compute nearly the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.nets import Net, kinds
from toolchain import interpret
from toolchain.config import CalibrationMethod, Options
from toolchain.errors import InputError
from toolchain.ir.types import Array, DType
from toolchain.ops.elementwise import Binary
from toolchain.ops.joining import Concat
from toolchain.ops.reduce import Reduce
from toolchain.ops.shape import Reshape, Transpose
from toolchain.ops.softmax import Softmax
from toolchain.ops.unary import Unary
from toolchain.passes import optimize
from toolchain.quantize import quantize

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph


SINGLE_METHODS = [method for method in CalibrationMethod if method is not CalibrationMethod.AUTO]


def network() -> Graph:
    net = Net()
    x = net.relu(net.norm(net.conv(net.input(1, 3, 8, 8), 8)))
    y = net.max_pool(net.relu(net.conv(x, 8)))
    z = net.max_pool(net.op(Unary("hard_swish"), net.conv(x, 4)))
    joined = net.op(Concat(1), y, z)
    x = net.add(joined, net.conv(joined, 12))
    pooled = net.op(Reduce("mean", (2, 3), False), x)
    return optimize(net.graph(net.op(Softmax(1), net.dense(pooled, 5))))


def samples_for(graph: Graph, count: int = 32) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {n: rng.normal(size=(count, *graph.tensors[n].type.shape)).astype(np.float32) for n in graph.inputs}


def as_reals(graph: Graph, name: str, value: Array) -> Array:
    quant = graph.tensors[name].type.quant
    return value if quant is None else (value.astype(np.float32) - quant.zero_point) * quant.scale[0]


def worst(graph: Graph, quantized: Graph, samples: dict[str, Array]) -> float:
    found = 0.0
    for index in range(8):
        feeds = {name: array[index] for name, array in samples.items()}
        wanted = interpret.run(graph, feeds)[graph.outputs[0]]
        result = interpret.run(quantized, feeds)[quantized.outputs[0]]
        found = max(found, float(np.abs(as_reals(quantized, quantized.outputs[0], result) - wanted).max()))
    return found


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("method", SINGLE_METHODS)
def test_int8_is_near_float(method: CalibrationMethod, per_channel: bool) -> None:
    graph = network()
    samples = samples_for(graph)
    options = Options("net", "int8", per_channel=per_channel, calibration_method=method)
    result, report = quantize(graph, samples, options)
    assert worst(graph, result, samples) < (0.12 if method is CalibrationMethod.ENTROPY else 0.06)
    assert report.fallbacks == ()
    assert kinds(result)["Quantize"] == kinds(result)["Dequantize"] == 1
    assert result.tensors[result.inputs[0]].type.dtype is DType.FLOAT32


def test_integer_ends() -> None:
    graph = network()
    result, _ = quantize(graph, samples_for(graph), Options("net", "int8", io="int8"))
    assert {result.tensors[name].type.dtype for name in (*result.inputs, *result.outputs)} == {DType.INT8}
    assert kinds(result)["Quantize"] == kinds(result)["Dequantize"] == 0
    assert result.ports == graph.ports


def test_concat_shares_and_relu_starts_at_zero() -> None:
    graph = network()
    result, report = quantize(graph, samples_for(graph), Options("net", "int8"))
    for node in result.nodes:
        if isinstance(node.op, Concat):
            assert len({t.type.quant for t in result.operands((*node.inputs, *node.outputs))}) == 1
    assert any(row.zero_point == -128 for row in report.tensors)


def test_layers_without_integer_form_run_in_float() -> None:
    net = Net()
    x = net.dense(net.input(1, 6), 8)
    y = net.op(Binary("pow"), net.op(Unary("abs"), x), net.const(1.5))
    graph = optimize(net.graph(net.dense(y, 3)))
    samples = samples_for(graph)
    result, report = quantize(graph, samples, Options("net", "int8"))
    assert len(report.fallbacks) == 1, report.fallbacks
    assert kinds(result)["Dequantize"] == 2
    assert worst(graph, result, samples) < 0.3


def test_an_output_that_is_also_read() -> None:
    net = Net()
    x = net.dense(net.input(1, 6), 8)
    graph = optimize(net.graph(x, net.dense(net.op(Unary("tanh"), x), 3), net.op(Reshape((8, 1)), x)))
    for io in ("float32", "int8"):
        result, _ = quantize(graph, samples_for(graph), Options("net", "int8", io=io))
        assert set(result.outputs) == set(graph.outputs)
        interpret.run(result, {"x": samples_for(result)["x"][0].astype(result.tensors["x"].type.dtype.numpy)})


def test_bad_samples_are_refused() -> None:
    graph = network()
    name = graph.inputs[0]
    good = samples_for(graph)[name]
    for bad in ({}, {name: good[:0]}, {name: good[..., :1]}, {name: np.where(good > 2, np.nan, good)}):
        with pytest.raises(InputError):
            quantize(graph, bad, Options("net", "int8"))


def test_few_samples_and_constant_layers_warn() -> None:
    graph = network()
    zeros = {name: array[:1] * 0 for name, array in samples_for(graph).items()}
    calls: list[tuple[str, int, int]] = []
    _, report = quantize(graph, zeros, Options("net", "int8"), lambda *step: calls.append(step))
    assert len(report.warnings) >= 2
    assert ("calibrate", 1, 1) in calls


def test_moves_between_float_layers_stay_in_float() -> None:
    net = Net()
    x = net.op(Binary("pow"), net.op(Unary("abs"), net.input(2, 6)), net.const(1.5))
    y = net.op(Binary("pow"), net.op(Transpose((1, 0)), x), net.const(1.5))
    graph = net.graph(net.op(Reshape((12,)), y))
    result, _ = quantize(graph, samples_for(graph), Options("net", "int8"))
    assert kinds(result)["Quantize"] == kinds(result)["Dequantize"] == 1

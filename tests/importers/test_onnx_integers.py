"""Quantized ONNX operators one by one against onnxruntime; what stays float and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.importers.running import entering, onnx_outputs, symbols
from toolchain import importers, passes, pipeline
from toolchain.errors import UnsupportedError
from toolchain.interpret import run
from toolchain.ir.types import DType


def model(nodes: list[onnx.NodeProto], inputs: dict[str, tuple], outputs: dict[str, int], **weights: Any) -> Any:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    ours = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "Transpose", "Softmax", "MaxPool"}
    domain = "" if kind in ours else "com.microsoft"
    return helper.make_node(kind, inputs.split(","), [output], domain=domain, **attributes)


SCALES = {
    "s": np.float32(0.05), "z": np.uint8(120), "t": np.float32(0.04), "u": np.uint8(131),
    "h": np.float32(1 / 256), "n": np.uint8(0),
}  # fmt: skip
WEIGHTS = np.random.default_rng(0).integers(100, 156, (6, 5)).astype(np.uint8)
OPERATORS = {
    "add": node("QLinearAdd", "a,s,z,b,t,u,s,u"),
    "mul": node("QLinearMul", "a,s,z,b,t,u,s,u"),
    "concat": node("QLinearConcat", "s,u,a,s,z,b,t,u", axis=3),
    "global_average": node("QLinearGlobalAveragePool", "a,s,z,t,u"),
    "average": node("QLinearAveragePool", "a,s,z,t,u", kernel_shape=[2, 2], strides=[1, 2]),
    "average_padded": node(
        "QLinearAveragePool", "a,s,z,t,u", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "sigmoid": node("QLinearSigmoid", "a,s,z,h,n"),
    "leaky": node("QLinearLeakyRelu", "a,s,z,t,u", alpha=0.2),
    "softmax": node("QLinearSoftmax", "a,s,z,h,n", axis=3, opset=13),
    "matmul": node("QLinearMatMul", "a,s,z,w,ws,wz,k,u"),
    "gemm": node("QGemm", "m,s,z,w,ws,wz,c,k,u"),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_of_integers(name):
    """Asymmetric uint8 in and out; one step at most."""
    random = np.random.default_rng(5)
    kinds = {"a": (2, 3, 4, 6), "b": (2, 3, 4, 6), "m": (4, 6)}
    used = [each for each in kinds if each in OPERATORS[name].input]
    whole = model(
        [OPERATORS[name]],
        {each: (TensorProto.UINT8, kinds[each]) for each in used},
        {"y": TensorProto.UINT8},
        **SCALES,
        w=WEIGHTS,
        ws=np.linspace(0.01, 0.02, 5, dtype=np.float32),
        wz=np.full(5, 128, np.uint8),
        k=np.float32(0.1),
        c=np.arange(5, dtype=np.int32) * 20,
    )
    feeds = {each: random.integers(0, 256, kinds[each]).astype(np.uint8) for each in used}
    graph = passes.optimize(importers.load(whole), "nchw")
    assert passes.float_layers(graph) == ()
    assert not [symbol for symbol in symbols(graph) if "f32" in symbol or "quantize" in symbol]
    ours = run(graph, feeds)[graph.outputs[0]]
    theirs = onnx_outputs(whole, feeds)["y"]
    assert ours.dtype == theirs.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_moves_between_conversions_are_on_integers():
    nodes = [
        node("QuantizeLinear", "x,s,z", "q"),
        node("Transpose", "q", "moved", perm=[0, 2, 1]),
        node("DequantizeLinear", "moved,s,z", "r"),
        node("Softmax", "r", "y"),
    ]
    whole = model(nodes, {"x": (TensorProto.FLOAT, (1, 4, 6))}, {"y": TensorProto.FLOAT}, **SCALES)
    graph = passes.optimize(importers.load(whole))
    assert passes.float_layers(graph) == (("y", "the model does not quantize its output"),)
    assert graph.tensors["q"].type.dtype is DType.INT8


FUNCTIONS = {
    "mish": ("Softplus:r:a", "Tanh:a:b", "Mul:r,b:f"),
    "silu": ("Sigmoid:r:a", "Mul:a,r:f"),
    "gelu": ("Div:r,two:a", "Erf:a:b", "Add:b,one:c", "Mul:r,c:f"),
    "log": ("Softplus:r:a", "Greater:r,one:b", "Where:b,r,a:f"),
    "hard_swish": ("HardSigmoid:r:a", "Mul:r,a:f"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_one_tensor_are_tables(name):
    layers = [step.split(":") for step in FUNCTIONS[name]]
    nodes = [
        node("QuantizeLinear", "x,s,z", "q"),
        helper.make_node("Cast", ["q"], ["same"], to=TensorProto.UINT8),
        node("DequantizeLinear", "same,s,z", "r"),
        *(helper.make_node(kind, inputs.split(","), [output]) for kind, inputs, output in layers),
        node("QuantizeLinear", "f,t,u", "g"),
        node("DequantizeLinear", "g,t,u", "y"),
    ]
    numbers = {"one": np.float32(1), "two": np.float32(2)}
    whole = model(nodes, {"x": (TensorProto.FLOAT, (1, 256))}, {"y": TensorProto.FLOAT}, **SCALES, **numbers)
    graph = passes.optimize(importers.load(whole))
    assert passes.float_layers(graph) == ()
    assert symbols(graph) == ["quantize_s8", "table_s8", "dequantize_s8"]
    x = np.linspace(-6, 6.7, 256, dtype=np.float32)[None]
    assert np.abs(run(graph, {"x": x})["y"] - onnx_outputs(whole, {"x": x})["y"]).max() < 1.01 * SCALES["t"]


def test_limits_before_the_first_quantization_are_on_integers():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        node("QuantizeLinear", "r,s,z", "q"),
        node("DequantizeLinear", "q,s,z", "y"),
    ]
    whole = model(nodes, {"x": (TensorProto.FLOAT, (1, 256))}, {"y": TensorProto.FLOAT}, **SCALES)
    graph = passes.optimize(importers.load(whole))
    assert symbols(graph) == ["quantize_s8", "table_s8", "dequantize_s8"]
    x = np.linspace(-6, 6.71, 256, dtype=np.float32)[None]
    np.testing.assert_allclose(run(graph, {"x": x})["y"], onnx_outputs(whole, {"x": x})["y"], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "shape", "weight"), [("MatMul", (4, 6), (6, 5)), ("Conv", (1, 2, 5, 6), (5, 2, 3, 3))]
)
def test_integer_products_are_layers(kind, shape, weight):
    nodes = [
        node("QuantizeLinear", "x,s,z", "q"),
        helper.make_node(f"{kind}Integer", ["q", "w", "z"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["whole", "both"], ["f"]),
        node("QuantizeLinear", "f,t,u", "g"),
        node("DequantizeLinear", "g,t,u", "y"),
    ]
    random = np.random.default_rng(2)
    integers = random.integers(-127, 128, weight).astype(np.int8)
    both = SCALES["s"] * np.float32(0.004)
    whole = model(nodes, {"x": (TensorProto.FLOAT, shape)}, {"y": TensorProto.FLOAT}, **SCALES, w=integers, both=both)
    graph = passes.optimize(importers.load(whole))
    assert passes.float_layers(graph) == ()
    assert not [symbol for symbol in symbols(graph)[1:-1] if "f32" in symbol]
    x = random.normal(size=shape).astype(np.float32)
    ours = run(graph, {graph.inputs[0]: entering(graph, x)})[graph.outputs[0]]
    theirs = onnx_outputs(whole, {"x": x})["y"]
    permutation = graph.port(graph.outputs[0]).permutation or tuple(range(theirs.ndim))
    assert np.abs(ours - theirs.transpose(permutation)).max() < 1.01 * SCALES["t"]


def test_what_has_no_static_scales_is_named_all_together():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["i"]),
        node("QuantizeLinear", "x,many,none", "blocks", axis=1, block_size=3),
        node("MatMulNBits", "x,w", "bits", K=6, N=5),
        helper.make_node("Concat", ["bits", "blocks", "i"], ["y"], axis=0),
    ]
    many = np.full((2, 2), 0.1, np.float32)
    whole = model(
        nodes,
        {"x": (TensorProto.FLOAT, (2, 6))},
        {"y": TensorProto.FLOAT},
        w=WEIGHTS,
        many=many,
        none=many.astype(np.uint8),
    )
    with pytest.raises(UnsupportedError) as error:
        importers.load(whole)
    for text in ("dynamic quantization", "per channel or block", "MatMulNBits"):
        assert text in str(error.value)


def test_integers_are_not_computed_with():
    nodes = [node("QuantizeLinear", "x,s,z", "q"), helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT)]
    whole = model(nodes, {"x": (TensorProto.FLOAT, (1, 4))}, {"y": TensorProto.FLOAT}, **SCALES)
    with pytest.raises(UnsupportedError, match="computes with the integers"):
        importers.load(whole)


def test_weight_only_quantization_is_a_float_model():
    nodes = [node("DequantizeLinear", "w,s,z", "r"), helper.make_node("MatMul", ["x", "r"], ["y"])]
    whole = model(nodes, {"x": (TensorProto.FLOAT, (2, 6))}, {"y": TensorProto.FLOAT}, **SCALES, w=WEIGHTS)
    graph = passes.optimize(importers.load(whole))
    assert not pipeline.is_quantized(graph)
    assert all(tensor.type.quant is None for tensor in graph.tensors.values())
    x = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
    np.testing.assert_allclose(run(graph, {"x": x})["y"], onnx_outputs(whole, {"x": x})["y"], rtol=1e-5, atol=1e-5)

"""TensorFlow Lite files as people have them: the same integers, whatever else the file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.conformance import flat, int8_linear
from tests.conformance.family import Draw
from tests.conformance.flat import Flat, Quant
from tests.importers import lite
from toolchain.errors import UnsupportedError
from toolchain.importers.tflite import load
from toolchain.ir.types import DType
from toolchain.passes import float_layers, optimize

if TYPE_CHECKING:
    from collections.abc import Callable

tf = pytest.importorskip("tensorflow", reason="needs tensorflow")


def made() -> bytes:
    """A convolution with scales per channel."""
    return int8_linear.conv(Draw("wild", 0))


def altered(change: Callable[[Any, Any], None]) -> bytes:
    """`made` after `change` of the model and of the schema's classes."""
    model = flat.changed(made())
    change(model, flat._schema())
    return flat.packed(model)


def tensors(model: Any) -> list[Any]:
    return model.subgraphs[0].tensors


def bias_along_axis_3(model: Any, _: Any) -> None:
    bias = next(t for t in tensors(model) if t.type == 2)
    assert len(bias.quantization.scale) > 1
    bias.quantization.quantizedDimension = 3


def bias_without_scales(model: Any, _: Any) -> None:
    next(t for t in tensors(model) if t.type == 2).quantization = None


def unused_tensors(model: Any, schema: Any) -> None:
    for kind, shape in (("STRING", [2]), ("COMPLEX64", [-1, 3]), ("RESOURCE", []), ("FLOAT32", [4])):
        extra = schema.TensorT()
        extra.name, extra.shape, extra.type = f"unused_{kind}", shape, getattr(schema.TensorType, kind)
        tensors(model).append(extra)
    zeros = schema.TensorT()
    zeros.name, zeros.shape, zeros.type, zeros.quantization = "unused", [2], 9, schema.QuantizationParametersT()
    zeros.quantization.scale, zeros.quantization.zeroPoint = [0.1, 0.2], [3, 4]
    tensors(model).append(zeros)


def more_subgraphs(model: Any, schema: Any) -> None:
    """A loop body that is never called, of an operator that has no C form; it even has the first signature."""
    body = schema.SubGraphT()
    body.tensors, body.inputs, body.outputs, body.name = [tensors(model)[0]], [0], [0], b"body"
    operator, code = schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode, code.customCode = schema.BuiltinOperator.CUSTOM, b"Unheard"
    operator.opcodeIndex, operator.inputs, operator.outputs = len(model.operatorCodes), [0], [0]
    model.operatorCodes.append(code)
    body.operators = [operator]
    model.subgraphs.append(body)
    model.signatureDefs = [signature(schema, 1, "other", "others"), signature(schema, 0, "image", "scores", model)]


def signature(schema: Any, subgraph: int, x: str, y: str, model: Any = None) -> Any:
    found = schema.SignatureDefT()
    found.signatureKey, found.subgraphIndex = f"key{subgraph}".encode(), subgraph
    ends = (0, 0) if model is None else (model.subgraphs[0].inputs[0], model.subgraphs[0].outputs[0])
    found.inputs, found.outputs = ([schema.TensorMapT()] for _ in range(2))
    for each, name, index in zip((found.inputs[0], found.outputs[0]), (x, y), ends, strict=True):
        each.name, each.tensorIndex = name.encode(), int(index)
    return found


def metadata(model: Any, schema: Any) -> None:
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(b"anything at all", np.uint8)
    entry.name, entry.buffer = b"TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata, model.metadataBuffer = [entry], [entry.buffer]
    model.description = "größe".encode()


@pytest.mark.parametrize(
    "change",
    [bias_along_axis_3, bias_without_scales, unused_tensors, more_subgraphs, metadata],
    ids=lambda f: f.__name__,
)
def test_integers_stay(change: Callable[[Any, Any], None], rng: np.random.Generator) -> None:
    reference = lite.Lite(made())
    values = reference.random(rng)
    graph = optimize(load(altered(change)))
    (found,) = lite.ours(graph, values)
    assert np.array_equal(found, reference.run(values)[0])
    assert not float_layers(graph)


def test_the_first_subgraphs_signature_names_the_ports() -> None:
    graph = load(altered(more_subgraphs))
    assert [graph.port(name).name for name in (*graph.inputs, *graph.outputs)] == ["image", "scores"]


def test_half_precision_weights(rng: np.random.Generator) -> None:
    weights = rng.normal(0, 0.4, (300, 40)).astype(np.float32)
    converter = lite.converter(lambda x: tf.nn.relu(tf.matmul(x, weights)), [(1, 300)])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    content = lite.convert(converter)
    assert len(content) < weights.nbytes
    reference = lite.Lite(content)
    x = reference.random(rng)
    (expected,) = reference.run(x)
    assert np.abs(lite.ours(load(content), x)[0] - expected).max() <= 1e-5 * np.ptp(expected)


def hybrid(kind: str, rng: np.random.Generator) -> bytes:
    """A float layer with int8 weights per channel, as dynamic-range quantization writes them."""
    model, outputs = Flat(), 6
    scales = tuple(float(np.float32(s)) for s in rng.uniform(0.001, 0.01, outputs))
    shape, axis = ((1, 3, 3, outputs), 3) if kind == "DEPTHWISE_CONV_2D" else ((outputs, 3, 3, 6), 0)
    shape = (outputs, 40) if kind == "FULLY_CONNECTED" else shape
    x = model.input((2, 40) if kind == "FULLY_CONNECTED" else (1, 8, 8, 6), None, "FLOAT32")
    w = model.constant(rng.integers(-127, 128, shape).astype(np.int8), Quant(scales, 0, axis), "INT8")
    b = model.constant(rng.normal(size=outputs).astype(np.float32))
    y = model.tensor([], None, "FLOAT32")
    if kind == "FULLY_CONNECTED":
        model.operator(kind, [x, w, b], [y], "FullyConnectedOptions", asymmetricQuantizeInputs=True)
    elif kind == "CONV_2D":
        model.operator(kind, [x, w, b], [y], "Conv2DOptions", strideW=1, strideH=1)
    else:
        fields = {"strideW": 1, "strideH": 1, "depthMultiplier": 1}
        model.operator(kind, [x, w, b], [y], "DepthwiseConv2DOptions", **fields)
    return model.content(y)


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_dynamic_range_layers_are_float(kind: str, rng: np.random.Generator) -> None:
    """LiteRT quantizes their inputs run by run; here they stay real, so the outputs are a little better."""
    content = hybrid(kind, rng)
    graph = load(content)
    assert {graph.tensors[name].type.dtype for name in (*graph.inputs, *graph.outputs)} == {DType.FLOAT32}
    reference = lite.Lite(content)
    x = reference.random(rng)
    (expected,) = reference.run(x)
    assert np.abs(lite.ours(graph, x)[0] - expected).max() <= 0.02 * np.ptp(expected)


def test_uint8_cast_is_refused() -> None:
    model = Flat()
    x, y = model.input((1, 4), Quant(0.1, 3), "UINT8"), model.tensor([], None, "INT32")
    model.operator("CAST", [x], [y], "CastOptions")
    with pytest.raises(UnsupportedError, match="CAST"):
        load(model.content(y))

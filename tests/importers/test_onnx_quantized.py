"""Quantized ONNX: whole nets against onnxruntime, layer by layer, and the integers the C computes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime import quantization

from tests.importers.quantized_nets import FORMATS, NETS, Reader, nn, quantized, samples
from tests.importers.running import entering, onnx_outputs, symbols
from toolchain import importers, passes, pipeline
from toolchain.config import Options
from toolchain.interpret import evaluate, run
from toolchain.ir.types import DType

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph, Node

UNQUANTIZED = {"signal": "/up/ConvTranspose"}
"""What onnxruntime has no quantized operator for."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quantized")


def every_tensor(model: onnx.ModelProto, feeds: dict[str, np.ndarray], form: str) -> dict[str, np.ndarray]:
    """All 8-bit tensors and the outputs, as onnxruntime computes them."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    signed = FORMATS[form].get("activation_type") is quantization.QuantType.QInt8
    kind = TensorProto.INT8 if signed else TensorProto.UINT8
    names = [node.output[0] for node in model.graph.node if node.op_type.startswith("Q")]
    whole.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name in names)
    return onnx_outputs(whole, feeds)


def stored(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """onnxruntime's tensor as the graph stores it: int8, perhaps channels last."""
    array = (array.astype(np.int16) - 128).astype(np.int8) if array.dtype == np.uint8 else array
    last = (0, *range(2, array.ndim), 1)
    return array if array.shape == shape else array.transpose(last) if array.transpose(last).shape == shape else None


def compared(graph: Graph, x: np.ndarray, theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """Per layer the largest difference in steps for each requantization since a tensor of onnxruntime's."""
    values = {name: tensor.data for name, tensor in graph.tensors.items() if tensor.data is not None}
    values[graph.inputs[0]] = entering(graph, x)
    found: dict[str, float] = {}
    requantized = dict.fromkeys(values, 0)
    for node in graph.nodes:
        rounds = max(requantized[name] for name in node.inputs) + computes(node)
        requantized |= dict.fromkeys(node.outputs, rounds)
        values |= zip(node.outputs, evaluate(graph, node, values, Options("x").rounding), strict=True)
        for name in node.outputs:
            kind, theirs_name = graph.tensors[name].type, name.partition(".first")[0]
            known = kind.dtype is DType.INT8 and theirs_name in theirs and computes(node)
            if known and (wanted := stored(theirs[theirs_name], kind.shape)) is not None:
                found[name] = float(np.abs(values[name].astype(int) - wanted).max()) / rounds
                values[name], requantized[name] = wanted, 0
    return found


COMPUTING = {
    "AvgPool", "Binary", "Conv", "ConvTranspose", "Dense", "Lookup", "Reduce", "Softmax", "Unary",
}  # fmt: skip


def computes(node: Node) -> bool:
    """Whether a layer makes new values; flattened ones may be in another order than onnxruntime's."""
    return type(node.op).__name__ in COMPUTING


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", NETS)
def test_layers_equal_onnxruntime(name, form, folder):
    path = quantized(name, form, folder)
    graph = passes.optimize(importers.load(path))
    reasons = [(UNQUANTIZED[name], "the model does not quantize its weights to int8")] if name in UNQUANTIZED else []
    if form.startswith("qdq"):
        reasons = []
    assert list(passes.float_layers(graph)) == reasons
    first, *middle, last = symbols(graph)
    assert (first, last) == ("quantize_s8", "dequantize_s8")
    assert reasons or not [symbol for symbol in middle if "f32" in symbol or "quantize" in symbol]
    x = samples(2)
    theirs = every_tensor(onnx.load(path), {"x": x}, form)
    steps = compared(graph, x, theirs)
    made = {node.outputs[0] for node in graph.nodes if computes(node)}
    assert {name for name in made if ".first" not in name and graph.tensors[name].type.dtype is DType.INT8} <= set(
        steps
    )
    assert max(steps.values()) <= 1, steps
    ours = run(graph, {graph.inputs[0]: entering(graph, x)})[graph.outputs[0]]
    assert np.mean(ours.argmax(1) == theirs["y"].argmax(1)) >= 0.99


SLOW_FORMATS = {"qdq_channels", "qdq_signed", "operators", "operators_channels"}


def integer_calls(folder: Path, name: str) -> set[str]:
    """What the layers call outside the C, compiled for a core without a floating-point unit."""
    flags = ["-mcpu=cortex-m3", "-mthumb", "-Os", "-std=c99", "-ffunction-sections"]
    subprocess.run(["arm-none-eabi-gcc", *flags, "-c", f"{name}.c", "-o", "layers.o"], cwd=folder, check=True)
    command = ["arm-none-eabi-objdump", "-r", "layers.o"]
    dump = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    sections = dump.split("RELOCATION RECORDS FOR [")[1:]
    layers = [text for text in sections if not re.match(rf"\.text\.{name}_(de)?quantize_", text)]
    assert any(text.startswith(f".text.{name}_run]") for text in layers)
    return set(re.findall(r"R_ARM_THM_\w+ +(\w+)", "\n".join(layers)))


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="needs arm-none-eabi-gcc")
@pytest.mark.parametrize("form", [pytest.param(f, marks=[pytest.mark.slow] * (f in SLOW_FORMATS)) for f in FORMATS])
@pytest.mark.parametrize("name", NETS)
def test_the_c_computes_nothing_in_float(name, form, folder, tmp_path):
    path, out = quantized(name, form, folder), tmp_path / "out"
    pipeline.export(path, out, name="net", quantize="int8", io="int8", verify=False)
    floats = [call for call in integer_calls(out, "net") if re.match(r"__aeabi_\w*[fd]|\w*f$", call)]
    assert bool(floats) == (name in UNQUANTIZED and form.startswith("operators")), floats


def test_weights_of_each_channel_have_their_scale(folder):
    graph = passes.optimize(importers.load(quantized("depthwise", "qdq_channels", folder)))
    convolutions = [node for node in graph.nodes if type(node.op).__name__ == "Conv"]
    weights = [graph.tensors[node.inputs[1]].type for node in convolutions]
    assert [(w.dtype, w.quant.axis, w.quant.zero_point, len(w.quant.scale)) for w in weights] == [
        (DType.INT8, 0, 0, w.shape[0]) for w in weights
    ]
    assert {graph.tensors[node.inputs[2]].type.dtype for node in convolutions} == {DType.INT32}


def test_weights_with_a_zero_point_have_nine_bits(folder):
    graph = passes.optimize(importers.load(quantized("depthwise", "qdq_asymmetric", folder)))
    weights = [graph.tensors[node.inputs[1]] for node in graph.nodes if type(node.op).__name__ in {"Conv", "Dense"}]
    assert DType.INT16 in {weight.type.dtype for weight in weights}
    assert all(np.ptp(weight.data) <= 255 and weight.type.quant.zero_point == 0 for weight in weights)


def test_activations_of_16_bits_are_rounded_but_computed_in_float(folder):
    path = folder / "wide.onnx"
    quantized("plain", "qdq", folder)
    kind = quantization.QuantType
    quantization.quantize_static(
        str(folder / "plain.onnx"), str(path), Reader("x", samples(1)), activation_type=kind.QUInt16,
        weight_type=kind.QInt8,
    )  # fmt: skip
    graph = passes.optimize(importers.load(path))
    assert {"quantize_s16", "dequantize_s16"} <= set(symbols(graph))
    reasons = [reason for _, reason in passes.float_layers(graph)]
    assert [reason for reason in reasons if "int16 activations" in reason] == reasons != []
    x = samples(2)
    ours = run(graph, {graph.inputs[0]: entering(graph, x)})[graph.outputs[0]]
    np.testing.assert_allclose(ours, onnx_outputs(onnx.load(path), {"x": x})["y"], atol=0.01)


@pytest.mark.parametrize("name", ["depthwise", "residual", "gated"])
def test_symmetric_activations_of_16_bits_are_computed_in_integers(name, folder, tmp_path):
    path = folder / f"{name}_int16.onnx"
    quantized(name, "qdq", folder)
    kind = quantization.QuantType
    quantization.quantize_static(
        str(folder / f"{name}.onnx"), str(path), Reader("x", samples(1)), activation_type=kind.QInt16,
        weight_type=kind.QInt8, extra_options={"ActivationSymmetric": True},
    )  # fmt: skip
    graph = passes.optimize(importers.load(path))
    assert passes.float_layers(graph) == ()
    assert not [symbol for symbol in symbols(graph)[1:-1] if not symbol.endswith("_s16")]
    x = samples(2)
    ours = run(graph, {graph.inputs[0]: entering(graph, x)})[graph.outputs[0]]
    theirs = onnx_outputs(onnx.load(path), {"x": x})["y"]
    last = graph.producers()[graph.outputs[0]].inputs[0]
    assert np.abs(ours - theirs).max() <= 8 * graph.tensors[last].type.quant.scale[0]
    result = pipeline.export(path, tmp_path / "out", name="net", io="int16")
    assert {row["passed"] for row in result.parity["parity"]} == {True}


@pytest.mark.parametrize("io", [None, "int8"])
def test_export_needs_no_calibration(io, folder, tmp_path):
    path = quantized("residual", "qdq_channels", folder)
    result = pipeline.export(path, tmp_path / "out", name="net", quantize="int8", io=io, rounding="single")
    kind = DType.INT8 if io else DType.FLOAT32
    assert {result.graph.tensors[name].type.dtype for name in (*result.graph.inputs, *result.graph.outputs)} == {kind}
    assert result.manifest["quantization"]["method"] == "the model's own"
    assert {row["passed"] for row in result.parity["parity"]} == {True}


class FakeQuantized(nn.Module):
    """What quantization-aware training leaves: fake quantization of activations and weights, a float bias."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.deep = nn.Conv2d(6, 6, 3, groups=6)
        for number, layer in enumerate((self.conv, self.deep)):
            self.register_buffer(f"scales{number}", layer.weight.detach().abs().amax((1, 2, 3)) / 127)
        self.register_buffer("zeros", torch.zeros(6, dtype=torch.int32))

    def weights(self, layer, scales):
        return torch.fake_quantize_per_channel_affine(layer.weight, scales, self.zeros, 0, -128, 127)

    def forward(self, x):
        def fake(x, scale, zero):
            return torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)

        conv = nn.functional.conv2d
        x = conv(fake(x, 0.03, 3), self.weights(self.conv, self.scales0), self.conv.bias, padding=1)
        x = fake(torch.relu(self.norm(x)), 0.01, -128)
        x = conv(x, self.weights(self.deep, self.scales1), self.deep.bias, groups=6)
        return fake(x.flatten(1), 0.01, 5)


def test_quantization_aware_training_keeps_its_integers():
    torch.manual_seed(0)
    net, x = FakeQuantized().eval(), torch.from_numpy(samples(2)[:1])
    graph = passes.optimize(importers.load(net, example_inputs=(x,)))
    assert passes.float_layers(graph) == ()
    first, *middle, last = symbols(graph)
    assert (first, last) == ("quantize_s8", "dequantize_s8")
    assert [symbol.partition("_")[0].removesuffix("3x3") for symbol in middle] == ["conv", "depthwise", "copy"]
    ours = run(graph, {graph.inputs[0]: entering(graph, x.numpy())})[graph.outputs[0]]
    assert np.abs(ours - net(x).detach().numpy()).max() <= 0.0201

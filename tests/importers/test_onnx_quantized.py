"""Quantized ONNX against onnxruntime, layer by layer; what stays float and why."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")
quantization = pytest.importorskip("onnxruntime.quantization")

from tests.importers.running import onnx_outputs  # noqa: E402
from toolchain import importers, lower, passes, pipeline  # noqa: E402
from toolchain.config import Options  # noqa: E402
from toolchain.errors import UnsupportedError  # noqa: E402
from toolchain.interpret import evaluate, run  # noqa: E402
from toolchain.ir.types import DType  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolchain.ir.graph import Graph, Node

nn = torch.nn
torch.set_num_threads(1)  # nets this small only wait for each other's threads
BATCH = 100
CLASSES = 7
LABELS = np.arange(BATCH) % CLASSES


class Residual(nn.Module):
    """Branches of different scales are added and joined."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.wide = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(44, CLASSES)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.cat([torch.relu(self.deep(x) + x), self.wide(x)], 1)
        return self.head(nn.functional.avg_pool2d(x, 2).mean(3).flatten(1))


class Gated(nn.Module):
    """Functions by table, products of activations."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 24)
        self.gate = nn.Linear(24, 24)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x):
        x = nn.functional.leaky_relu(self.first(x.flatten(1)))
        return self.head(x * torch.sigmoid(self.gate(x)))


class Signal(nn.Module):
    """One spatial axis; moves between the layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(8, 12, 3, padding=1)
        self.up = nn.ConvTranspose1d(12, 5, 2, stride=2)
        self.head = nn.Linear(35, CLASSES)

    def forward(self, x):
        x = nn.functional.max_pool1d(torch.relu(self.first(x.squeeze(1))), 2)
        x = self.up(x)[:, :, 1:]
        return self.head(x.flatten(1))


def plain():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 10, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(40, CLASSES),
    )


def depthwise():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        nn.ReLU6(),
        nn.Conv2d(6, 12, 3, padding=1, groups=6),
        nn.ReLU6(),
        nn.Conv2d(12, 10, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, CLASSES),
    )


def up():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.ZeroPad2d(1),
        nn.Conv2d(6, 4, 3),
        nn.Hardtanh(-1.0, 2.0),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(36, CLASSES),
    )


NETS: dict[str, Callable[[], Any]] = {
    "plain": plain,
    "depthwise": depthwise,
    "up": up,
    "residual": Residual,
    "gated": Gated,
    "signal": Signal,
}
FORMATS: dict[str, dict[str, Any]] = {
    "qdq": {"activation_type": quantization.QuantType.QUInt8},
    "qdq_channels": {"activation_type": quantization.QuantType.QInt8, "per_channel": True},
    "qdq_signed": {"activation_type": quantization.QuantType.QInt8},
    "qdq_asymmetric": {
        "activation_type": quantization.QuantType.QUInt8,
        "weight_type": quantization.QuantType.QUInt8,
    },
    # On x86 without VNNI onnxruntime's unsigned kernels saturate in 16 bits unless the weights have 7.
    "operators": {
        "quant_format": quantization.QuantFormat.QOperator,
        "activation_type": quantization.QuantType.QUInt8,
        "reduce_range": True,
    },
    "operators_channels": {
        "quant_format": quantization.QuantFormat.QOperator,
        "activation_type": quantization.QuantType.QInt8,
        "per_channel": True,
    },
}


UNQUANTIZED = {"signal": "/up/ConvTranspose"}
"""What onnxruntime has no quantized operator for."""


class Reader(quantization.CalibrationDataReader):
    """Hands one batch to the calibration."""

    def __init__(self, name: str, batch: np.ndarray) -> None:
        self.batches = iter([{name: batch}])

    def get_next(self):
        return next(self.batches, None)


def samples(seed: int) -> np.ndarray:
    """Pictures with one bright stripe, brighter from class to class."""
    x = np.random.default_rng(seed).normal(size=(BATCH, 1, 8, 8)) * 0.3
    x[np.arange(BATCH), 0, LABELS] += 1.5
    return (x + LABELS.reshape(-1, 1, 1, 1) * 0.5 - 1.5).astype(np.float32)


@functools.cache
def trained(name: str) -> Any:
    """The net, fitted to the stripes: random nets often leave two classes equal."""
    torch.manual_seed(3)
    net = NETS[name]()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    x, y = torch.from_numpy(samples(1)), torch.from_numpy(LABELS)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quantized")


def exported(net: Any, path: Any, x: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), str(path), dynamo=False, input_names=["x"], output_names=["y"])
    return path


def quantized(name: str, form: str, folder: Any) -> Any:
    """The path of a quantized net."""
    source = folder / f"{name}.onnx"
    if not source.exists():
        exported(trained(name), source, torch.from_numpy(samples(0)))
        quantization.shape_inference.quant_pre_process(str(source), str(source))
    target = folder / f"{name}_{form}.onnx"
    quantization.quantize_static(str(source), str(target), Reader("x", samples(1)), **FORMATS[form])
    return target


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


def entering(graph: Graph, x: np.ndarray) -> np.ndarray:
    permutation = graph.port(graph.inputs[0]).permutation
    return x if permutation is None else x.transpose(permutation)


def symbols(graph: Graph) -> list[str]:
    return [step.kernel.symbol for step in lower.lower(graph, Options("net")).steps]


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
    assert all(graph.tensors[node.inputs[2]].type.dtype is DType.INT32 for node in convolutions)


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
    assert all("int16 activations" in reason for _, reason in passes.float_layers(graph))
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
    assert all(row["passed"] for row in result.parity["parity"])


@pytest.mark.parametrize("io", [None, "int8"])
def test_export_needs_no_calibration(io, folder, tmp_path):
    path = quantized("residual", "qdq_channels", folder)
    result = pipeline.export(path, tmp_path / "out", name="net", quantize="int8", io=io, rounding="single")
    kind = DType.INT8 if io else DType.FLOAT32
    assert {result.graph.tensors[name].type.dtype for name in (*result.graph.inputs, *result.graph.outputs)} == {kind}
    assert result.manifest["quantization"]["method"] == "the model's own"
    assert all(row["passed"] for row in result.parity["parity"])


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

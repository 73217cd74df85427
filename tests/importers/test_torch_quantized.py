"""Networks that PyTorch quantized arrive as integers, with PyTorch's own numbers."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from tests.importers.running import entering, symbols  # noqa: E402
from toolchain import importers, passes, pipeline  # noqa: E402
from toolchain.errors import InputError  # noqa: E402
from toolchain.interpret import run  # noqa: E402
from toolchain.ir.types import DType  # noqa: E402

nn = torch.nn


class Net(nn.Module):
    """Convolutions plain and depthwise, a residual sum, a function without a layer of its own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6), nn.ReLU6())
        self.head = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 12), nn.SiLU(), nn.Linear(12, 5))

    def forward(self, x):
        x = self.first(x)
        return self.head(self.deep(x) + x)


def samples():
    return torch.from_numpy(np.random.default_rng(4).normal(size=(32, 1, 8, 8)).astype(np.float32))


def net():
    torch.manual_seed(1)
    return Net()


def steps_apart(graph, quantized, x):
    """How far the graph is from PyTorch, in steps of the last quantization."""
    with torch.no_grad():
        wanted = quantized(x).numpy()
    found = run(graph, {graph.inputs[0]: entering(graph, x.numpy())})[graph.outputs[0]]
    (last,) = [node for node in graph.nodes if node.outputs[0] == graph.outputs[0]]
    return np.abs(found - wanted).max() / graph.tensors[last.inputs[0]].type.quant.scale[0]


def assert_integers(graph):
    assert passes.float_layers(graph) == ()
    first, *middle, last = symbols(graph)
    assert (first, last) == ("quantize_s8", "dequantize_s8")
    assert not [symbol for symbol in middle if "f32" in symbol or "quantize" in symbol]


def pt2e(*, per_channel: bool, training: bool):
    """What torchao's prepare and convert leave."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torchao")
        from torchao.quantization.pt2e import quantize_pt2e
        from torchao.testing.pt2e import _xnnpack_quantizer as xnnpack
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=per_channel, is_qat=training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, x = net() if training else net().eval(), samples()
        program = torch.export.export(model, (x,)).module()
        prepare = quantize_pt2e.prepare_qat_pt2e if training else quantize_pt2e.prepare_pt2e
        prepared = prepare(program, xnnpack.XNNPACKQuantizer().set_global(config))
        prepared(x)
        return quantize_pt2e.convert_pt2e(prepared), x


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("per_channel", "training"),
    [(True, False), pytest.param(False, False, marks=slow), pytest.param(True, True, marks=slow)],
)
def test_pt2e_arrives_with_its_numbers(per_channel, training, tmp_path):
    model, x = pt2e(per_channel=per_channel, training=training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (x,))
    graph = passes.optimize(importers.load(program))
    assert_integers(graph)
    scales = [t.type.quant.scale for t in graph.tensors.values() if t.data is not None and t.type.dtype is DType.INT8]
    assert {len(scale) for scale in scales} == ({5, 6, 12} if per_channel else {1})
    assert steps_apart(graph, model, x) <= 4
    if per_channel and not training:
        live = passes.optimize(importers.load(model, example_inputs=(x,)))
        assert [node.op for node in live.nodes] == [node.op for node in graph.nodes]
        result = pipeline.export(program, tmp_path / "net", name="net", quantize="int8", io="int8")
        assert result.manifest["quantization"]["method"] == "the model's own"


def trained(backend: str, *, fx: bool):
    """What quantization-aware training by torch.ao leaves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao import quantization
        from torch.ao.quantization.quantize_fx import prepare_qat_fx
    x = samples()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if fx:
            model = prepare_qat_fx(net().train(), quantization.get_default_qat_qconfig_mapping(backend), (x,))
        else:
            model = quantization.QuantWrapper(nn.Sequential(*net().first, nn.Flatten(), nn.Linear(384, 5)))
            quantization.fuse_modules_qat(model, [["module.0", "module.1", "module.2"]], inplace=True)
            model.qconfig = quantization.get_default_qat_qconfig(backend)
            quantization.prepare_qat(model, inplace=True)
        for _ in range(3):
            model(x)
        return model.eval().apply(quantization.disable_observer), x


@pytest.mark.parametrize(
    ("backend", "fx"),
    [pytest.param("qnnpack", False, marks=slow), pytest.param("qnnpack", True, marks=slow), ("fbgemm", True)],
)
def test_quantization_aware_training_arrives_with_its_numbers(backend, fx):
    model, x = trained(backend, fx=fx)
    names = [type(module).__name__ for module in model.modules()]
    graph = passes.optimize(importers.load(model, example_inputs=(x,)))
    assert [type(module).__name__ for module in model.modules()] == names
    assert_integers(graph)
    assert steps_apart(graph, model, x) <= 4


@slow
def test_what_convert_fx_leaves():
    model, x = trained("qnnpack", fx=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization.quantize_fx import convert_fx

        converted = convert_fx(copy.deepcopy(model))
    with pytest.raises(InputError, match="as it was before convert"):
        importers.load(converted, example_inputs=(x,))

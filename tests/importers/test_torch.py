"""PyTorch modules against PyTorch, and the weights by their names."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from tests.importers.running import outputs  # noqa: E402
from toolchain.errors import InputError  # noqa: E402
from toolchain.importers import load  # noqa: E402
from toolchain.importers.weights import extract_weights  # noqa: E402

nn = torch.nn


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)) + x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        return torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1) @ v


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 4 * 4, 3)
    )


NETS = {
    "cnn": (small_cnn, (1, 1, 16, 16)),
    "residual": (Residual, (1, 4, 6, 5)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3, dilation=2), nn.SiLU(), nn.AvgPool1d(2)), (1, 3, 20)),
    "attention": (Attention, (1, 5, 8)),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), nn.GELU()),
        (1, 3, 5, 4),
    ),
    "norms": (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.PReLU(4)), (1, 4, 5, 6)),
    "upsample": (lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Hardswish()), (1, 2, 4, 5)),
    "pooling": (lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (1, 4, 9, 9)),
    "shuffle": (lambda: nn.Sequential(nn.PixelShuffle(2), nn.LogSoftmax(1)), (1, 8, 3, 4)),
}


@pytest.mark.parametrize("name", NETS)
def test_net_equals_torch(name, capfd):
    make, shape = NETS[name]
    torch.manual_seed(0)
    model = make().eval()
    x = torch.randn(shape)
    graph = load(model, example_inputs=(x,))
    assert capfd.readouterr() == ("", "")
    found = outputs(graph, {graph.port(graph.inputs[0]).name: x.numpy()})
    np.testing.assert_allclose(next(iter(found.values())), model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_pt2_and_names(tmp_path):
    torch.manual_seed(0)
    model, x = small_cnn().eval(), torch.randn(1, 1, 16, 16)
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(model, (x,)), path)
    graph = load(path)
    assert {"0.bias", "0.weight", "4.weight", "4.bias"} <= set(graph.tensors)
    assert list(extract_weights(path)) == list(dict(model.named_parameters()))


def test_module_keeps_its_mode():
    model = small_cnn().train()
    load(model, input_shape=(("", (1, 1, 16, 16)),))
    assert model.training


def test_module_without_shape():
    with pytest.raises(InputError, match="example_inputs"):
        load(small_cnn())


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(small_cnn(), path)
    with pytest.raises(InputError, match=r"(?s)refused.*torch\.export\.export.*torch\.export\.save"):
        load(path)
    with pytest.raises(InputError, match="state_dict"):
        extract_weights(path)


def test_foreign_pt2(tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(b"no archive at all")
    with pytest.raises(InputError, match=r"net\.pt2"):
        load(path)


def test_weights_of_module_and_state_dict(tmp_path):
    model = Residual()
    weights = extract_weights(model)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert weights.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(weights[name], value)
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    assert list(extract_weights(path)) == list(state)

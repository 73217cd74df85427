"""A depthwise net trained on real digits keeps its accuracy on int8 with one scale per tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolchain
from toolchain.verify.accuracy import percent_right

pytestmark = pytest.mark.slow


def digits() -> tuple[np.ndarray, np.ndarray]:
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn")
    found = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return (found.images[order, None] / 16).astype(np.float32), found.target[order]


def trained(x: np.ndarray, y: np.ndarray) -> Any:
    """Three depthwise-separable blocks with ReLU6 and batch normalisation, a minute's training."""
    torch = pytest.importorskip("torch", reason="needs torch")
    nn = torch.nn
    torch.manual_seed(0)

    def block(inputs: int, outputs: int, stride: int) -> list[Any]:
        depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        return [
            *(depthwise, nn.BatchNorm2d(inputs), nn.ReLU6()),
            *(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6()),
        ]

    stem = [nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    blocks = [*block(16, 24, 1), *block(24, 32, 2), *block(32, 48, 1)]
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(7):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
    return net.eval()


def rescaled(net: Any) -> None:
    """Each channel of each batch normalisation a different size: depthwise weights undo it; ReLU6 becomes ReLU."""
    torch = pytest.importorskip("torch")
    layers = list(net)
    generator = torch.Generator().manual_seed(1)
    for index, layer in enumerate(layers):
        following = layers[index + 2] if index + 2 < len(layers) else None
        if isinstance(layer, torch.nn.BatchNorm2d) and isinstance(following, torch.nn.Conv2d):
            factor = 10 ** (4 * torch.rand(layer.num_features, generator=generator) - 2)
            with torch.no_grad():
                layer.weight *= factor
                layer.bias *= factor
                depthwise = following.groups > 1
                following.weight /= factor.view(-1, 1, 1, 1) if depthwise else factor.view(1, -1, 1, 1)


def test_digits(tmp_path: Path) -> None:
    """At most one point is lost, also when channels lie four decades apart."""
    torch = pytest.importorskip("torch", reason="needs torch")
    x, y = digits()
    net = trained(x[:1297], y[:1297])
    options = {"quantize": "int8", "calibration": x[:200], "eval": {"x": x[1297:], "y": y[1297:]}}
    example = (torch.from_numpy(x[:1]),)
    plain = toolchain.export(net, tmp_path / "plain", name="digits", example_inputs=example, **options)
    accuracy = plain.parity["accuracy"]
    assert accuracy["model"] >= 95
    assert accuracy["python"] == accuracy["c"] >= accuracy["model"] - 1
    whole = torch.nn.Sequential(*(torch.nn.ReLU() if isinstance(k, torch.nn.ReLU6) else k for k in net)).eval()
    before = percent_right(whole(torch.from_numpy(x[1297:])).detach().numpy(), y[1297:], "digits")
    rescaled(whole)
    result = toolchain.export(whole, tmp_path / "rescaled", name="digits", example_inputs=example, **options)
    assert result.parity["accuracy"]["model"] == pytest.approx(before, abs=0.3)
    assert result.parity["accuracy"]["c"] >= before - 1

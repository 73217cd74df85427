"""Small nets that onnxruntime quantizes, in every form it writes."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnxruntime import quantization

if TYPE_CHECKING:
    from collections.abc import Callable

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

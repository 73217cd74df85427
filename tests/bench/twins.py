"""The MLPerf Tiny architectures with seeded weights, for machines that do not have the trained files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx

import toolchain
from tests.golden.models import Net

CALIBRATION = 8
"""Samples of noise the ranges are taken from: the cost of a run does not depend on them."""


class Twin(Net):
    """Layers as the benchmark's networks repeat them; NCHW, as ONNX has it. Padding is SAME of TensorFlow."""

    def relu(self, x: str) -> str:
        return self.node("Relu", [x], f"{x}_relu")

    def layer(self, x: str, name: str, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, **more):
        weight = self.weight(f"{name}.weight", outputs, inputs // more.get("group", 1), *kernel)
        ends = [x, weight, self.weight(f"{name}.bias", outputs)]
        return self.node("Conv", ends, name, strides=[stride, stride], auto_pad="SAME_UPPER", **more)

    def separable(self, x: str, name: str, inputs: int, outputs: int, stride: int = 1) -> str:
        x = self.relu(self.layer(x, f"{name}_depthwise", inputs, inputs, (3, 3), stride, group=inputs))
        return self.relu(self.layer(x, f"{name}_pointwise", inputs, outputs, (1, 1)))

    def classifier(self, x: str, channels: int, classes: int) -> str:
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x], "average")], "flat")
        return self.node("Softmax", [self.gemm(x, "dense", channels, classes)], "scores", axis=1)


def ad() -> onnx.ModelProto:
    """Anomaly detection: an autoencoder of fully connected layers, 640 -> 8 -> 640."""
    net = Twin(11)
    sizes = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)
    x = "x"
    for at, (inputs, outputs) in enumerate(pairwise(sizes)):
        x = net.relu(net.gemm(x, f"dense{at}", inputs, outputs))
    return net.model([1, 640], [1, 640], net.gemm(x, "restored", 128, 640))


def kws() -> onnx.ModelProto:
    """Keyword spotting: DS-CNN on 49 x 10 coefficients."""
    net = Twin(12)
    x = net.relu(net.layer("x", "stem", 1, 64, (10, 4), 2))
    for block in range(4):
        x = net.separable(x, f"block{block}", 64, 64)
    return net.model([1, 1, 49, 10], [1, 12], net.classifier(x, 64, 12))


def ic() -> onnx.ModelProto:
    """Image classification: ResNet-8 on 32 x 32 pictures."""
    net = Twin(13)
    x = net.relu(net.layer("x", "stem", 3, 16, (3, 3)))
    inputs = 16
    for stage, outputs in enumerate((16, 32, 64)):
        stride = 1 if stage == 0 else 2
        y = net.relu(net.layer(x, f"first{stage}", inputs, outputs, (3, 3), stride))
        y = net.layer(y, f"second{stage}", outputs, outputs, (3, 3))
        shortcut = x if stage == 0 else net.layer(x, f"shortcut{stage}", inputs, outputs, (1, 1), stride)
        x, inputs = net.relu(net.node("Add", [shortcut, y], f"sum{stage}")), outputs
    return net.model([1, 3, 32, 32], [1, 10], net.classifier(x, 64, 10))


def vww() -> onnx.ModelProto:
    """Visual wake words: MobileNetV1 of a quarter of the width on 96 x 96 pictures."""
    net = Twin(14)
    x = net.relu(net.layer("x", "stem", 3, 8, (3, 3), 2))
    plan = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))
    inputs = 8
    for block, (outputs, stride) in enumerate(plan):
        x, inputs = net.separable(x, f"block{block}", inputs, outputs, stride), outputs
    return net.model([1, 3, 96, 96], [1, 2], net.classifier(x, 256, 2))


TWINS: dict[str, Callable[[], onnx.ModelProto]] = {"ad": ad, "kws": kws, "ic": ic, "vww": vww}


def export_twin(name: str, out: Path) -> toolchain.pipeline.Result:
    """Quantize a twin to int8 per channel, inputs and outputs included, and export it."""
    model = TWINS[name]()
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    samples = np.random.default_rng(1).normal(size=(CALIBRATION, *shape[1:])).astype(np.float32)
    return toolchain.export(
        model, out, name=name, quantize="int8", per_channel=True, io="int8", calibration=samples, verify=False
    )

"""Three small ONNX networks with seeded weights, as their makers would have written them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """Collects nodes and initializers, names layers after what they do."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        scale = 1.0 / np.sqrt(max(1, np.prod(shape[1:])))
        values = self.rng.normal(0.0, scale, shape).astype(np.float32)
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x: str, name: str, inputs: int, outputs: int, kernel: int, **attributes) -> str:
        weight = self.weight(f"{name}.weight", outputs, inputs // attributes.get("group", 1), kernel, kernel)
        return self.node("Conv", [x, weight, self.weight(f"{name}.bias", outputs)], name, **attributes)

    def gemm(self, x: str, name: str, inputs: int, outputs: int) -> str:
        weight = self.weight(f"{name}.weight", outputs, inputs)
        return self.node("Gemm", [x, weight, self.weight(f"{name}.bias", outputs)], name, transB=1)

    def model(self, shape: list[int], outputs: list[int], last: str) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        result = [helper.make_tensor_value_info(last, TensorProto.FLOAT, outputs)]
        graph = helper.make_graph(self.nodes, "net", ends, result, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mlp() -> onnx.ModelProto:
    """Two fully connected layers and a softmax."""
    net = Net(1)
    x = net.node("Relu", [net.gemm("x", "fc1", 6, 8)], "relu")
    return net.model([1, 6], [1, 3], net.node("Softmax", [net.gemm(x, "fc2", 8, 3)], "probabilities", axis=1))


def separable() -> onnx.ModelProto:
    """Convolution, depthwise, pointwise, pooling, dense: what a keyword spotter is made of."""
    net = Net(2)
    x = net.node("Relu", [net.conv("x", "stem", 2, 8, 3, pads=[1, 1, 1, 1], strides=[2, 2])], "stem_relu")
    x = net.node("Relu", [net.conv(x, "depthwise", 8, 8, 3, pads=[1, 1, 1, 1], group=8)], "depthwise_relu")
    x = net.node("Clip", [net.conv(x, "pointwise", 8, 12, 1), *clip_bounds(net)], "relu6")
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "pool")], "flat")
    return net.model([1, 2, 10, 8], [1, 4], net.gemm(x, "head", 12, 4))


def clip_bounds(net: Net) -> list[str]:
    net.initializers += [numpy_helper.from_array(np.float32(v), n) for n, v in (("zero", 0.0), ("six", 6.0))]
    return ["zero", "six"]


def residual() -> onnx.ModelProto:
    """A residual block with a smooth activation and a concatenation."""
    net = Net(3)
    first = net.node("Relu", [net.conv("x", "conv1", 3, 4, 3, pads=[1, 1, 1, 1])], "relu1")
    second = net.node("Sigmoid", [net.conv(first, "conv2", 4, 4, 3, pads=[1, 1, 1, 1])], "sigmoid")
    total = net.node("Add", [first, second], "sum")
    pooled = net.node("MaxPool", [net.node("Concat", [total, first], "concat", axis=1)], "pool", kernel_shape=[2, 2],
                      strides=[2, 2])  # fmt: skip
    return net.model([1, 3, 6, 6], [1, 8, 3, 3], pooled)

"""Small ONNX models for tests of the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def mlp(path: Path, *, nan: bool = False) -> Path:
    """x[1, 6] -> Gemm -> Relu -> Gemm -> scores[1, 3]."""
    rng = np.random.default_rng(1)
    arrays = {"w1": rng.normal(size=(6, 8)), "b1": rng.normal(size=8), "w2": rng.normal(size=(8, 3)), "b2": np.zeros(3)}
    if nan:
        arrays["w1"][0, 0] = np.nan
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "hidden"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["scores"], "head"),
    ]
    return save(path, nodes, [("x", (1, 6))], [("scores", (1, 3))], weights)


def convnet(path: Path) -> Path:
    """image[1, 2, 6, 6] -> Conv -> Relu -> MaxPool -> features[1, 4, 3, 3]: images in and out, channels first."""
    rng = np.random.default_rng(2)
    weight = numpy_helper.from_array(rng.normal(size=(4, 2, 3, 3)).astype(np.float32), "conv.weight")
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("MaxPool", ["r"], ["features"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    return save(path, nodes, [("image", (1, 2, 6, 6))], [("features", (1, 4, 3, 3))], [weight])


def unsupported(path: Path) -> Path:
    """Two layers that have no C form."""
    nodes = [helper.make_node("Det", ["x"], ["d"], "det"), helper.make_node("NonZero", ["x"], ["z"], "nonzero")]
    return save(path, nodes, [("x", (1, 2, 2))], [("d", (1,)), ("z", (3, 4))], [])


def save(path: Path, nodes, inputs, outputs, weights) -> Path:
    """Write an ONNX file."""
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in e] for e in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "test", *ends, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path

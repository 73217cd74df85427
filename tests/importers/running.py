"""Runs an imported graph in numpy and the same model in onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolchain import lower
from toolchain.config import Options
from toolchain.interpret import run

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph


def outputs(graph: Graph, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The graph's outputs by the framework's names."""
    by_tensor = {name: feeds[graph.port(name).name] for name in graph.inputs}
    values = run(graph, by_tensor)
    return {graph.port(name).name: np.asarray(values[name]) for name in graph.outputs}


def onnx_outputs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def feeds_for(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    weights = {tensor.name for tensor in model.graph.initializer}
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
        if value.name not in weights
    }
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple],
    weights: dict[str, np.ndarray] | None = None,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model whose output shapes are left open."""
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(
        nodes,
        "net",
        floats,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def entering(graph: Graph, x: np.ndarray) -> np.ndarray:
    permutation = graph.port(graph.inputs[0]).permutation
    return x if permutation is None else x.transpose(permutation)


def symbols(graph: Graph) -> list[str]:
    return [step.kernel.symbol for step in lower.lower(graph, Options("net")).steps]

"""The archived graph comes back equal, in the same bytes, and nothing foreign is read."""

import numpy as np
import pytest

from toolchain.errors import InputError
from toolchain.ir.graph import Graph, Node, Port, Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.ops.joining import Concat
from toolchain.ops.pool import MaxPool
from toolchain.ops.shape import Reshape
from toolchain.report.archive import load_graph, save_graph


def sample_graph():
    quant = QuantParams((0.25,), -3)
    kinds = {
        "x": TensorType((1, 4, 4, 2), DType.INT8, quant),
        "p": TensorType((1, 2, 2, 2), DType.INT8, quant),
        "r": TensorType((1, 8), DType.INT8, quant),
        "y": TensorType((1, 11), DType.INT8, quant),
    }
    tensors = {name: Tensor(name, kind) for name, kind in kinds.items()}
    data = np.array([[1, 2, 3]], np.int8)
    tensors["c"] = Tensor("c", TensorType((1, 3), DType.INT8, quant), data)
    pool = MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
    nodes = (
        Node(pool, ("x",), ("p",), "features.1"),
        Node(Reshape((1, 8)), ("p",), ("r",), "flatten"),
        Node(Concat(1), ("r", "c"), ("y",), "join"),
    )
    return Graph(nodes, tensors, ("x",), ("y",), {"x": Port("image", (0, 2, 3, 1))})


def test_comes_back_equal(tmp_path):
    graph = sample_graph()
    save_graph(graph, tmp_path / "graph.npz")
    back = load_graph(tmp_path / "graph.npz")
    assert back.nodes == graph.nodes
    assert (back.inputs, back.outputs, back.ports) == (graph.inputs, graph.outputs, graph.ports)
    assert [tensor.type for tensor in back.tensors.values()] == [tensor.type for tensor in graph.tensors.values()]
    np.testing.assert_array_equal(back.tensors["c"].data, graph.tensors["c"].data)
    assert back.tensors["c"].data.dtype == np.int8


def test_same_graph_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_graph(sample_graph(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut"])
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "graph.npz").write_bytes(content)
    with pytest.raises(InputError, match="not a graph that inlay wrote"):
        load_graph(tmp_path / "graph.npz")


def test_pickles_are_not_loaded(tmp_path):
    np.savez(tmp_path / "graph.npz", graph=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="not a graph"):
        load_graph(tmp_path / "graph.npz")


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="not there"):
        load_graph(tmp_path / "graph.npz")

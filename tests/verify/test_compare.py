"""What counts as equal, and which layer is named when it is not."""

import numpy as np
import pytest

from toolchain.errors import CheckFailedError
from toolchain.ir.graph import Graph, Node, Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.ops.base import Op
from toolchain.verify.compare import compare, difference, first_difference, real_error, require


def graph_of(dtype=DType.FLOAT32, quant=None):
    kind = TensorType((1, 4), dtype, quant)
    tensors = {name: Tensor(name, kind) for name in ("x", "h", "y")}
    nodes = (Node(Op(), ("x",), ("h",), "first layer"), Node(Op(), ("h",), ("y",), "second layer"))
    return Graph(nodes, tensors, ("x",), ("y",))


def rows(graph, found, expected):
    kind = graph.tensors["y"].type.dtype.numpy
    arrays = (np.array(values, kind).reshape(-1, 1, 4) for values in (found, expected))
    return compare(graph, *({"y": array} for array in arrays), "numpy")


def test_integers_must_be_equal():
    graph = graph_of(DType.INT8, QuantParams((0.1,), 3))
    assert rows(graph, [1, 2, 3, 4], [1, 2, 3, 4])[0].passed
    (row,) = rows(graph, [1, 2, 3, 4], [1, 2, 3, 5])
    assert not row.passed
    assert (row.differing, row.elements, row.largest) == (1, 4, 1.0)


def test_floats_may_differ_by_a_hundred_thousandth_of_the_range():
    graph = graph_of()
    assert rows(graph, [0, 1, 2, 10.00009], [0, 1, 2, 10])[0].passed
    assert not rows(graph, [0, 1, 2, 10.0003], [0, 1, 2, 10])[0].passed


def test_nan_equals_only_nan():
    assert difference(np.array([np.nan, np.inf]), np.array([np.nan, np.inf])).tolist() == [0, 0]
    assert difference(np.array([np.nan, np.inf]), np.array([1.0, 2.0])).tolist() == [np.inf, np.inf]


def test_the_error_names_output_and_layer():
    found = rows(graph_of(), [0, 1, 2, 11], [0, 1, 2, 10])
    with pytest.raises(CheckFailedError, match=r"net\.c: y differs from numpy in 1 of 4 .*first layer .* is conv1"):
        require(found, "net.c", "conv1")
    require(rows(graph_of(), [1] * 4, [1] * 4), "net.c", None)


def test_first_difference_is_the_earliest():
    graph = graph_of()
    values = {name: np.arange(4, dtype=np.float32) for name in ("x", "h", "y")}
    right, wrong = values["h"].tobytes(), (values["h"] + 1).tobytes()
    written = [("h",), ("y",)]
    assert first_difference(graph, [(0, right), (1, right)], written, values) is None
    assert first_difference(graph, [(0, right), (1, wrong)], written, values) == "second layer"
    assert first_difference(graph, [(0, wrong), (1, wrong)], written, values) == "first layer"


def test_noise_is_of_the_reals():
    graph = graph_of(DType.INT8, QuantParams((0.5,), 1))
    found = {"y": np.array([[[1, 3, 5, 7]]], np.int8)}
    assert real_error(graph, found, {"y": np.array([[[0.0, 1, 2, 3]]])}) == {"y": 200.0}
    assert real_error(graph, found, {"y": np.array([[[0.0, 1, 2, 4]]])})["y"] == pytest.approx(10 * np.log10(21))

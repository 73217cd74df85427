"""Networks as channels-first importers write them end without a Transpose inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.nets import Net, assert_same, kinds
from toolchain.ops.elementwise import Binary
from toolchain.ops.indexing import Slice
from toolchain.ops.joining import Concat, Split
from toolchain.ops.reduce import Reduce
from toolchain.ops.shape import Reshape, Transpose
from toolchain.ops.softmax import Softmax
from toolchain.ops.unary import Unary
from toolchain.passes import optimize

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph


def residual() -> Graph:
    net = Net()
    x = net.relu(net.norm(net.conv(net.input(1, 3, 8, 8), 8)))
    y = net.relu(net.norm(net.conv(x, 8)))
    x = net.relu(net.add(x, net.norm(net.conv(y, 8))))
    pooled = net.op(Reduce("mean", (2, 3), False), x)
    return net.graph(net.op(Softmax(1), net.dense(pooled, 5)))


def u_net() -> Graph:
    net = Net()
    first = net.relu(net.conv(net.input(1, 2, 8, 8), 4))
    second = net.relu(net.conv(net.max_pool(first), 8))
    joined = net.op(Concat(1), net.up(second, 4), first)
    return net.graph(net.op(Unary("sigmoid"), net.conv(net.relu(net.conv(joined, 6)), 3)))


def squeeze_excite() -> Graph:
    net = Net()
    x = net.conv(net.input(1, 3, 9, 7), 8)
    x = net.op(Binary("mul"), x, net.op(Unary("sigmoid"), x))
    pooled = net.op(Reduce("mean", (2, 3), True), x)
    gate = net.op(Unary("hard_sigmoid", 1 / 6, 0.5), net.conv(net.relu(net.conv(pooled, 2, 1)), 8, 1))
    return net.graph(net.conv(net.op(Binary("mul"), x, gate), 4))


def squeeze_excite_dense() -> Graph:
    net = Net()
    x = net.conv(net.input(1, 3, 9, 7), 8)
    pooled = net.op(Reduce("mean", (2, 3), False), x)
    gate = net.op(Unary("sigmoid"), net.dense(net.relu(net.dense(pooled, 2)), 8))
    gate = net.op(Reshape((1, 8, 1, 1)), gate)
    return net.graph(net.conv(net.op(Binary("mul"), x, gate), 4))


def flatten_dense() -> Graph:
    net = Net()
    x = net.max_pool(net.relu(net.conv(net.input(1, 1, 8, 6), 5)))
    flat = net.op(Reshape((1, 5 * 4 * 3)), x)
    return net.graph(net.dense(net.relu(net.dense(flat, 16)), 4))


def inverted_residual() -> Graph:
    net = Net()
    x = net.norm(net.conv(net.input(1, 3, 8, 8), 4, stride=2))
    y = net.op(Unary("relu6"), net.norm(net.conv(x, 12, 1)))
    y = net.op(Unary("relu6"), net.norm(net.conv(y, 12, groups=12)))
    return net.graph(net.add(x, net.norm(net.conv(y, 4, 1))))


def shuffle() -> Graph:
    net = Net()
    left, right = net.ops(Split(1, (4, 4)), net.conv(net.input(1, 3, 6, 6), 8))
    right = net.relu(net.conv(right, 4))
    cut = net.op(Slice((0, 0, 0, 0), (1, 2, 6, 6), (1, 1, 1, 1)), left)
    return net.graph(net.conv(net.op(Concat(1), cut, right, left), 4))


def conv1d() -> Graph:
    net = Net()
    x = net.relu(net.norm(net.conv(net.input(1, 4, 20), 8, 5)))
    x = net.conv(net.max_pool(x), 6)
    return net.graph(net.dense(net.op(Reduce("max", (2,), False), x), 3))


def patches() -> Graph:
    """The beginning of a vision transformer: tokens from the pixels of a convolution."""
    net = Net()
    x = net.conv(net.input(1, 3, 8, 8), 6, stride=2)
    tokens = net.op(Transpose((0, 2, 1)), net.op(Reshape((1, 6, 16)), x))
    return net.graph(net.dense(tokens, 4))


NETS = {f.__name__: f for f in (
    residual, u_net, squeeze_excite, squeeze_excite_dense, flatten_dense, inverted_residual, shuffle, conv1d, patches,
)}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_no_transpose_is_left(name: str) -> None:
    graph = NETS[name]()
    result = optimize(graph, "nhwc")
    assert_same(graph, result)
    assert kinds(result)["Transpose"] == 0, kinds(result)


@pytest.mark.parametrize("name", NETS)
def test_channels_first_ends_keep_their_transposes(name: str) -> None:
    graph = NETS[name]()
    result = optimize(graph, "nchw")
    assert_same(graph, result)
    assert all(result.port(end).permutation is None for end in (*result.inputs, *result.outputs))
    assert kinds(result)["Transpose"] <= 2


def test_ports_record_the_permutation() -> None:
    result = optimize(u_net(), "nhwc")
    assert result.tensors[result.inputs[0]].type.shape == (1, 8, 8, 2)
    assert result.port(result.inputs[0]).permutation == (0, 2, 3, 1)
    assert result.port(result.outputs[0]).permutation == (0, 2, 3, 1)


def test_an_input_that_is_not_transposed_stays() -> None:
    net = Net()
    graph = net.graph(net.dense(net.input(1, 5, 8), 4))
    assert optimize(graph, "nhwc").port("x").permutation is None


def test_batch_norm_and_relu_vanish() -> None:
    assert set(kinds(optimize(residual(), "nhwc"))) == {"Conv", "Binary", "Reduce", "Dense", "Softmax"}
    assert kinds(optimize(residual(), "nhwc"))["Binary"] == 1

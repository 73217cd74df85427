"""Each pass on the smallest graph that shows it, and all of them on random graphs."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.nets import Net, assert_same, kinds
from toolchain.ops.conv import Conv
from toolchain.ops.elementwise import Binary, PRelu
from toolchain.ops.indexing import Pad, Slice
from toolchain.ops.joining import Concat
from toolchain.ops.pool import AvgPool, MaxPool
from toolchain.ops.reduce import Reduce
from toolchain.ops.shape import Reshape, Tile, Transpose
from toolchain.ops.unary import Unary
from toolchain.passes import optimize

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph


def plain_conv(net: Net, x: str, channels: int, pad: int = 0) -> str:
    op = Conv((1, 1), (1, 1), ((pad, pad), (pad, pad)), 1)
    return net.op(op, x, net.values(channels, 3, 3, net.shape(x)[-1], scale=0.3), net.values(channels))


def only(graph: Graph, *expected: str) -> Graph:
    """The optimised graph, which must hold exactly these operators."""
    result = optimize(graph, "nchw")
    assert_same(graph, result)
    assert sorted(kinds(result).elements()) == sorted(expected)
    return result


def test_identities_vanish() -> None:
    net = Net()
    x = net.op(Unary("tanh"), net.input(2, 3, 4))
    y = net.op(Binary("mul"), x, net.const(1.0))
    y = net.op(Binary("add"), net.const(np.zeros(4)), y)
    y = net.op(Transpose((0, 1, 2)), net.op(Reshape((2, 3, 4)), y))
    y = net.op(Slice((0, 0, 0), (2, 3, 4), (1, 1, 1)), net.op(Concat(1), y))
    y = net.op(Pad(((0, 0), (0, 0), (0, 0)), "constant", 0.0), net.op(Tile((1, 1, 1)), y))
    only(net.graph(net.op(Unary("exp"), y)), "Unary", "Unary")


def test_constant_minus_x_is_no_identity() -> None:
    net = Net()
    only(net.graph(net.op(Binary("sub"), net.const(0.0), net.input(2, 3))), "Binary")


def test_shape_chains_merge() -> None:
    net = Net()
    x = net.op(Reshape((6, 4)), net.op(Reshape((24,)), net.input(2, 3, 4)))
    only(net.graph(net.op(Unary("exp"), x)), "Reshape", "Unary")


def test_transposes_merge_and_unit_axes_reshape() -> None:
    net = Net()
    x = net.op(Transpose((1, 0, 2)), net.op(Transpose((2, 0, 1)), net.input(2, 3, 4)))
    assert only(net.graph(x), "Transpose").nodes[0].op == Transpose((0, 2, 1))
    net = Net()
    only(net.graph(net.op(Transpose((0, 2, 1)), net.input(2, 1, 4))), "Reshape")


def test_padding_folds_into_conv_and_counts_in_average() -> None:
    net = Net()
    pad = Pad(((0, 0), (1, 2), (0, 1), (0, 0)), "constant", 0.0)
    result = only(net.graph(plain_conv(net, net.op(pad, net.input(1, 5, 5, 2)), 3, 1)), "Conv")
    assert result.nodes[0].op.padding == ((2, 3), (1, 2))  # type: ignore[attr-defined]
    net = Net()
    pool = AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)))
    only(net.graph(net.op(pool, net.op(pad, net.input(1, 5, 5, 2)))), "AvgPool")
    net = Net()
    largest = MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
    only(net.graph(net.op(largest, net.op(pad, net.input(1, 5, 5, 2)))), "Pad", "MaxPool")


def test_padding_of_channels_or_ones_stays() -> None:
    net = Net()
    pad = Pad(((0, 0), (1, 1), (1, 1), (0, 0)), "constant", 1.0)
    only(net.graph(plain_conv(net, net.op(pad, net.input(1, 5, 5, 2)), 3)), "Pad", "Conv")
    net = Net()
    pad = Pad(((0, 0), (1, 1), (1, 1), (0, 1)), "constant", 0.0)
    only(net.graph(plain_conv(net, net.op(pad, net.input(1, 5, 5, 2)), 3)), "Pad", "Conv")


@pytest.mark.parametrize("pad", [0, 1])
def test_norm_before_conv(pad: int) -> None:
    net = Net()
    x = net.op(Binary("mul"), net.input(1, 5, 5, 2), net.values(2))
    x = net.op(Binary("add"), x, net.values(1, 1, 1, 2))
    kept = ["Binary", "Binary"] if pad else []
    only(net.graph(plain_conv(net, x, 3, pad)), "Conv", *kept)


def test_scale_before_grouped_conv() -> None:
    net = Net()
    x = net.op(Binary("div"), net.input(1, 5, 5, 4), net.values(4, shift=3.0))
    op = Conv((1, 1), (1, 1), ((1, 1), (1, 1)), 2)
    only(net.graph(net.op(op, x, net.values(6, 3, 3, 2), net.values(6))), "Conv")


def test_norm_after_dense_through_reshape() -> None:
    net = Net()
    x = net.op(Reshape((2, 1, 5)), net.dense(net.input(2, 6), 5))
    x = net.op(Binary("sub"), net.values(5), net.op(Binary("mul"), x, net.values(5)))
    only(net.graph(net.relu(x)), "Dense", "Reshape")


def test_affine_chains_merge() -> None:
    net = Net()
    x = net.input(2, 6)
    for kind in ("add", "mul", "sub", "div", "mul", "add"):
        x = net.op(Binary(kind), x, net.values(6, shift=3.0))
    only(net.graph(x), "Binary", "Binary")


def test_activations_fuse_with_one_reader_only() -> None:
    net = Net()
    result = only(net.graph(net.relu(plain_conv(net, net.input(1, 5, 5, 2), 3))), "Conv")
    assert result.nodes[0].op.clamp == (0.0, inf)  # type: ignore[attr-defined]
    net = Net()
    y = plain_conv(net, net.input(1, 5, 5, 2), 3)
    only(net.graph(net.relu(y), y), "Conv", "Unary")


def test_limits_combine() -> None:
    net = Net()
    y = net.op(Binary("max"), net.op(Unary("clip", -1.0, 0.5), net.dense(net.input(2, 6), 5)), net.const(0.0))
    assert only(net.graph(y), "Dense").nodes[0].op.clamp == (0.0, 0.5)  # type: ignore[attr-defined]


def test_constants_fold_and_dead_nodes_go() -> None:
    net = Net()
    x = net.input(2, 3)
    net.op(Unary("exp"), x)
    value = net.op(Unary("exp"), net.op(Transpose((1, 0)), net.values(3, 2)))
    only(net.graph(net.op(Binary("mul"), x, value)), "Binary")


def test_equal_nodes_merge() -> None:
    net = Net()
    x = net.input(2, 3)
    only(net.graph(net.add(net.op(Unary("exp"), x), net.op(Unary("exp"), x))), "Unary", "Binary")


def test_reduction_over_unit_axes() -> None:
    net = Net()
    only(net.graph(net.op(Unary("exp"), net.op(Reduce("mean", (1,), False), net.input(2, 1, 3)))), "Reshape", "Unary")


def test_an_input_may_be_an_output() -> None:
    net = Net()
    x = net.input(1, 2, 3, 4)
    graph = net.graph(net.op(Binary("add"), x, net.const(0.0)), net.op(Transpose((0, 1, 2, 3)), x))
    assert_same(graph, optimize(graph))


def random_net(seed: int) -> Graph:  # noqa: C901 - a table of choices
    """A random network of spatial, elementwise and moving operators on channels-first tensors."""
    net = Net(seed)
    pool = [net.input(1, 4, 6, 6)]
    for _ in range(14):
        x = pool[net.rng.integers(max(0, len(pool) - 3), len(pool))]
        other = pool[net.rng.integers(len(pool))]
        shape = net.shape(x)
        spatial = shape[2:] if len(shape) == 4 else ()
        choice = int(net.rng.integers(12))
        if choice <= 2 and spatial:
            x = net.conv(x, 4, int(net.rng.choice([1, 3])))
        elif choice == 3:
            x = net.norm(x)
        elif choice == 4:
            x = net.relu(x)
        elif choice == 5 and net.shape(other) == shape:
            x = net.add(x, other)
        elif choice == 6 and net.shape(other)[2:] == shape[2:]:
            x = net.op(Concat(1), x, other)
        elif choice == 7:
            x = net.op(PRelu(), x, net.values(shape[1], *[1] * (len(shape) - 2)))
        elif choice == 8:
            x = net.op(Binary("mul"), x, net.op(Unary("sigmoid"), net.op(Reduce("mean", (2, 3), True), x)))
        elif choice == 9:
            x = net.op(Pad(((0, 0), (0, 0), (1, 1), (0, 1)), "constant", 0.0), x)
        elif choice == 10:
            x = net.op(Reshape(shape), net.op(Unary("tanh"), net.op(Reshape((1, shape[1], shape[2] * shape[3])), x)))
        elif choice == 11:
            x = net.op(Transpose((0, 1, 3, 2)), x)
        pool.append(x)
    flat = net.op(Reshape((1, int(np.prod(net.shape(pool[-1]))))), pool[-1])
    return net.graph(net.dense(flat, 3), pool[-2])


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_random_networks_keep_their_function(seed: int, layout: str) -> None:
    graph = random_net(seed)
    assert_same(graph, optimize(graph, layout))

"""The nets on which post-training quantization is measured."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from tests.nets import Net
from toolchain.ir.graph import Tensor
from toolchain.ops.elementwise import Binary
from toolchain.ops.joining import Concat
from toolchain.ops.pool import MaxPool
from toolchain.ops.reduce import Reduce
from toolchain.ops.unary import Unary
from toolchain.passes import optimize

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph
    from toolchain.ir.types import Array


class BlockNet(Net):
    """Blocks with batch normalisation whose statistics are random."""

    def norm(self, x: str) -> str:
        """Gamma, beta, mean and variance as training may leave them: gamma / sigma over more than a decade."""
        shape = (1, self.shape(x)[1], 1, 1)
        factor = self.rng.uniform(0.2, 2.0, shape) / np.sqrt(self.rng.uniform(0.1, 2.0, shape))
        shift = self.rng.normal(0, 0.5, shape) - self.rng.normal(0, 0.3, shape) * factor
        scaled = self.op(Binary("mul"), x, self.const(factor))
        return self.op(Binary("add"), scaled, self.const(shift))

    def act(self, x: str, kind: str) -> str:
        return self.op(Unary(kind), x)

    def separable(self, x: str, channels: int, kind: str = "relu", stride: int = 1) -> str:
        x = self.act(self.norm(self.conv(x, self.shape(x)[1], stride=stride, groups=self.shape(x)[1])), kind)
        return self.act(self.norm(self.conv(x, channels, 1)), kind)

    def inverted(self, x: str, channels: int, expand: int = 4, stride: int = 1) -> str:
        inside = self.act(self.norm(self.conv(x, expand * self.shape(x)[1], 1)), "relu6")
        inside = self.act(
            self.norm(self.conv(inside, self.shape(inside)[1], 3, stride, self.shape(inside)[1])), "relu6"
        )
        y = self.norm(self.conv(inside, channels, 1))
        return self.add(x, y) if self.shape(x) == self.shape(y) else y

    def squeeze_excite(self, x: str) -> str:
        channels = self.shape(x)[1]
        squeezed = self.conv(self.op(Reduce("mean", (2, 3), True), x), max(channels // 4, 4), 1)
        gate = self.act(self.conv(self.act(squeezed, "relu"), channels, 1), "sigmoid")
        return self.op(Binary("mul"), x, gate)

    def gated(self, x: str, channels: int, stride: int = 1) -> str:
        inside = self.act(self.norm(self.conv(x, 3 * self.shape(x)[1], 1)), "hard_swish")
        inside = self.norm(self.conv(inside, self.shape(inside)[1], 3, stride, self.shape(inside)[1]))
        inside = self.squeeze_excite(self.act(inside, "hard_swish"))
        y = self.norm(self.conv(inside, channels, 1))
        return self.add(x, y) if self.shape(x) == self.shape(y) else y

    def head(self, x: str, features: int = 10) -> Graph:
        pooled = self.op(Reduce("mean", (2, 3), False), x)
        return optimize(self.graph(self.dense(pooled, features)))


def separable(seed: int = 0) -> Graph:
    """A stem and two depthwise-pointwise pairs, 3-16-16-32, with ReLU."""
    net = BlockNet(seed)
    x = net.act(net.norm(net.conv(net.input(1, 3, 16, 16), 16, stride=2)), "relu")
    x = net.separable(net.separable(x, 16), 32)
    return net.head(x)


def mobilenet(seed: int = 0) -> Graph:
    """Inverted residuals with ReLU6, two of them with a branch around."""
    net = BlockNet(seed)
    x = net.act(net.norm(net.conv(net.input(1, 3, 24, 24), 16, stride=2)), "relu6")
    x = net.inverted(x, 16)
    x = net.inverted(x, 24, stride=2)
    x = net.inverted(x, 24)
    return net.head(net.act(net.norm(net.conv(x, 48, 1)), "relu6"))


def excited(seed: int = 0) -> Graph:
    """Squeeze-and-excite and hard-swish, one block with a branch around."""
    net = BlockNet(seed)
    x = net.act(net.norm(net.conv(net.input(1, 3, 24, 24), 16, stride=2)), "hard_swish")
    x = net.gated(x, 16)
    x = net.gated(x, 24, stride=2)
    return net.head(net.act(net.norm(net.conv(x, 48, 1)), "hard_swish"))


def branched(seed: int = 0) -> Graph:
    """Concatenation, leaky ReLU, pooling, a residual branch."""
    net = BlockNet(seed)
    x = net.op(Unary("leaky", 0.1), net.norm(net.conv(net.input(1, 3, 16, 16), 8)))
    y = net.op(Concat(1), net.act(net.conv(x, 8), "relu"), net.op(Unary("leaky", 0.1), net.norm(net.conv(x, 4, 1))))
    y = net.spatial(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), y)
    return net.head(net.act(net.add(net.norm(net.conv(y, 12)), y), "relu"))


def rescaled(graph: Graph, decades: float = 4.0, seed: int = 0) -> Graph:
    """The same function, each channel between two weighted layers in a chain scaled by up to 10^(+-decades / 2)."""
    rng = np.random.default_rng(seed)
    chain = [node for node in graph.nodes if node.op.weight is not None]
    tensors = dict(graph.tensors)
    for first, second in itertools.pairwise(chain):
        weight, bias, after = (tensors[n].data for n in (*first.inputs[1:], second.inputs[1]))
        assert weight is not None
        assert bias is not None
        assert after is not None
        factor = 10 ** rng.uniform(-decades / 2, decades / 2, len(weight))
        out = factor.reshape(-1, *[1] * (weight.ndim - 1))
        depthwise = after.shape[-1] == 1 and len(after) == len(weight)
        into = factor.reshape(-1, *[1] * (after.ndim - 1)) if depthwise else factor
        for name, data in zip(
            (*first.inputs[1:], second.inputs[1]), (weight * out, bias * factor, after / into), strict=True
        ):
            tensors[name] = Tensor(name, tensors[name].type, data.astype(np.float32))
    return graph.with_(tensors=tensors)


def noise(graph: Graph, count: int, seed: int = 5) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=(count, *graph.tensors[n].type.shape)).astype(np.float32) for n in graph.inputs}


NETS = {
    "separable": separable,
    "rescaled": lambda seed=0: rescaled(separable(seed)),
    "mobilenet": mobilenet,
    "excited": excited,
    "branched": branched,
}

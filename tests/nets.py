"""Small graphs for tests of passes and quantization, written as channels-first importers write them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import interpret
from toolchain.importers.builder import GraphBuilder
from toolchain.ir.types import Array, TensorType
from toolchain.ops.conv import Conv, ConvTranspose
from toolchain.ops.dense import Dense
from toolchain.ops.elementwise import Binary
from toolchain.ops.pool import MaxPool
from toolchain.ops.shape import Transpose
from toolchain.ops.unary import Unary
from toolchain.passes.permutation import channels_last, inverse

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph
    from toolchain.ops.base import Op


class Net:
    """Grows a graph with random weights; tensors outside spatial operators are channels-first."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = GraphBuilder("test")
        self.count = 0

    def input(self, *shape: int, name: str = "x") -> str:
        return self.builder.input(name, TensorType(shape))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.builder.shape(name)

    def values(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> str:
        data = self.rng.normal(shift, scale, shape).astype(np.float32)
        return self.builder.constant(self._name("c"), data)

    def const(self, value: Any) -> str:
        return self.builder.constant(self._name("c"), np.asarray(value, np.float32))

    def _name(self, hint: str) -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def op(self, op: Op, *inputs: str) -> str:
        return self.builder.add(op, inputs, origin=self._name(type(op).__name__))[0]

    def ops(self, op: Op, *inputs: str) -> tuple[str, ...]:
        return self.builder.add(op, inputs, origin=self._name(type(op).__name__))

    def spatial(self, op: Op, x: str, *weights: str) -> str:
        """A channels-last operator between two Transposes."""
        to = channels_last(len(self.shape(x)))
        y = self.op(op, self.op(Transpose(to), x), *weights)
        return self.op(Transpose(inverse(to)), y)

    def conv(self, x: str, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> str:
        size = len(self.shape(x)) - 2
        inputs = self.shape(x)[1]
        pad = ((kernel // 2, kernel // 2),) * size
        op = Conv((stride,) * size, (1,) * size, pad, groups)
        weight = self.values(channels, *(kernel,) * size, inputs // groups, scale=1 / np.sqrt(inputs * kernel**size))
        return self.spatial(op, x, weight, self.values(channels, scale=0.1))

    def up(self, x: str, channels: int) -> str:
        size = len(self.shape(x)) - 2
        inputs = self.shape(x)[1]
        op = ConvTranspose((2,) * size, (1,) * size, ((0, 0),) * size, (0,) * size, 1)
        weight = self.values(channels, *(2,) * size, inputs, scale=1 / np.sqrt(inputs))
        return self.spatial(op, x, weight, self.values(channels, scale=0.1))

    def max_pool(self, x: str) -> str:
        size = len(self.shape(x)) - 2
        return self.spatial(MaxPool((2,) * size, (2,) * size, ((0, 0),) * size, (1,) * size), x)

    def norm(self, x: str) -> str:
        """Batch normalisation as product and sum of per-channel constants."""
        shape = (1, self.shape(x)[1], *[1] * (len(self.shape(x)) - 2))
        scaled = self.op(Binary("mul"), x, self.values(*shape, scale=0.2, shift=1.0))
        return self.op(Binary("add"), scaled, self.values(*shape, scale=0.2))

    def relu(self, x: str) -> str:
        return self.op(Unary("relu"), x)

    def add(self, x: str, y: str) -> str:
        return self.op(Binary("add"), x, y)

    def dense(self, x: str, features: int) -> str:
        inputs = self.shape(x)[-1]
        weight = self.values(features, inputs, scale=1 / np.sqrt(inputs))
        return self.op(Dense(), x, weight, self.values(features, scale=0.1))

    def graph(self, *outputs: str) -> Graph:
        return self.builder.finish(outputs)


def outside(graph: Graph, feeds: dict[str, Array]) -> list[Array]:
    """Outputs in the framework's layout for inputs in the framework's layout."""
    ready = {}
    for name, value in feeds.items():
        permutation = graph.port(name).permutation
        ready[name] = value if permutation is None else np.ascontiguousarray(value.transpose(permutation))
    results = interpret.run(graph, ready)
    ports = [graph.port(name).permutation for name in graph.outputs]
    return [
        results[name] if p is None else results[name].transpose(inverse(p))
        for name, p in zip(graph.outputs, ports, strict=True)
    ]


def random_feeds(graph: Graph, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=graph.tensors[name].type.shape).astype(np.float32) for name in graph.inputs}


def kinds(graph: Graph) -> Counter[str]:
    """How many nodes of each operator a graph has."""
    return Counter(type(node.op).__name__ for node in graph.nodes)


def assert_same(before: Graph, after: Graph, tolerance: float = 2e-5) -> None:
    """Both graphs compute the same outputs, and the types of the second are those its operators infer."""
    for node in after.nodes:
        inferred = node.op.infer(*(after.tensors[name].type for name in node.inputs))
        assert [kind.shape for kind in inferred] == [after.tensors[name].type.shape for name in node.outputs], node
    feeds = random_feeds(before)
    for wanted, found in zip(outside(before, feeds), outside(after, feeds), strict=True):
        assert wanted.shape == found.shape
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1.0, float(np.abs(wanted).max())))

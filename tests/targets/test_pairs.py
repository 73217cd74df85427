"""Sums and pooling of int8 against numpy on cores that take several of them at a time."""

from __future__ import annotations

import numpy as np
import pytest

from tests.targets import layers
from toolchain.config import Options, Rounding
from toolchain.ir.graph import Graph, Node, Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.lower import lower
from toolchain.ops.binary import Binary
from toolchain.ops.pool import AvgPool, MaxPool
from toolchain.plan import plan
from toolchain.targets.image import Build

SIZES = (1, 3, 4, 5, 8, 31)


def network(rng):
    """One of each in sizes that are and are not whole fours, every node with inputs and an output of its own."""
    nodes, tensors, inputs = [], {}, []

    def add(op, shapes, quants):
        names = tuple(f"x{len(inputs) + i}" for i in range(len(shapes)))
        for name, shape, quant in zip(names, shapes, quants, strict=False):
            tensors[name] = Tensor(name, TensorType(shape, DType.INT8, quant))
        (kind,) = op.infer(*(tensors[name].type for name in names))
        y = f"y{len(nodes)}"
        tensors[y] = Tensor(y, TensorType(kind.shape, DType.INT8, quants[-1]))
        inputs.extend(names)
        nodes.append(Node(op, names, (y,), y))

    for size in SIZES:
        scales, zeros = 10 ** rng.uniform(-2, -1, 3), rng.integers(-128, 128, 3)
        quants = [QuantParams((float(np.float32(s)),), int(z)) for s, z in zip(scales, zeros, strict=True)]
        add(Binary("add"), ((7, size),) * 2, quants)
        add(Binary("sub", (0.0, np.inf)), ((7, size),) * 2, [*quants[:2], QuantParams(quants[2].scale, -128)])
        pads, same = ((1, 0), (1, 1)), [QuantParams((0.1,), -5)] * 2
        add(MaxPool((3, 2), (2, 1), pads, (1, 2)), ((2, 7, 6, size),), same)
        add(AvgPool((3, 3), (2, 2), pads, size % 2 == 0), ((1, 8, 7, size),), same)
        add(AvgPool((7, 6), (1, 1), ((0, 0), (0, 0)), clamp=(0.0, 2.0)), ((1, 7, 6, size),), same)
    return Graph(tuple(nodes), tensors, tuple(inputs), tuple(f"y{i}" for i in range(len(nodes))))


@pytest.mark.parametrize(("core", "level"), [("cortex-m4", "0"), ("cortex-m4", "2"), ("cortex-m55", "2")])
@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda rounding: rounding.value)
def test_equal_to_numpy(core, level, rounding, needs, rng, tmp_path):
    needs(core)
    graph = network(rng)
    program = plan(lower(graph, Options(name="m", rounding=rounding)))
    symbols = {step.kernel.symbol for step in program.steps}
    assert {"add_s8", "sub_s8", "maxpool_s8", "maxpool_any_s8", "avgpool_s8", "avgpool_padded_s8"} <= symbols
    feeds = layers.feeds_for(graph, 3, rng)
    found = layers.run_core(graph, program, feeds, core, Build(level), tmp_path)
    for name, expected in layers.run_numpy(graph, feeds, rounding).items():
        np.testing.assert_array_equal(found[name], expected, err_msg=str(program.steps[int(name[1:])].kernel.symbol))

"""Random quantized layers side by side in one program: whatever a kernel's body may meet, in one image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolchain import emit, interpret
from toolchain.config import Options, Rounding
from toolchain.ir.graph import Graph, Node, Tensor
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.lower import lower
from toolchain.ops.binary import Binary
from toolchain.ops.conv import Conv
from toolchain.ops.dense import Dense, MatMul
from toolchain.plan import plan
from toolchain.targets.cores import TARGETS
from toolchain.targets.emulator import run_image
from toolchain.targets.image import Build, build_image
from toolchain.verify import check
from toolchain.verify.harness import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolchain.lower import Program
    from toolchain.ops.base import Op

Layer = tuple["Op", tuple[int, ...], Array, Array, tuple[QuantParams, QuantParams, QuantParams]]
"""Operator, input shape, weights, bias, parameters of input, weights and output."""
EXACT = (0.5**3, 0.5**5, 0.5**9)
"""Scales whose multiplier is a power of two: sums that are ties."""


def random_conv(rng: np.random.Generator) -> Layer:
    """A convolution of any geometry."""
    channels, outputs = int(rng.choice([1, 2, 3, 4, 5, 8, 12, 16, 17])), int(rng.choice([1, 2, 3, 4, 7, 8, 10]))
    kernel = rng.choice([[1, 1], [1, 1], [3, 3], [3, 3], [2, 5], [4, 1], [1, 4]])
    size = rng.integers(1, 8, 2)
    dilation = (int(rng.choice([1, 1, 2])), 1)
    reach = (kernel - 1) * dilation + 1
    padding = []
    for have, need in zip(size, reach, strict=True):
        begin, end = (int(n) for n in rng.choice([0, 0, 1, 1, 2, 9], 2))
        padding.append((begin, end + max(0, int(need - have - begin - end))))
    plain = rng.random() < 0.3 and kernel.max() == 1
    stride = (1, 1) if plain else tuple(int(s) for s in rng.choice([1, 1, 2, 3], 2))
    op = Conv(stride, dilation, ((0, 0), (0, 0)) if plain else tuple(padding), 1, _clamp(rng))
    batch = int(rng.choice([1, 1, 2]))
    return _layer(op, (batch, *map(int, size), channels), (outputs, *map(int, kernel), channels), rng)


def random_depthwise(rng: np.random.Generator) -> Layer:
    """A 3x3 convolution of each channel for itself, most of them narrow and rectified."""
    channels = int(rng.choice([4, 5, 8, 11]))
    stride = (int(rng.choice([1, 1, 2, 3])), int(rng.choice([1, 1, 2])))
    size = rng.choice([1, 2, 3, 5, 6, 7, 9, 13], 2)
    padding = []
    for have in size:
        begin, end = (int(n) for n in rng.choice([0, 1, 1, 1, 2, 4], 2))
        padding.append((begin, end + max(0, 3 - int(have) - begin - end)))
    rectified = rng.random() < 0.7
    op = Conv(stride, (1, 1), tuple(padding), channels, (0.0, np.inf) if rectified else _clamp(rng))
    batch = int(rng.choice([1, 1, 2]))
    layer = _layer(op, (batch, *map(int, size), channels), (channels, 3, 3, 1), rng)
    if rectified:
        layer = (*layer[:4], (*layer[4][:2], QuantParams((0.01,), -128)))
    return layer


def random_taps(rng: np.random.Generator) -> Layer:
    """A convolution of each channel for itself with another kernel than 3x3, or several outputs per channel."""
    channels, multiplier = int(rng.choice([4, 5, 8, 11])), int(rng.choice([1, 1, 2, 3]))
    kernel = rng.choice([[5, 5], [7, 7], [3, 3], [1, 9], [4, 2]])
    dilation = tuple(int(d) for d in rng.choice([1, 1, 2], 2))
    size = rng.choice([1, 3, 5, 7, 10, 13], 2)
    padding = []
    for have, need in zip(size, (kernel - 1) * dilation + 1, strict=True):
        begin, end = (int(n) for n in rng.choice([0, 1, 2, 4], 2))
        padding.append((begin, end + max(0, int(need - have - begin - end))))
    stride = tuple(int(s) for s in rng.choice([1, 1, 2, 3], 2))
    op = Conv(stride, dilation, tuple(padding), channels, _clamp(rng))
    return _layer(op, (1, *map(int, size), channels), (channels * multiplier, *map(int, kernel), 1), rng)


def random_groups(rng: np.random.Generator) -> Layer:
    """A convolution in groups of some inputs, or one with dilation along both axes."""
    groups, depth = int(rng.choice([1, 2, 3, 5])), int(rng.choice([2, 3, 4, 7, 8]))
    outputs = int(rng.choice([1, 2, 3, 4, 6, 18]))
    kernel = rng.choice([[1, 1], [3, 3], [2, 3]])
    dilation = (2, 3) if groups == 1 else tuple(int(d) for d in rng.choice([1, 1, 2], 2))
    size = rng.choice([1, 3, 5, 6], 2)
    padding = []
    for have, need in zip(size, (kernel - 1) * dilation + 1, strict=True):
        begin, end = (int(n) for n in rng.choice([0, 1, 2], 2))
        padding.append((begin, end + max(0, int(need - have - begin - end))))
    stride = tuple(int(s) for s in rng.choice([1, 1, 2], 2))
    op = Conv(stride, dilation, tuple(padding), groups, _clamp(rng))
    x = (int(rng.choice([1, 2])), *map(int, size), groups * depth)
    return _layer(op, x, (groups * outputs, *map(int, kernel), depth), rng)


def random_dense(rng: np.random.Generator) -> Layer:
    """A fully connected layer of one row, or of a few."""
    inputs, outputs = int(rng.choice([1, 3, 7, 8, 15, 16, 33, 64, 100, 1301])), int(rng.choice([1, 3, 4, 5, 6, 8, 13]))
    rows = int(rng.choice([1, 1, 1, 2, 4]))
    return _layer(Dense(_clamp(rng)), (rows, inputs), (outputs, inputs), rng)


def _clamp(rng: np.random.Generator) -> tuple[float, float] | None:
    clamps = (None, None, (0.0, np.inf), (0.0, np.inf), (0.0, 0.6), (-0.4, 0.7))
    return clamps[rng.integers(len(clamps))]


def _layer(op: Op, x: tuple[int, ...], weight: tuple[int, ...], rng: np.random.Generator) -> Layer:
    """Values and scales: ties, channels without weights, sums that saturate, zero points at the ends."""
    largest = int(rng.choice([2, 127]))
    weights = rng.integers(-largest, largest + 1, weight).astype(np.int8)
    weights[rng.random(len(weights)) < 0.1] = 0
    bias = rng.integers(-4000, 4000, weight[0]).astype(np.int32)
    if rng.random() < 0.2:
        bias[0] = rng.choice([1 << 29, -(1 << 29), 3])
        weights[0] = 0
    depth = max(1.0, float(np.sqrt(np.prod(weight[1:])))) * largest * 30
    real = rng.choice(EXACT, weight[0]) if rng.random() < 0.4 else rng.uniform(0.3, 3.0, weight[0]) * 60 / depth
    if rng.random() < 0.1:
        real[0] = rng.choice([0.7, 3.0, 2.0**-18, 2.0**-28])
    scales = np.float32(real) if rng.random() < 0.7 else np.float32(real[:1])
    axis = 0 if len(scales) > 1 else None
    zero_x, zero_y = (int(rng.choice([-128, 127, 0, int(rng.integers(-128, 128))])) for _ in range(2))
    parameters = (
        QuantParams((1.0,), zero_x),
        QuantParams(tuple(float(0.01 * s) for s in scales), 0, axis),
        QuantParams((0.01,), zero_y),
    )
    return op, x, weights, bias, parameters


def program_of(layers: Sequence[Layer], rounding: Rounding) -> tuple[Graph, Program]:
    """All layers in one program, each with an input and an output of its own."""
    nodes, tensors = [], {}
    for i, (op, x, weight, bias, (quant_x, quant_w, quant_y)) in enumerate(layers):
        wide = QuantParams(quant_w.scale, 0, quant_w.axis)
        names = (f"x{i}", f"w{i}", f"b{i}")
        tensors[names[0]] = Tensor(names[0], TensorType(x, DType.INT8, quant_x))
        tensors[names[1]] = Tensor(names[1], TensorType(weight.shape, DType.INT8, quant_w), weight)
        tensors[names[2]] = Tensor(names[2], TensorType(bias.shape, DType.INT32, wide), bias)
        shape = op.infer(*(tensors[name].type for name in names))[0].shape
        tensors[f"y{i}"] = Tensor(f"y{i}", TensorType(shape, DType.INT8, quant_y))
        nodes.append(Node(op, names, (f"y{i}",), f"layer{i}"))
    ends = [tuple(f"{end}{i}" for i in range(len(layers))) for end in "xy"]
    graph = Graph(tuple(nodes), tensors, *ends)
    return graph, plan(lower(graph, Options(name="m", rounding=rounding)))


def pairwise(
    number: int, kind: str, shapes: Sequence[tuple[int, ...]], rng: np.random.Generator
) -> tuple[Node, list[Tensor]]:
    """A sum or product of two int8 tensors, each with a scale and zero point of its own."""
    quants = [QuantParams((float(rng.uniform(0.01, 0.05)),), int(rng.integers(-128, 128))) for _ in range(3)]
    names = [f"l{number}_{name}" for name in "aby"]
    types = [TensorType(s, DType.INT8, q) for s, q in zip((*shapes, shapes[0]), quants, strict=True)]
    tensors = [Tensor(n, t) for n, t in zip(names, types, strict=True)]
    clamp = (0.0, float("inf")) if rng.integers(2) else None
    return Node(Binary(kind, clamp), tuple(names[:2]), (names[2],), f"l{number}"), tensors


def matrices(number: int, shapes: Sequence[tuple[int, ...]], rng: np.random.Generator) -> tuple[Node, list[Tensor]]:
    """A product of two int8 tensors as matrices."""
    quants = [QuantParams((scale,), int(rng.integers(-128, 128))) for scale in (0.05, 0.05, 1.5)]
    names = [f"l{number}_{name}" for name in "aby"]
    (y,) = MatMul().infer(*(TensorType(shape, DType.INT8) for shape in shapes))
    types = [TensorType(s, DType.INT8, q) for s, q in zip((*shapes, y.shape), quants, strict=True)]
    tensors = [Tensor(n, t) for n, t in zip(names, types, strict=True)]
    return Node(MatMul(), tuple(names[:2]), (names[2],), f"l{number}"), tensors


def graph_of(layers: Sequence[tuple[Node, list[Tensor]]]) -> Graph:
    """All layers in one graph, each with an input and an output of its own."""
    tensors = {tensor.name: tensor for _, each in layers for tensor in each}
    inputs = [name for node, _ in layers for name in node.inputs if tensors[name].data is None]
    outputs = [name for node, _ in layers for name in node.outputs]
    return Graph(tuple(node for node, _ in layers), tensors, tuple(inputs), tuple(outputs))


def feeds_for(graph: Graph, samples: int, rng: np.random.Generator) -> dict[str, Array]:
    """Random inputs, among them those at the ends of int8."""
    shapes = {name: (samples, *graph.tensors[name].type.shape) for name in graph.inputs}
    feeds = {name: rng.integers(-128, 128, shape).astype(np.int8) for name, shape in shapes.items()}
    for array in feeds.values():
        array[0] = rng.choice(np.array([-128, 127], np.int8), array[0].shape)
    return feeds


def run_numpy(graph: Graph, feeds: dict[str, Array], rounding: Rounding) -> dict[str, Array]:
    """What each output must be."""
    count = len(feeds[graph.inputs[0]])
    rows = [interpret.run(graph, {n: a[i] for n, a in feeds.items()}, rounding=rounding) for i in range(count)]
    return {name: np.stack([row[name] for row in rows]) for name in graph.outputs}


def run_core(
    graph: Graph, program: Program, feeds: dict[str, Array], target: str, build: Build, folder: Path
) -> dict[str, Array]:
    """What each output is on an emulated core."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in emit.emit(program).items():
        (folder / path).write_text(text)
    ends = check.interface(graph, "m")
    image = build_image(folder / "m.c", folder, ends, TARGETS[target], folder, build)
    records = pack(ends.inputs, feeds)
    return unpack(ends.outputs, run_image(image, records).output, len(records))

"""Random small networks, and their C run with an eye on every layer."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain import interpret
from toolchain.config import Options
from toolchain.emit import emit
from toolchain.importers.builder import GraphBuilder
from toolchain.ir.types import DType, TensorType
from toolchain.lower import lower
from toolchain.ops.binary import Binary
from toolchain.ops.conv import Conv, ConvTranspose
from toolchain.ops.dense import Dense
from toolchain.ops.indexing import Pad, Slice
from toolchain.ops.joining import Concat
from toolchain.ops.pool import AvgPool, MaxPool
from toolchain.ops.reduce import Reduce
from toolchain.ops.resize import Resize
from toolchain.ops.shape import Transpose
from toolchain.ops.softmax import Softmax
from toolchain.ops.unary import Unary
from toolchain.plan import plan
from toolchain.quantize import quantize
from toolchain.verify.harness import trace_records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from toolchain.ir.graph import Graph
    from toolchain.lower import Program

LARGEST = 2500
"""Elements of a tensor."""
MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
{includes}
void inlay_trace(int step, const void *data, size_t bytes);
void inlay_trace(int step, const void *data, size_t bytes)
{{
    const unsigned int head[2] = {{(unsigned int)step, (unsigned int)bytes}};
    fwrite(head, sizeof head, 1, stdout);
    fwrite(data, 1, bytes, stdout);
}}
int main(void)
{{
{runs}
    return 0;
}}
"""
RUN = """    {{
        void *const arena = malloc({prefix}_ARENA_BYTES);
        memset(arena, 0xA5, {prefix}_ARENA_BYTES);
        if (fread({name}_input0(arena), {prefix}_INPUT0_BYTES, 1, stdin) != 1) return 1;
        {name}_run(arena);
        free(arena);
    }}"""


class RandomNet:
    """Grows a graph from one image; every new layer reads the newest tensor or an older one."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.builder = GraphBuilder("random")
        shape = (1, *rng.integers(2, 14, 2).tolist(), int(rng.integers(1, 9)))
        self.live = [self.builder.input("x", TensorType(shape))]

    def pick(self, *choices: int) -> int:
        return int(self.rng.choice(choices))

    def weights(self, *shape: int) -> str:
        scale = 1 / np.sqrt(max(1, np.prod(shape[1:])))
        return self.builder.constant("w", self.rng.normal(0, scale, shape).astype(np.float32))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.builder.shape(name)

    def add(self, op, *inputs: str) -> str:
        return self.builder.add(op, inputs, origin=type(op).__name__)[0]

    def window(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[tuple[int, int], ...]]:
        kernel = (self.pick(1, 2, 3, 3, 5), self.pick(1, 2, 3, 3, 5))
        stride, dilation = (self.pick(1, 1, 2, 3), self.pick(1, 1, 2)), (self.pick(1, 1, 2), self.pick(1, 1, 2))
        padding = tuple((self.pick(*range(k)), self.pick(*range(k))) for k in kernel)
        return kernel, stride, dilation, padding

    def conv(self, x: str) -> str:
        kernel, stride, dilation, padding = self.window()
        inputs = self.shape(x)[-1]
        groups, outputs = self.rng.choice([(1, 1), (1, 4), (1, 12), (1, inputs), (inputs, inputs), (inputs, inputs)])
        if self.rng.random() < 0.4:
            kernel, stride, padding = (1, 1), (1, 1), ((0, 0), (0, 0))
        weight = self.weights(int(outputs), *kernel, inputs // int(groups))
        op = Conv(stride, dilation, padding, int(groups), (0.0, 6.0) if self.rng.random() < 0.5 else None)
        return self.add(op, x, weight, self.weights(int(outputs)))

    def up(self, x: str) -> str:
        outputs = self.pick(1, 4)
        op = ConvTranspose((2, 2), (1, 1), ((0, 1), (1, 0)), (0, 0), 1)
        return self.add(op, x, self.weights(outputs, 3, 3, self.shape(x)[-1]), self.weights(outputs))

    def pool(self, x: str) -> str:
        kernel, stride, _, padding = self.window()
        largest = MaxPool(kernel, stride, padding, (1, 1))
        return self.add(largest if self.rng.random() < 0.5 else AvgPool(kernel, stride, padding), x)

    def resize(self, x: str) -> str:
        size = (self.pick(3, 6, 9), self.pick(4, 7))
        return self.add(Resize(size, ["nearest", "linear"][self.pick(0, 1)], "half_pixel"), x)

    def join(self, x: str) -> str:
        same = [name for name in self.live if self.shape(name) == self.shape(x)]
        other = same[self.pick(*range(len(same)))]
        if self.rng.random() < 0.7:
            return self.add(Binary(["add", "mul", "sub"][self.pick(0, 1, 2)]), other, x)
        return self.add(Concat(self.pick(1, 3)), other, x)

    def move(self, x: str) -> str:
        shape = self.shape(x)
        cut = Slice((0, 1 if shape[1] > 2 else 0, 0, 0), (1, *shape[1:]), (1, 1, self.pick(1, 2), 1))
        ops = [Transpose((0, 2, 1, 3)), Pad(((0, 0), (1, 0), (0, 2), (0, 0))), cut, Reduce("mean", (2,), keepdims=True)]
        return self.add(ops[self.pick(*range(len(ops)))], x)

    def value(self, x: str) -> str:
        ops = [Unary("relu"), Unary("sigmoid"), Unary("tanh"), Softmax(3), Softmax(1)]
        return self.add(ops[self.pick(*range(len(ops)))], x)

    def dense(self, x: str) -> str:
        outputs = self.pick(3, 8, self.shape(x)[-1])
        return self.add(Dense(), x, self.weights(outputs, self.shape(x)[-1]), self.weights(outputs))

    def grow(self) -> Graph:
        kinds = [self.conv, self.conv, self.conv, self.pool, self.join, self.join, self.resize]
        kinds += [self.move, self.value, self.dense, self.up]
        while len(self.live) < 9:
            x = self.live[-1] if self.rng.random() < 0.75 else self.live[self.pick(*range(len(self.live)))]
            before = len(self.builder.nodes)
            try:
                y = kinds[self.pick(*range(len(kinds)))](x)
            except Exception:  # noqa: BLE001 - a window that does not fit; try another layer
                del self.builder.nodes[before:]
                continue
            if 0 < np.prod(self.shape(y)) <= LARGEST:
                self.live.append(y)
        return self.builder.finish([self.live[-1]])


def random_graph(seed: int) -> Graph:
    """A network of eight layers, every other one on int8."""
    rng = np.random.default_rng(seed)
    graph = RandomNet(rng).grow()
    if seed % 2 == 0:
        return graph
    (name,) = graph.inputs
    samples = {name: rng.normal(0, 1, (8, *graph.tensors[name].type.shape)).astype(np.float32)}
    options = Options(name="net", quantize="int8", io="int8", per_channel=bool(seed % 4 == 1))
    return quantize(graph, samples, options)[0]


def wrong_layers(
    graphs: Sequence[Graph], folder: Path, change: Callable[[Program], Program] | None = None
) -> list[int]:
    """Build all networks into one program, run each once, and return those with a layer that differs from numpy's.

    `change` is applied to each program before its memory is planned; such run without sanitizers.
    """
    rng = np.random.default_rng(1)
    lowered = [lower(graph, Options(name=f"n{i}")) for i, graph in enumerate(graphs)]
    programs = [plan(change(program) if change else program) for program in lowered]
    feeds = [_feed(graph, rng) for graph in graphs]
    data = b"".join(x.tobytes() for feed in feeds for x in feed.values())
    raw = _run(programs, folder, data, [] if change else ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
    records = trace_records(raw)
    wrong = []
    for index, (graph, program, feed) in enumerate(zip(graphs, programs, feeds, strict=True)):
        mine, records = records[: len(program.steps)], records[len(program.steps) :]
        if not all_equal(graph, program, feed, [data for _, data in mine]):
            wrong.append(index)
    return wrong


def _feed(graph: Graph, rng: np.random.Generator) -> dict[str, np.ndarray]:
    (name,) = graph.inputs
    kind = graph.tensors[name].type
    values = rng.normal(0, 1, kind.shape) if kind.dtype is DType.FLOAT32 else rng.integers(-128, 128, kind.shape)
    return {name: values.astype(kind.dtype.numpy)}


def _run(programs: Sequence[Program], folder: Path, data: bytes, sanitize: Sequence[str]) -> bytes:
    for program in programs:
        for name, text in emit(program, trace=True).items():
            (folder / name).write_text(text)
    names = [program.name for program in programs]
    runs = "\n".join(RUN.format(name=name, prefix=name.upper()) for name in names)
    includes = "\n".join(f'#include "{name}.h"' for name in names)
    (folder / "main.c").write_text(MAIN.format(includes=includes, runs=runs))
    command = ["gcc", "-std=c99", "-O1", *sanitize, "main.c", *(f"{name}.c" for name in names), "-lm", "-o", "program"]
    subprocess.run(command, cwd=folder, check=True)
    return subprocess.run([folder / "program"], input=data, check=True, capture_output=True).stdout


def all_equal(graph: Graph, program: Program, feed: dict[str, np.ndarray], written: Sequence[bytes]) -> bool:
    """Whether what every layer has written, after its last call, is what numpy computes."""
    values = interpret.run(graph, feed, keep=True)
    last = {step.tensors[0]: data for step, data in zip(program.steps, written, strict=True)}
    for name, data in last.items():
        expected = values[name.removesuffix(":output0")]
        found = np.frombuffer(data, expected.dtype).reshape(expected.shape)
        span = max(1e-3, float(np.abs(expected).max())) if expected.dtype.kind == "f" else 0
        if not (np.abs(found.astype(np.float64) - expected) <= 2e-5 * span).all():
            return False
    return True


def with_shorter_distances(program: Program, by: int) -> Program:
    """The program whose kernels claim to tolerate less distance than they do."""
    steps = [
        replace(step, overlaps=tuple(o and replace(o, least=o.least - by) for o in step.overlaps))
        for step in program.steps
    ]
    return replace(program, steps=tuple(steps))

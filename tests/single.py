"""One operator as a whole model: graph, samples, and the generated C as a child process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.cases import Row
from toolchain.config import Options
from toolchain.emit import emit
from toolchain.interpret import run
from toolchain.ir.graph import Graph, Node, Tensor
from toolchain.ir.types import Array, DType, TensorType
from toolchain.lower import lower
from toolchain.plan import plan
from toolchain.verify.harness import CompiledModel, Interface

SAMPLES = 6


def constants_of(row: Row) -> set[int]:
    return {*row.constants, *(i for i in (row.op.weight, row.op.bias) if i is not None)}


def random_values(row: Row, index: int, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if index in row.boolean:
        return rng.random(shape) < 0.5
    if row.positive:
        return rng.uniform(0.2, 3.0, shape).astype(np.float32)
    return rng.normal(0.0, 1.0, shape).astype(np.float32)


def graph_of(row: Row, rng: np.random.Generator) -> Graph:
    """The row as a graph: one node, its activations as inputs."""
    tensors: dict[str, Tensor] = {}
    for index, shape in enumerate(row.shapes):
        data = random_values(row, index, shape, rng) if index in constants_of(row) else None
        dtype = DType.BOOL if index in row.boolean else DType.FLOAT32
        tensors[f"in{index}"] = Tensor(f"in{index}", TensorType(shape, dtype), data)
    inputs = tuple(tensors)
    results = row.op.infer(*(t.type for t in tensors.values()))
    outputs = tuple(f"out{i}" for i in range(len(results)))
    tensors |= {name: Tensor(name, kind) for name, kind in zip(outputs, results, strict=True)}
    free = tuple(name for name in inputs if tensors[name].data is None)
    return Graph((Node(row.op, inputs, outputs, "layer"),), tensors, free, outputs)


def samples_for(graph: Graph, row: Row, rng: np.random.Generator, count: int = SAMPLES) -> dict[str, Array]:
    """Arrays of shape (count, *tensor shape) for every graph input."""
    return {
        name: random_values(row, int(name[2:]), (count, *graph.tensors[name].type.shape), rng) for name in graph.inputs
    }


def run_numpy(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The numpy meaning, one sample at a time; outputs stacked over samples."""
    rows = []
    for sample in range(len(next(iter(feeds.values())))):
        one = {name: array[sample] for name, array in feeds.items()}
        rows.append(run(graph, one))
    return {name: np.stack([row[name] for row in rows]) for name in graph.outputs}


def run_c(graph: Graph, feeds: Mapping[str, Array], folder: Path, **build) -> dict[str, Array]:
    """The C meaning: lowered, planned, emitted, built with the contract's flags under ASan and UBSan, run."""
    program = plan(lower(graph, Options(name="m")))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in emit(program).items():
        (folder / name).write_text(text)
    ends = tuple(tuple((name, graph.tensors[name].type) for name in names) for names in (graph.inputs, graph.outputs))
    with CompiledModel(folder, Interface("m", *ends), sanitize=True, **build) as compiled:
        return compiled.run(feeds)

"""States in the C: kept from run to run, exchanged, set back by a reset, and archived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from toolchain.config import Options
from toolchain.emit import emit
from toolchain.ir.graph import Graph, Node, State, Tensor
from toolchain.ir.types import DType, TensorType
from toolchain.lower import lower
from toolchain.ops.binary import Binary
from toolchain.ops.recurrent import Svdf
from toolchain.ops.shape import Reshape
from toolchain.passes import optimize
from toolchain.plan import arrange, plan
from toolchain.report.archive import load_graph, save_graph
from toolchain.verify.check import interface
from toolchain.verify.compare import interpret_batch
from toolchain.verify.harness import CompiledModel, copy_sources

if TYPE_CHECKING:
    from pathlib import Path

KIND = TensorType((1, 6))
FIRST, SECOND = np.arange(6, dtype=np.float32).reshape(1, 6), np.full((1, 6), 2, np.float32)


def network(nodes: tuple[Node, ...], states: tuple[State, ...], **constants: np.ndarray) -> Graph:
    """x in, y out, all else in between; every tensor that is no constant has one shape."""
    names = {name for node in nodes for name in (*node.inputs, *node.outputs)} - set(constants)
    names |= {name for state in states for name in (state.read, state.write)}
    tensors = {name: Tensor(name, KIND) for name in sorted(names)}
    tensors |= {name: Tensor(name, TensorType(data.shape), data) for name, data in constants.items()}
    return Graph(nodes, tensors, ("x",), ("y",), states=states)


def add(a: str, b: str, y: str) -> Node:
    return Node(Binary("add"), (a, b), (y,), f"{y} = {a} + {b}")


SUM = network((add("x", "total", "y"),), (State("total", "y", FIRST),))
EXCHANGED = network((add("x", "a", "y"),), (State("a", "b", FIRST), State("b", "a", SECOND)))
THROUGH_A_VIEW = network(
    (Node(Reshape((1, 6)), ("a",), ("view",), "view"), add("x", "a", "y"), add("y", "view", "next")),
    (State("a", "next", FIRST), State("b", "view", SECOND)),
)
NEVER_SET = network((add("x", "a", "y"),), (State("a", "a", SECOND),))
WEIGHTS = {"feature": np.eye(6, dtype=np.float32), "time": np.ones((6, 1), np.float32), "bias": FIRST[0]}
FILTER = network(
    (Node(Svdf(1), ("x", "feature", "time", "bias", "memory"), ("y", "newest"), "filter"),),
    (State("memory", "newest", np.zeros((1, 6), np.float32)),),
    **WEIGHTS,
)
GRAPHS = {"sum": SUM, "exchanged": EXCHANGED, "view": THROUGH_A_VIEW, "never set": NEVER_SET, "filter": FILTER}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_sequence_in_c_is_that_of_numpy(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    options = Options(name="m")
    graph = arrange(optimize(GRAPHS[name]), options)
    copy_sources(emit(plan(lower(graph, options))), tmp_path)
    feeds = {"x": rng.normal(size=(5, 1, 6)).astype(np.float32)}
    expected = interpret_batch(graph, feeds)["y"]
    with CompiledModel(tmp_path, interface(graph, "m"), sanitize=True) as compiled:
        for _ in range(2):
            np.testing.assert_allclose(compiled.run(feeds)["y"], expected, rtol=1e-6)


def test_numpy_follows_the_states() -> None:
    x = np.ones((4, 1, 6), np.float32)
    assert interpret_batch(SUM, {"x": x})["y"][:, 0, 0].tolist() == [1, 2, 3, 4]
    assert interpret_batch(EXCHANGED, {"x": x})["y"][:, 0, 0].tolist() == [1, 3, 1, 3]


def test_a_kernel_updates_its_state_where_it_is() -> None:
    program = plan(lower(FILTER, Options(name="m")))
    assert [step.kernel.symbol for step in program.steps] == ["svdf_f32"]
    assert program.arena_bytes == 3 * KIND.bytes
    assert program.buffers["state0"].dtype is DType.FLOAT32


def test_the_archive_keeps_states(tmp_path: Path) -> None:
    save_graph(THROUGH_A_VIEW, tmp_path / "graph.npz")
    found = load_graph(tmp_path / "graph.npz")
    assert [(state.read, state.write) for state in found.states] == [("a", "next"), ("b", "view")]
    assert np.array_equal(found.states[0].initial, FIRST)

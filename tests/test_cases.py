"""Every operator, every row of tests/cases.py: numpy against C, integers against floats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cases import CASES, EXERCISED_BY_ALL, Row
from tests.single import SAMPLES, graph_of, run_c, run_numpy, samples_for
from toolchain.config import Options
from toolchain.ir.types import DType
from toolchain.ops.base import FAMILIES, OPERATORS
from toolchain.quantize import quantize

ROWS = [row for rows in CASES.values() for row in rows]
TEMPLATES = Path(__file__).resolve().parent.parent / "templates/ops"
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def test_every_operator_has_a_row_and_a_template() -> None:
    assert set(OPERATORS) - EXERCISED_BY_ALL == set(CASES)
    for name, family in FAMILIES.items():
        assert OPERATORS[name].view or (TEMPLATES / f"{family}.c.j2").is_file(), name


@rows
def test_float_c_equals_numpy(row: Row, rng: np.random.Generator, tmp_path: Path) -> None:
    graph = graph_of(row, rng)
    feeds = samples_for(graph, row, rng)
    expected, found = run_numpy(graph, feeds), run_c(graph, feeds, tmp_path)
    for name in graph.outputs:
        span = max(float(np.ptp(expected[name].astype(np.float64))), 1e-6)
        error = np.abs(expected[name].astype(np.float64) - found[name].astype(np.float64).reshape(expected[name].shape))
        assert error.max() <= 1e-5 * max(span, float(np.abs(expected[name].astype(np.float64)).max()))


@pytest.mark.parametrize(
    ("row", "per_channel"),
    [pytest.param(row, False, id=f"{row.name}-tensor") for row in ROWS]
    + [pytest.param(row, True, id=f"{row.name}-channel") for row in ROWS if row.op.weight is not None],
)
def test_int8_c_equals_numpy_and_stays_near_float(
    row: Row, per_channel: bool, rng: np.random.Generator, tmp_path: Path
) -> None:
    graph = graph_of(row, rng)
    feeds = samples_for(graph, row, rng, 32)
    if all(graph.tensors[name].type.dtype is DType.BOOL for name in graph.inputs):
        pytest.skip("booleans are not quantized")
    options = Options(name="m", quantize="int8", per_channel=per_channel)
    integer, report = quantize(graph, feeds, options)
    few = {name: array[:SAMPLES] for name, array in feeds.items()}
    expected, found = run_numpy(integer, few), run_c(integer, few, tmp_path)
    real = run_numpy(graph, few)
    for name in graph.outputs:
        c_values = found[name].reshape(expected[name].shape)
        if report.fallbacks:
            wanted = expected[name].astype(np.float64)
            assert np.abs(wanted - c_values).max() <= 0.02 * np.ptp(wanted)
        else:
            assert np.array_equal(expected[name], c_values), "C and numpy differ"
        if real[name].dtype == np.float32:
            noise = np.mean((expected[name] - real[name]) ** 2)
            assert noise <= (0.05 if row.jumps else 0.005) * max(
                float(np.mean(real[name] ** 2)), float(np.var(real[name])), 1e-4
            )

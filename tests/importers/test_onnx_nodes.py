"""Every operator of ONNX's own conformance suite: right, or refused.

`unsupported_onnx_nodes.txt` lists the cases that are refused (`--update-golden` writes it anew); none may join it
unseen.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from toolchain import importers, passes
from toolchain.errors import InputError, UnsupportedError
from toolchain.interpret import run

pytestmark = pytest.mark.slow
RECORDED = Path(__file__).with_name("unsupported_onnx_nodes.txt")
PARAMETERS = {
    "BatchNormalization", "Clip", "Conv", "ConvInteger", "ConvTranspose", "DequantizeLinear", "Dropout",
    "GroupNormalization", "InstanceNormalization", "LayerNormalization", "MatMulInteger", "OneHot", "Pad",
    "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RMSNormalization", "Range", "Resize",
}  # fmt: skip
"""Operators whose inputs but the first are constants here, as they are in models."""
DIFFERENT = {
    # The coordinates of align_corners come from the real extent (2.4), everywhere else from the actual one (2).
    "test_resize_downsample_scales_linear_align_corners",
}


def array(value: Any) -> np.ndarray:
    """A tensor of the suite. Raises TypeError for sequences and the like."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if not isinstance(value, np.ndarray | np.generic | int | float):
        raise TypeError(type(value).__name__)
    return np.asarray(value)


def with_constants(model: onnx.ModelProto, values: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Make constants of the inputs that are constants in practice; the others by name."""
    feeds: dict[str, np.ndarray] = {}
    constants = model.graph.node[0].op_type in PARAMETERS
    for number, (declared, value) in enumerate(zip(list(model.graph.input), values, strict=True)):
        if number and (constants or value.dtype.kind in "iub" or value.size == 0):
            model.graph.initializer.append(numpy_helper.from_array(value, declared.name))
        else:
            feeds[declared.name] = value
    return feeds


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    if ours.shape != theirs.shape or theirs.dtype.kind in "OUS":
        return False
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2}.get(theirs.dtype.name, 1e-4)
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    return np.allclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)


def verdict(case: Any) -> bool | None:
    """Whether the results are right; None for what is refused or is no network of tensors."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    given, wanted = case.data_sets[0]
    try:
        values, expected = [array(value) for value in given], [array(value) for value in wanted]
        feeds = with_constants(model, values)
        graph = passes.optimize(importers.load(model), "nchw")
    except (TypeError, ValueError, InputError, UnsupportedError):
        return None
    kinds = {name: graph.tensors[name].type.dtype.numpy for name in graph.inputs}
    found = run(graph, {name: feeds[graph.port(name).name].astype(kind) for name, kind in kinds.items()})
    named = {graph.port(name).name: np.asarray(found[name]) for name in graph.outputs}
    outputs = [output.name for output in model.graph.output]
    return all(name in named and close(named[name], each) for name, each in zip(outputs, expected, strict=True))


def test_every_operator_is_right_or_refused(request: pytest.FixtureRequest) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        cases = [case for case in load_model_tests(kind="node") if "_expanded" not in case.name]
        verdicts = {case.name: verdict(case) for case in cases}
    assert {name for name, right in verdicts.items() if right is False} <= DIFFERENT
    refused = {name for name, right in verdicts.items() if right is None}
    if request.config.getoption("--update-golden"):
        RECORDED.write_text("\n".join([f"# onnx {onnx.__version__}", *sorted(refused)]) + "\n")
    version, *recorded = RECORDED.read_text().splitlines()
    if version == f"# onnx {onnx.__version__}":
        assert refused == set(recorded)
    assert sum(right is True for right in verdicts.values()) > len(verdicts) // 3

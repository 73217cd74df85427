"""Resizing: numpy against PyTorch, ONNX's evaluator and TensorFlow Lite's integer formula, the C against numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from tests.ops.native import assert_formatted, check
from toolchain.ir.types import QuantParams
from toolchain.ops.resize import Resize

QUANT = QuantParams((0.1,), 4)
COORDINATES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]


def onnx_resize(x, size, **attributes):
    """Channels-last `x` through ONNX's Resize on sizes."""
    planes = np.moveaxis(x, -1, 1)
    node = onnx.helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **attributes)
    info = onnx.helper.make_tensor_value_info
    sizes = onnx.numpy_helper.from_array(np.array([*planes.shape[:2], *size], np.int64), "sizes")
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph([node], "g", [info("x", kind, planes.shape)], [info("y", kind, None)], [sizes])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    return np.moveaxis(ReferenceEvaluator(model).run(None, {"x": planes})[0], 1, -1)


@pytest.mark.parametrize("coordinate", COORDINATES)
@pytest.mark.parametrize("size", [(8, 10), (3, 2), (1, 7)])
def test_linear_equals_onnx(coordinate, size, rng):
    x = rng.normal(size=(1, 4, 5, 3)).astype(np.float32)
    (y,) = check(Resize(size, "linear", coordinate), x, rtol=1e-6)
    expected = onnx_resize(x, size, mode="linear", coordinate_transformation_mode=coordinate)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("coordinate", COORDINATES)
@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_nearest_equals_onnx(coordinate, rounding, rng):
    x = rng.normal(size=(1, 4, 6, 3)).astype(np.float32)
    size = (8, 3)
    op = Resize(size, "nearest", coordinate, rounding, scales=(2.0, 0.5))
    attributes = {"mode": "nearest", "coordinate_transformation_mode": coordinate, "nearest_mode": rounding}
    np.testing.assert_array_equal(op.reference(x)[0], onnx_resize(x, size, **attributes))


def test_nearest_c(rng):
    check(Resize((8, 3)), rng.normal(size=(2, 4, 6, 3)).astype(np.float32))
    check(Resize((7,)), rng.integers(-128, 128, (2, 4, 3)).astype(np.int8), quant=[QUANT, QUANT])


@pytest.mark.parametrize("size", [5, 7, 12, 31])
def test_nearest_equals_torch(size, rng):
    x = rng.normal(size=(2, 10, 3)).astype(np.float32)
    planes = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    for mode, coordinate, rounding in (
        ("nearest", "asymmetric", "floor"),
        ("nearest-exact", "half_pixel", "round_prefer_ceil"),
    ):
        expected = torch.nn.functional.interpolate(planes, size, mode=mode)
        (y,) = Resize((size,), "nearest", coordinate, rounding).reference(x)
        np.testing.assert_array_equal(y, np.moveaxis(expected.numpy(), 1, -1))


def test_linear_1d_equals_torch(rng):
    x = rng.normal(size=(2, 10, 3)).astype(np.float32)
    planes = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    for corners in (False, True):
        (y,) = check(Resize((17,), "linear", "align_corners" if corners else "half_pixel"), x, rtol=1e-6)
        expected = torch.nn.functional.interpolate(planes, 17, mode="linear", align_corners=corners)
        np.testing.assert_allclose(y, np.moveaxis(expected.numpy(), 1, -1), atol=1e-5)


def tflite_axis(i, length, count, coordinate):
    """ComputeInterpolationValuesInteger: (scaled value, lower, upper)."""
    scale = (1024 * length + count // 2) // count
    if coordinate == "align_corners" and count > 1:
        scale = (1024 * (length - 1) + (count - 1) // 2) // (count - 1)
    value = i * scale + (scale // 2 - 512 if coordinate == "half_pixel" else 0)
    return value, max(int(value / 1024), 0), min(int((value + 1023) / 1024), length - 1)


@pytest.mark.parametrize("coordinate", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("size", [(8, 10), (3, 2), (7, 13)])
def test_int8_linear_is_tflites(coordinate, size, rng):
    x = rng.integers(-128, 128, (1, 4, 5, 2)).astype(np.int8)
    (y,) = check(Resize(size, "linear", coordinate), x, quant=[QUANT, QUANT])
    for row, column, channel in np.ndindex(y.shape[1:]):
        v, y0, y1 = tflite_axis(row, 4, size[0], coordinate)
        h, x0, x1 = tflite_axis(column, 5, size[1], coordinate)
        plane = x[0, :, :, channel].astype(int)
        above = plane[y0, x0] * (1024 - (h - 1024 * x0)) + plane[y0, x1] * (h - 1024 * x0)
        below = plane[y1, x0] * (1024 - (h - 1024 * x0)) + plane[y1, x1] * (h - 1024 * x0)
        total = above * (1024 - (v - 1024 * y0)) + below * (v - 1024 * y0)
        assert y[0, row, column, channel] == int((total + (1 << 19 if total > 0 else -(1 << 19))) / (1 << 20))


def test_int8_linear_1d_and_edges(rng):
    x = rng.integers(-128, 128, (1, 4, 3)).astype(np.int8)
    check(Resize((9,), "linear", "asymmetric", scales=(2.3,)), x, quant=[QUANT, QUANT])
    check(Resize((1,), "linear", "pytorch_half_pixel"), x, quant=[QUANT, QUANT])


def test_a_larger_batch(rng):
    x = rng.normal(size=(3, 4, 4, 2)).astype(np.float32)
    for mode in ("nearest", "linear"):
        assert Resize((8, 8), mode).reference(x)[0].shape == (3, 8, 8, 2)


def test_kernels_are_laid_out_as_clang_format_does():
    x, op = np.zeros((1, 4, 4, 2), np.float32), Resize((8, 8), "linear")
    assert_formatted([(op, [x], []), (op, [x.astype(np.int8)], [QUANT, QUANT])])

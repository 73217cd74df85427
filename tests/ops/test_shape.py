"""Data movement: numpy against numpy, ONNX and PyTorch, the C against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.ops.native import assert_formatted, check, operands_of
from toolchain.ir.types import QuantParams
from toolchain.ops.indexing import END, Gather, Pad, Slice
from toolchain.ops.joining import Concat, Split
from toolchain.ops.shape import Copy, DepthToSpace, Expand, Reshape, SpaceToDepth, Tile, Transpose

EXAMPLES = [
    (Copy(), (2, 3, 4), lambda x: x),
    (Transpose((0, 3, 1, 2)), (2, 3, 4, 5), lambda x: x.transpose(0, 3, 1, 2)),
    (Transpose((0, 2, 1, 3)), (1, 3, 4, 8), lambda x: x.transpose(0, 2, 1, 3)),
    (Transpose((5, 2, 0, 4, 1, 3)), (2, 3, 2, 3, 2, 3), lambda x: x.transpose(5, 2, 0, 4, 1, 3)),
    (Transpose((1, 0)), (1, 7), lambda x: x.T),
    (Slice((0, 1, 5), (END, 4, -1), (1, 2, -2)), (2, 5, 6), lambda x: x[:, 1:4:2, 5::-2]),
    (Slice((0, 1), (END, 3), (1, 1)), (1, 4), lambda x: x[:, 1:3]),
    (Slice((6,), (1,), (-2,)), (7,), lambda x: x[6:1:-2]),
    (Tile((1, 2, 3)), (2, 3, 2), lambda x: np.tile(x, (1, 2, 3))),
    (Expand((2, 3, 4)), (3, 1), lambda x: np.broadcast_to(x, (2, 3, 4))),
    (Gather(1, (2, 0, -1, 2), (2, 2)), (2, 3, 4), lambda x: np.take(x, [[2, 0], [-1, 2]], 1)),
    (Gather(2, (3, 0, 1), (3,)), (2, 3, 4), lambda x: x[:, :, [3, 0, 1]]),
    (Gather(1, (1,), ()), (2, 3, 4), lambda x: x[:, 1]),
    (Gather(1, (2, 1, 0), (3,)), (2, 3, 4), lambda x: x[:, ::-1]),
    (Pad(((0, 0), (1, 2), (0, 3), (0, 0)), value=2.0), (2, 3, 2, 3), None),
    (Pad(((0, 0), (0, 0), (0, 0), (1, 2))), (2, 3, 2, 3), None),
    (Pad(((2, 1),), value=1.0), (5,), None),
    (Pad(((0, 0), (1, 2), (2, 1), (0, 0)), "reflect"), (2, 3, 4, 3), None),
    (Pad(((0, 0), (1, 2), (2, 1)), "edge"), (2, 3, 4), None),
    (Pad(((0, 0), (1, 2), (0, 0)), "symmetric"), (1, 3, 4), None),
]


@pytest.mark.parametrize(("op", "shape", "oracle"), EXAMPLES)
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_movement(op, shape, oracle, dtype, rng):
    x = rng.integers(-128, 128, shape).astype(dtype)
    if oracle is None:
        value = {"constant_values": op.value} if op.mode == "constant" else {}
        expected = np.pad(x, op.padding, op.mode, **value)
    else:
        expected = oracle(x)
    (y,) = check(op, x)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.bool_, np.uint8])
def test_other_element_types(dtype, rng):
    x = rng.integers(0, 2, (2, 3, 4)).astype(dtype)
    check(Transpose((0, 2, 1)), x)


def test_transpose_merges_axes():
    x = np.zeros((1, 4, 5, 8), np.float32)
    (call,) = Transpose((0, 3, 1, 2)).lower(operands_of(Transpose((0, 3, 1, 2)), [x]))
    assert call.kernel.symbol == "copy_strided1_f32"
    assert (call.record["shape"], call.record["run"], call.record["step"]) == ((8,), 20, 8)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_depth_to_space_and_back(mode, dtype, rng):
    x = rng.integers(-9, 9, (2, 3, 2, 12)).astype(dtype)
    (wide,) = check(DepthToSpace(2, mode), x)
    if mode == "CRD":
        shuffled = torch.pixel_shuffle(torch.from_numpy(x).permute(0, 3, 1, 2), 2)
        np.testing.assert_array_equal(wide, shuffled.permute(0, 2, 3, 1).numpy())
    else:
        blocks = x.reshape(2, 3, 2, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 4, 3)
        np.testing.assert_array_equal(wide, blocks)
    (back,) = check(SpaceToDepth(2, mode), wide)
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat_and_split(axis, rng):
    shapes = [tuple(n + (i if a == axis else 0) for a, n in enumerate((2, 3, 4))) for i in range(3)]
    parts = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    (joined,) = check(Concat(axis), *parts)
    np.testing.assert_array_equal(joined, np.concatenate(parts, axis))
    again = check(Split(axis, tuple(p.shape[axis] for p in parts)), joined)
    for part, same in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part, same)


def test_concat_rescales_int8(rng):
    a, b = (rng.integers(-128, 128, (2, 300)).astype(np.int8) for _ in range(2))
    (y,) = check(Concat(1), a, b, quant=[QuantParams((0.5,), 3), QuantParams((0.25,), -5), QuantParams((0.5,), 3)])
    np.testing.assert_array_equal(y[:, :300], a)
    real = (b.astype(np.int64) + 5) * 0.5
    expected = np.clip(np.copysign(np.floor(np.abs(real) + 0.5), real) + 3, -128, 127)
    np.testing.assert_array_equal(y[:, 300:], expected)


def test_int8_pad_is_real(rng):
    quant = QuantParams((0.1,), 7)
    x = rng.integers(-128, 128, (1, 3, 3, 2)).astype(np.int8)
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    assert check(Pad(pads), x, quant=[quant, quant])[0][0, 0, 0, 0] == 7
    assert check(Pad(pads, value=1.0), x, quant=[quant, quant])[0][0, 0, 0, 0] == 17
    assert check(Pad(pads, value=-np.inf), x, quant=[quant, quant])[0][0, 0, 0, 0] == -128


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Reshape((1, 12)), (1, 3, 4)),
        (Slice((0, 1, 0), (END, 3, END), (1, 1, 1)), (1, 3, 4)),
        (Expand((1, 3, 4)), (1, 1, 4)),
        (Pad(((0, 0), (1, 1), (0, 0))), (1, 3, 4)),
    ],
)
def test_a_larger_batch_stays_in_front(op, shape, rng):
    x = rng.normal(size=(5, *shape[1:])).astype(np.float32)
    (whole,) = op.reference(x)
    np.testing.assert_array_equal(whole, np.concatenate([op.reference(row[None])[0] for row in x]))


def test_constants_join_a_larger_batch():
    token, x = np.ones((1, 1, 2), np.float32), np.zeros((3, 4, 2), np.float32)
    assert Concat(1).reference(token, x)[0].shape == (3, 5, 2)


@pytest.mark.parametrize(
    ("op", "shape"),
    [(Reshape((5,)), (2, 3)), (Gather(0, (3,), (1,)), (3,)), (Split(0, (1, 1)), (3,)), (Transpose((0, 0)), (2, 2))],
)
def test_impossible_shapes(op, shape):
    with pytest.raises(ValueError, match=r"\d"):
        operands_of(op, [np.zeros(shape, np.float32)])


def test_kernels_are_laid_out_as_clang_format_does():
    quant = [QuantParams((0.5,)), QuantParams((0.25,)), QuantParams((0.5,))]
    small = np.zeros((2, 3, 4), np.int8)
    cases = [(op, [np.zeros(shape, t)], []) for op, shape, _ in EXAMPLES for t in (np.float32, np.int8)]
    assert_formatted([*cases, (Concat(1), [small, small], quant)])

"""Normalisation: numpy against PyTorch, the C against numpy."""

from __future__ import annotations

import numpy as np
import torch

from tests.ops.native import assert_formatted, check
from toolchain.ops.normalize import LRN, GroupNorm, LayerNorm


def planes(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def test_layer_norm(rng):
    x, scale, bias = (rng.normal(size=s).astype(np.float32) for s in ((2, 5, 6, 4), (6, 4), (6, 4)))
    (y,) = check(LayerNorm(2, 1e-5), x, scale, bias, rtol=1e-6)
    expected = torch.nn.functional.layer_norm(
        *map(torch.from_numpy, (x,)), (6, 4), *map(torch.from_numpy, (scale, bias))
    )
    np.testing.assert_allclose(y, expected.numpy(), atol=1e-5)


def test_group_and_instance_norm(rng):
    x, scale, bias = (rng.normal(size=s).astype(np.float32) for s in ((2, 5, 3, 6), (6,), (6,)))
    weights = [torch.from_numpy(scale), torch.from_numpy(bias)]
    for groups in (1, 2, 6):
        (y,) = check(GroupNorm(groups, 1e-5), x, scale, bias, rtol=1e-6)
        expected = torch.nn.functional.group_norm(planes(x), groups, *weights)
        np.testing.assert_allclose(y, np.moveaxis(expected.numpy(), 1, -1), atol=1e-5)
    instance = torch.nn.functional.instance_norm(planes(x), weight=weights[0], bias=weights[1])
    np.testing.assert_allclose(y, np.moveaxis(instance.numpy(), 1, -1), atol=1e-5)


def test_local_response(rng):
    x = rng.normal(size=(2, 5, 3, 7)).astype(np.float32)
    (y,) = check(LRN(3, 0.1, 0.75, 2.0), x, rtol=1e-6)
    expected = torch.nn.functional.local_response_norm(planes(x), 3, 0.1, 0.75, 2.0)
    np.testing.assert_allclose(y, np.moveaxis(expected.numpy(), 1, -1), atol=1e-6)
    check(LRN(4, 0.1, 0.75, 2.0), x, rtol=1e-6)


def test_kernels_are_laid_out_as_clang_format_does():
    x, scale = np.zeros((1, 2, 2, 4), np.float32), np.zeros(4, np.float32)
    norms = [(op, [x, scale, scale], []) for op in (LayerNorm(3, 1e-5), GroupNorm(2, 1e-5))]
    assert_formatted([*norms, (LRN(3, 0.1, 0.75, 2.0), [x], [])])

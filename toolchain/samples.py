"""Calibration, evaluation and test data: read, checked against the model's inputs, brought into the C's layout.

Everywhere else a batch of samples is {graph input: array (samples, *tensor shape)} in the C's layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.errors import InputError
from toolchain.fixedpoint import round_half_away
from toolchain.ir.graph import Graph
from toolchain.ir.types import Array, DType, QuantParams, TensorType

Feeds = dict[str, Array]
LABELS = "y"


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Named arrays as the user gave them, and the words to name their source in errors."""

    source: str
    arrays: Mapping[str, Array]


def read_samples(data: Any, role: str) -> Samples:
    """Samples from a path (.npz, .npy), one array, a tuple of arrays or a mapping. `role` names the flag."""
    if isinstance(data, Samples):
        return data
    if isinstance(data, (str, Path)):
        return Samples(str(data), _read_file(Path(data), role))
    if isinstance(data, Mapping):
        return Samples(role, {str(key): _array(value, role) for key, value in data.items()})
    if isinstance(data, tuple):
        return Samples(role, {f"#{index}": _array(value, role) for index, value in enumerate(data)})
    return Samples(role, {"x": _array(data, role)})


def _array(value: Any, role: str) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{role}: not one array ({error}), expected samples of one shape") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"{role}: found an array of {array.dtype}, expected numbers")
    return array


def _read_file(path: Path, role: str) -> dict[str, Array]:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a .npz or .npy file for {role}")
    if not path.is_file():
        raise InputError(f"{path}: not there; expected a .npz or .npy file for {role}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty; expected a .npz or .npy file for {role}")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"x": _array(loaded, str(path))}
            return {key: _array(loaded[key], f"{path}: {key}") for key in loaded.files}
    except InputError:
        raise
    except Exception:  # noqa: BLE001 - numpy raises many types for foreign files
        raise InputError(
            f"{path}: not a .npz or .npy file of numbers; write it with numpy.savez(path, x=...)"
        ) from None


def framework_shape(graph: Graph, name: str) -> tuple[int, ...]:
    """The shape of an input or output as the framework has it."""
    shape = graph.tensors[name].type.shape
    permutation = graph.port(name).permutation
    if permutation is None:
        return shape
    outside = [0] * len(shape)
    for c_axis, axis in enumerate(permutation):
        outside[axis] = shape[c_axis]
    return tuple(outside)


def to_c(graph: Graph, name: str, array: Array) -> Array:
    """(samples, *framework shape) to (samples, *C shape)."""
    permutation = graph.port(name).permutation
    if permutation is None:
        return array
    return np.transpose(array, (0, *(axis + 1 for axis in permutation)))


def to_framework(graph: Graph, name: str, array: Array) -> Array:
    """(samples, *C shape) to (samples, *framework shape)."""
    permutation = graph.port(name).permutation
    if permutation is None:
        return array
    return np.asarray(np.transpose(array, (0, *(int(axis) + 1 for axis in np.argsort(permutation)))))


def feeds(graph: Graph, samples: Samples) -> Feeds:
    """The samples as feeds of `graph`. Raises InputError for missing inputs and wrong shapes or types."""
    found = {name: _pick(graph, samples, index) for index, name in enumerate(graph.inputs)}
    ready = {name: _feed(graph, name, array, samples.source) for name, array in found.items()}
    counts = {graph.port(name).name: len(array) for name, array in ready.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"{samples.source}: found different numbers of samples {counts}, expected one number")
    if not all(counts.values()):
        raise InputError(f"{samples.source}: found no samples, expected at least one")
    return ready


def _pick(graph: Graph, samples: Samples, index: int) -> Array:
    name = graph.inputs[index]
    keys = [graph.port(name).name, name, f"#{index}"]
    if len(graph.inputs) == 1:
        others = [key for key in samples.arrays if key != LABELS]
        keys += ["x", *(others if len(others) == 1 else [])]
    for key in keys:
        if key in samples.arrays:
            return samples.arrays[key]
    wanted = ", ".join(graph.port(each).name for each in graph.inputs)
    raise InputError(f"{samples.source}: found arrays {sorted(samples.arrays)}, expected one per model input: {wanted}")


def _feed(graph: Graph, name: str, array: Array, source: str) -> Array:
    label = f"{source}: {graph.port(name).name}"
    stacked = _stack(array, framework_shape(graph, name), label)
    return np.ascontiguousarray(to_c(graph, name, _typed(stacked, graph.tensors[name].type, label)))


def _stack(array: Array, shape: tuple[int, ...], label: str) -> Array:
    """The array with one leading axis of samples over the model's shape (whose own batch is cut from it)."""
    if shape and array.shape[1:] == shape[1:] and array.ndim and array.shape[0] % shape[0] == 0:
        return np.reshape(array, (array.shape[0] // shape[0], *shape))
    if array.shape[1:] == shape and array.ndim:
        return array
    expected = ", ".join(["samples", *map(str, shape[1:])])
    raise InputError(f"{label}: found shape {array.shape}, expected ({expected}); the first axis runs over samples")


def _typed(array: Array, kind: TensorType, label: str) -> Array:
    wanted = kind.dtype.numpy
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{label}: found NaN or infinity, expected finite numbers")
    if array.dtype.kind == "f" and kind.quant is not None:
        return quantize_array(array, kind.dtype, kind.quant)
    if kind.dtype is DType.FLOAT32 or array.dtype == wanted or array.dtype.kind == "b":
        return np.asarray(array.astype(wanted))
    if not np.array_equal(array.astype(wanted), array):
        raise InputError(f"{label}: found {array.dtype} values that do not fit {wanted}")
    return np.asarray(array.astype(wanted))


def quantize_array(array: Array, dtype: DType, quant: QuantParams) -> Array:
    """Reals to integers, half away from zero, saturating."""
    scaled = np.asarray(array, np.float64) / quant.scale[0]
    low, high = dtype.limits
    return np.asarray(np.clip(round_half_away(scaled) + quant.zero_point, low, high), dtype.numpy)


def dequantize_array(array: Array, kind: TensorType) -> Array:
    """Integers to reals as float64; arrays without quantization as they are."""
    if kind.quant is None:
        return array
    return (np.asarray(array, np.float64) - kind.quant.zero_point) * kind.quant.scale[0]


def labels(samples: Samples) -> Array | None:
    """The labels `y`, None when there are none."""
    return samples.arrays.get(LABELS)


def synthetic(graph: Graph, count: int = 16) -> Feeds:
    """Test inputs that need no data: the corners of each integer type, then seeded noise."""
    generator = np.random.default_rng(20)
    return {name: _noise(graph.tensors[name].type, count, generator) for name in graph.inputs}


def _noise(kind: TensorType, count: int, generator: np.random.Generator) -> Array:
    shape = (count, *kind.shape)
    if kind.dtype is DType.FLOAT32:
        return generator.standard_normal(shape).astype(np.float32)
    if kind.quant is None and kind.dtype in {DType.INT32, DType.INT64, DType.BOOL, DType.INT16}:
        return generator.integers(0, 2, shape).astype(kind.dtype.numpy)
    low, high = kind.dtype.limits
    noise = generator.integers(low, high, shape, endpoint=True).astype(kind.dtype.numpy)
    noise[0], noise[1 % count] = low, high
    return noise


def head(batch: Feeds, count: int) -> Feeds:
    """The first samples of a batch."""
    return {name: array[:count] for name, array in batch.items()}

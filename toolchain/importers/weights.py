"""The weights of a model by the framework's own names, in the framework's own layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import InputError
from toolchain.importers import check_path, framework, is_pickled
from toolchain.importers.builder import one_line
from toolchain.importers.quiet import quiet
from toolchain.ir.graph import unused_name

if TYPE_CHECKING:
    from toolchain.ir.types import Array


def extract_weights(model: Any) -> dict[str, Array]:
    """Return {name: array} for a model file, a state_dict file or mapping, or a framework's live model.

    Raises InputError for files that hold no weights; a pickled file is only read as a state_dict.
    """
    if isinstance(model, str | Path) and is_pickled(Path(model)):
        return _of_state_dict(_read_state_dict(check_path(Path(model))), str(model))
    if isinstance(model, Mapping):
        return _of_state_dict(model, "state_dict")
    readers = {"onnx": _of_onnx, "torch": _of_torch, "keras": _of_keras, "tflite": _of_tflite}
    return readers[framework(model)](model)


def _of_onnx(model: Any) -> dict[str, Array]:
    from onnx import numpy_helper

    from toolchain.importers.onnx.reading import parse

    subject = str(model) if isinstance(model, str | Path) else model.graph.name or "model"
    proto = parse(Path(model), subject) if isinstance(model, str | Path) else model
    weights = {}
    for tensor in proto.graph.initializer:
        try:  # the error names the tensor
            weights[tensor.name] = np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError) as error:  # noqa: PERF203
            text = f"its data does not fit shape {list(tensor.dims)}: {one_line(str(error))}"
            raise InputError(f"{subject}: {one_line(tensor.name)}: {text}") from None
    return weights


def _of_torch(model: Any) -> dict[str, Array]:
    """Parameters, then buffers; a tensor used twice appears under its first name."""
    if isinstance(model, str | Path):
        from toolchain.importers.torch import read_program

        model = read_program(Path(model))
    return _arrays((*model.named_parameters(), *model.named_buffers()))


def _read_state_dict(path: Path) -> Any:
    """The unpickled tensors of a file; nothing but tensors and containers is ever loaded."""
    from toolchain.importers.torch import require_torch

    torch = require_torch(str(path))
    try:
        with quiet():
            return torch.load(str(path), map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001  (torch raises whatever its reader meets; its text advises unsafe loading)
        raise InputError(
            f"{path}: holds more than weights, or is no PyTorch file; expected what "
            'torch.save(model.state_dict(), "weights.pt") writes'
        ) from None


def _of_state_dict(state: Any, subject: str) -> dict[str, Array]:
    """A state_dict, or a checkpoint that keeps one under `state_dict` or `model`."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    tensors = [(str(k), v) for k, v in state.items() if _is_tensor(v)] if isinstance(state, Mapping) else []
    if not tensors:
        raise InputError(f"{subject}: no weights inside ({type(state).__name__}), expected a state_dict of tensors")
    return _arrays(tensors)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _arrays(tensors: Iterable[tuple[str, Any]]) -> dict[str, Array]:
    return {name: _array(tensor) for name, tensor in tensors}


def _array(tensor: Any) -> Array:
    """A torch tensor (or array) as numpy; half precision that numpy lacks becomes float32."""
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    plain = tensor.detach().cpu()
    plain = plain.dequantize() if plain.is_quantized else plain
    return np.asarray((plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy())


def _of_keras(model: Any) -> dict[str, Array]:
    if isinstance(model, str | Path):
        from toolchain.importers import keras

        model = keras.load(Path(model))
    variables = model.weights if hasattr(model, "weights") else getattr(model, "variables", ())
    named: dict[str, Array] = {}
    for variable in variables:
        name = str(getattr(variable, "path", None) or variable.name)
        named[unused_name(name, named, "_")] = np.asarray(variable.numpy())
    return named


def _of_tflite(model: Any) -> dict[str, Array]:
    """The constant tensors, as the file stores them (quantized ones as integers)."""
    import tflite

    from toolchain.importers.tflite.reading import damaged

    subject = str(model) if isinstance(model, str | Path) else "model"
    data = Path(model).read_bytes() if isinstance(model, str | Path) else bytes(model)
    if data[4:8] != b"TFL3":
        raise InputError(f"{subject}: not a TensorFlow Lite file, expected the identifier TFL3 at byte 4")
    try:
        return _tflite_constants(tflite.Model.GetRootAs(data, 0))
    except Exception:  # noqa: BLE001  (flatbuffers reads a damaged file into any error)
        raise damaged(subject, data) from None


TFLITE_TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "|u1", 4: "<i8", 6: "|b1", 7: "<i2", 9: "|i1", 10: "<f8", 15: "<u4"}
"""TensorFlow Lite element type -> numpy."""


def _tflite_constants(model: Any) -> dict[str, Array]:
    named: dict[str, Array] = {}
    for at in range(model.SubgraphsLength()):
        graph = model.Subgraphs(at)
        for index in range(graph.TensorsLength()):
            tensor = graph.Tensors(index)
            data = model.Buffers(tensor.Buffer()).DataAsNumpy()
            kind = TFLITE_TYPES.get(tensor.Type())
            if isinstance(data, np.ndarray) and data.size and kind:
                shape = tuple(int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength()))
                name = tensor.Name().decode(errors="replace")
                named[unused_name(name, named, "_")] = np.frombuffer(data.tobytes(), kind).reshape(shape)
    return named

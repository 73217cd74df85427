"""From any framework's model to a Graph. Frameworks are imported only when a model of theirs is met."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.errors import InputError

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph

InputShapes = tuple[tuple[str, tuple[int, ...]], ...]
"""(input name, shape) pairs; the empty name means the model's only input."""

ACCEPTED = ".onnx, .tflite, .keras, .h5, .pt2 or a SavedModel folder"


def load(model: Any, *, input_shape: InputShapes = (), example_inputs: Any = None) -> Graph:
    """Return the Graph of a model file or of a framework's live model.

    `input_shape` closes open dimensions; `example_inputs` are what a torch.nn.Module is traced with.
    Raises InputError for what is no model, UnsupportedError naming every layer without a C form.
    """
    match framework(model):
        case "onnx":
            from toolchain.importers import onnx

            return onnx.load(model, input_shape=input_shape)
        case "tflite":
            from toolchain.importers import tflite

            return tflite.load(model, input_shape=input_shape)
        case "torch":
            from toolchain.importers import torch

            return torch.load(model, input_shape=input_shape, example_inputs=example_inputs)
        case "keras":
            from toolchain.importers import keras

            return keras.load_graph(model, input_shape=input_shape)
        case other:
            raise AssertionError(other)


def framework(model: Any) -> str:
    """Return which importer reads a model: onnx, tflite, torch or keras. Raises InputError for none."""
    if isinstance(model, str | Path):
        return _framework_of_path(check_path(Path(model)))
    return _framework_of_object(model)


def check_path(path: Path) -> Path:
    """Return the path of a model that is there and not empty. Raises InputError otherwise."""
    try:
        there = path.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a model ({ACCEPTED})") from None
    if not there:
        raise InputError(f"{path}: no such file, expected a model ({ACCEPTED})")
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise InputError(f"{path}: a folder without saved_model.pb, expected {ACCEPTED}")
        return path
    if not path.is_file():
        raise InputError(f"{path}: not a regular file, expected {ACCEPTED}")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {ACCEPTED}") from None
    if not first:
        raise InputError(f"{path}: the file is empty, expected {ACCEPTED}")
    return path


def is_pickled(path: Path) -> bool:
    """Whether the suffix is that of PyTorch's pickled files."""
    return path.suffix.lower() in {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}


def _framework_of_path(path: Path) -> str:
    if path.is_dir():
        return "keras"
    if is_pickled(path):
        raise InputError(_pickle_refusal(path))
    by_suffix = {
        ".onnx": "onnx",
        ".tflite": "tflite",
        ".keras": "keras",
        ".h5": "keras",
        ".hdf5": "keras",
        ".pt2": "torch",
    }
    if path.name == "saved_model.pb":
        raise InputError(f"{path}: a part of a SavedModel, expected its folder; pass {path.parent}")
    name = by_suffix.get(path.suffix.lower())
    if name is None:
        found = f"suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise InputError(f"{path}: {found}, expected {ACCEPTED}")
    return name


def _pickle_refusal(path: Path) -> str:
    return (
        f"{path}: refused, because loading a pickled PyTorch file runs the code inside it and needs your class; "
        "expected a .pt2, which these two lines make:\n"
        "  program = torch.export.export(model.eval(), (example_input,))\n"
        f'  torch.export.save(program, "{path.stem}.pt2")'
    )


def _framework_of_object(model: Any) -> str:
    for cls in type(model).__mro__:
        module, name = cls.__module__, cls.__name__
        if name == "ModelProto" and module.startswith("onnx"):
            return "onnx"
        if (name, module) == ("Module", "torch.nn.modules.module"):
            return "torch"
        if name == "ExportedProgram" and module.startswith("torch.export"):
            return "torch"
        if module.split(".")[0] in {"keras", "tf_keras", "tensorflow"}:
            return "keras"
    if isinstance(model, bytes | bytearray) and bytes(model[4:8]) == b"TFL3":
        return "tflite"
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise InputError(
        f"{kind}: not a model, expected a path, torch.nn.Module, torch.export.ExportedProgram, keras.Model, "
        "tf.Module or onnx.ModelProto"
    )

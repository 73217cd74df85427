"""Keras and TensorFlow models: through TensorFlow's converter to float TensorFlow Lite, then that importer.

Nothing stored in a file is executed: files with Lambda layers or with classes of other packages are refused.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.errors import InputError
from toolchain.importers import tflite
from toolchain.importers.builder import one_line
from toolchain.importers.quiet import quiet

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
FORBIDDEN = ("ReadFile", "WriteFile", "PyFunc", "PyFuncStateless", "EagerPyFunc", "MatchingFiles")
"""TensorFlow operators by which a SavedModel reaches out of itself."""
OWN_PACKAGES = {"keras", "tf_keras", "tensorflow", "builtins"}


def load_graph(model: Any, *, input_shape: Shapes = ()) -> Graph:
    """Return the Graph of a .keras, .h5 or SavedModel path, a keras.Model or a tf.Module.

    Open batches become 1; `input_shape` closes other open dimensions. Raises InputError for what cannot be read or
    converted, UnsupportedError naming every layer without a C form.
    """
    subject = str(model) if isinstance(model, str | Path) else str(getattr(model, "name", "") or type(model).__name__)
    if isinstance(model, str | Path) and Path(model).is_dir():
        return tflite.load(_convert_folder(Path(model), subject), input_shape=input_shape, subject=subject)
    live = load(Path(model)) if isinstance(model, str | Path) else model
    tf = require_tensorflow(subject)
    if isinstance(live, tf.Module) and not _is_keras(live):
        return _of_module(tf, live, subject, input_shape)
    return _of_keras(tf, live, subject, input_shape)


def load(path: Path) -> Any:
    """Return the live model of a file or SavedModel folder, without running code stored in it."""
    subject = str(path)
    if path.is_dir():
        tf = require_tensorflow(subject)
        _refuse_operators(tf, path, subject)
        return _reading(lambda: tf.saved_model.load(subject), subject, "a SavedModel folder")
    _refuse_code(_stored_config(path, subject), subject)
    require_tensorflow(subject)
    import keras

    _require_backend(keras, subject)
    objects = {"DepthwiseConv2D": _depthwise_of_keras_2(keras)}

    def read() -> Any:
        return keras.models.load_model(subject, custom_objects=objects, compile=False, safe_mode=True)

    return _reading(read, subject, "a model saved by Keras")


def require_tensorflow(subject: str) -> Any:
    """TensorFlow, imported without its log. Raises InputError when it is not installed."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        with quiet():
            import tensorflow as tf
    except ImportError:
        raise InputError(
            f"{subject}: TensorFlow is not installed, expected it for this model; pip install tensorflow-cpu"
        ) from None
    return tf


def _reading(read: Any, subject: str, expected: str) -> Any:
    try:
        with quiet():
            return read()
    except Exception as error:  # noqa: BLE001  (Keras raises whatever its reader meets in a foreign file)
        raise InputError(f"{subject}: cannot be read ({_brief(error)}), expected {expected}") from None


def _stored_config(path: Path, subject: str) -> Any:
    """The layers' configuration as the file holds it."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        return _config_of_h5(path, subject)
    except ImportError:
        raise InputError(f"{subject}: h5py is not installed, expected it for .h5 files; pip install h5py") from None
    except (OSError, KeyError, ValueError, RuntimeError, RecursionError) as error:
        raise InputError(f"{subject}: damaged or no Keras model ({_brief(error)})") from None


def _config_of_h5(path: Path, subject: str) -> Any:
    import h5py

    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise InputError(f"{subject}: holds weights only, expected a whole model; save it with model.save()")
        return json.loads(file.attrs["model_config"])


def _refuse_code(config: Any, subject: str) -> None:
    """Refuse what would run code of the file's, or needs classes this process does not have."""
    for entry in _entries(config):
        class_name, module = str(entry.get("class_name")), entry.get("module")
        if class_name in {"Lambda", "__lambda__"}:
            raise InputError(
                f"{subject}: a Lambda layer holds code, which is not run from files; replace it by a layer, or load "
                "the model yourself and pass the keras.Model"
            )
        if isinstance(module, str) and module.split(".")[0] not in OWN_PACKAGES:
            raise InputError(
                f"{subject}: {one_line(class_name)} is a class of {one_line(module)}, expected layers of Keras only; "
                "load the model yourself and pass the keras.Model"
            )


def _entries(config: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a class_name in nested JSON."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _require_backend(keras: Any, subject: str) -> None:
    if keras.config.backend() != "tensorflow":
        raise InputError(
            f"{subject}: Keras runs on {keras.config.backend()} here, expected TensorFlow; set KERAS_BACKEND=tensorflow"
        )


def _depthwise_of_keras_2(keras: Any) -> Any:
    """DepthwiseConv2D that accepts the argument `groups` which Keras 2 wrote and Keras 3 dropped."""

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
        def __init__(self, *args: Any, groups: int = 1, **kwargs: Any) -> None:
            if groups != 1:
                raise ValueError(f"DepthwiseConv2D with groups={groups}, expected 1")
            super().__init__(*args, **kwargs)

    return DepthwiseConv2D


def _is_keras(model: Any) -> bool:
    modules = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
    return bool(modules & {"keras", "tf_keras"})


def _of_keras(tf: Any, model: Any, subject: str, input_shape: Shapes) -> Graph:
    """A keras.Model, its ports named and ordered as its inputs and outputs."""
    inputs = _model_inputs(model, subject)
    names = [_plain_name(tensor) for tensor in inputs]
    specs = [
        tf.TensorSpec(_closed(name, tensor.shape, subject, input_shape, alone=len(inputs) == 1), tensor.dtype, f"in{i}")
        for i, (name, tensor) in enumerate(zip(names, inputs, strict=True))
    ]

    def call(*tensors: Any) -> list[Any]:
        arguments = tf.nest.pack_sequence_as(model.inputs if _is_sequence(model) else inputs, list(tensors))
        found = model(arguments[0] if len(inputs) == 1 else arguments, training=False)
        return list(tf.nest.flatten(found))

    data = _convert(tf, tf.function(call), specs, model, subject)
    _check_names(input_shape, names, subject)
    return _renamed(tflite.load(data, subject=subject), names, _output_names(model))


def _is_sequence(model: Any) -> bool:
    return isinstance(model.inputs, list | tuple)


def _model_inputs(model: Any, subject: str) -> list[Any]:
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise InputError(f"{subject}: the model has no input shape yet, expected a built one; call it once on an array")
    return list(inputs)


def _plain_name(tensor: Any) -> str:
    """The name the user gave the input."""
    return str(tensor.name).split(":")[0]


def _output_names(model: Any) -> list[str]:
    """The user's names of the outputs: those of the layers they come from."""
    names = getattr(model, "output_names", None)
    return [str(name) for name in names] if names else []


def _closed(name: str, shape: Sequence[int | None], subject: str, input_shape: Shapes, *, alone: bool) -> list[int]:
    """The input's shape with a batch of 1, or the one asked for."""
    shapes = dict(input_shape)
    given = shapes.get(name, shapes.get("") if alone else None)
    if given is None:
        given = tuple(1 if i == 0 and extent is None else extent for i, extent in enumerate(shape))  # type: ignore[misc]
    known = zip(given, shape, strict=False)
    if len(given) != len(shape) or any(extent is not None and extent != value for value, extent in known):
        raise InputError(f"{subject}: {name}: shape {given} asked for, expected one that fits {tuple(shape)}")
    if None in given:
        raise InputError(f"{subject}: {name}: shape {tuple(shape)} has open dimensions; close them with --input-shape")
    return [int(extent) for extent in given]


def _check_names(input_shape: Shapes, names: Sequence[str], subject: str) -> None:
    for name, _ in input_shape:
        if name and name not in names:
            raise InputError(f"{subject}: --input-shape names {name!r}, expected one of: {', '.join(names)}")


def _renamed(graph: Graph, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
    """Inputs in the order of `in0`, `in1`, ..., outputs in the converter's, both under the user's names."""
    ports = {graph.port(name).name.split(":")[0]: name for name in graph.inputs}
    ordered = {ports[f"in{i}"]: name for i, name in enumerate(inputs) if f"in{i}" in ports}
    names = ordered | (dict(zip(graph.outputs, outputs, strict=True)) if len(outputs) == len(graph.outputs) else {})
    renamed = {name: replace(graph.port(name), name=names.get(name, graph.port(name).name)) for name in graph.ports}
    renamed |= {name: replace(graph.port(name), name=new) for name, new in names.items()}
    return graph.with_(inputs=tuple(ordered), ports=renamed)


def _of_module(tf: Any, module: Any, subject: str, input_shape: Shapes) -> Graph:
    """A tf.Module: its __call__, traced with its own signature or with the shapes given."""
    call = getattr(module, "__call__", None)  # noqa: B004  (the tf.function itself is wanted)
    if call is None:
        raise InputError(f"{subject}: a tf.Module without __call__, expected a callable one")
    specs = getattr(call, "input_signature", None)
    names = [spec.name or f"input{i}" for i, spec in enumerate(specs)] if specs else [name for name, _ in input_shape]
    if not names:
        raise InputError(
            f"{subject}: a tf.Module does not know its input shape, expected tf.function(input_signature=[...]) on "
            "__call__, or input_shape=((name, shape),)"
        )
    alone = len(names) == 1
    shapes = [spec.shape for spec in specs] if specs else [shape for _, shape in input_shape]
    types = [spec.dtype for spec in specs] if specs else [tf.float32] * len(shapes)
    closed = [
        tf.TensorSpec(_closed(name, shape, subject, input_shape, alone=alone), dtype, f"in{i}")
        for i, (name, shape, dtype) in enumerate(zip(names, shapes, types, strict=True))
    ]

    def numbered(*tensors: Any) -> list[Any]:
        return list(tf.nest.flatten(call(*tensors)))

    names = [name or "input0" for name in names]
    data = _convert(tf, tf.function(numbered), closed, module, subject)
    return _renamed(tflite.load(data, subject=subject), names, [])


def _convert(tf: Any, function: Any, specs: Sequence[Any], owner: Any, subject: str) -> bytes:
    """The bytes of a float .tflite. Operators without a TensorFlow Lite form stay inside as custom ones."""

    def run() -> Any:
        concrete = function.get_concrete_function(*specs)
        return _converted(tf.lite.TFLiteConverter.from_concrete_functions([concrete], owner))

    return _converting(run, subject)


def _convert_folder(path: Path, subject: str) -> bytes:
    tf = require_tensorflow(subject)
    _refuse_operators(tf, path, subject)
    return _converting(lambda: _converted(tf.lite.TFLiteConverter.from_saved_model(str(path))), subject)


def _converted(converter: Any) -> Any:
    converter.allow_custom_ops = True
    if hasattr(converter, "experimental_lower_to_saved_model"):  # not for a SavedModel folder
        converter.experimental_lower_to_saved_model = False  # variables become constants
    return converter.convert()


def _converting(run: Any, subject: str) -> bytes:
    try:
        with quiet():
            return bytes(run())
    except Exception as error:
        raise InputError(f"{subject}: TensorFlow's converter failed: {_brief(error)}") from error


def _refuse_operators(tf: Any, path: Path, subject: str) -> None:
    """Refuse a SavedModel that reads or writes files or calls Python."""
    from tensorflow.core.protobuf import saved_model_pb2

    del tf
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((path / "saved_model.pb").read_bytes())
    except Exception as error:  # noqa: BLE001  (protobuf's error classes differ between its versions)
        raise InputError(f"{subject}: damaged saved_model.pb ({_brief(error)})") from None
    for meta in saved.meta_graphs:
        functions = [node for function in meta.graph_def.library.function for node in function.node_def]
        for node in (*meta.graph_def.node, *functions):
            if node.op in FORBIDDEN:
                raise InputError(f"{subject}: {one_line(node.name)}: {node.op} reaches out of the model; refused")


def _brief(error: BaseException) -> str:
    """The first informative line of an error."""
    lines = [line.strip() for line in re.sub(r"<unknown>:0: |error: ", "", str(error)).splitlines() if line.strip()]
    return one_line(lines[0])[:200] if lines else type(error).__name__

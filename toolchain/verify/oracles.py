"""The framework itself as a callable: what the source model computes where it was written.

An oracle takes and returns framework-layout arrays, one model run at a time, in the model's own order of inputs.
Oracles are optional: a framework that is not installed is no error, numpy then stands in.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.importers import keras
from toolchain.importers.keras import require_tensorflow
from toolchain.importers.quiet import quiet
from toolchain.ir.types import Array

Call = Callable[[Sequence[Array]], list[Array]]


@dataclass(frozen=True, slots=True)
class Oracle:
    """A framework's own evaluation of the source model. `exact`: its integers are to be met bit for bit."""

    name: str
    call: Call
    exact: bool = False


def find_oracle(model: Any) -> Oracle | None:
    """The oracle of a model, None when its framework is not installed or cannot run it."""
    try:
        return _by_suffix(Path(model)) if isinstance(model, (str, Path)) else _by_type(model)
    except Exception:  # noqa: BLE001 - a framework's refusal to run a model is not the export's failure
        return None


def _by_suffix(path: Path) -> Oracle | None:
    if path.suffix == ".onnx" and _has("onnxruntime"):
        return _onnxruntime(str(path))
    if path.suffix == ".tflite" and _has("tensorflow"):
        return _tflite(path)
    if path.suffix == ".pt2" and _has("torch"):
        import torch

        return _torch(torch.export.load(str(path)).module())
    if path.suffix in {".keras", ".h5"} and _has("tensorflow"):
        return _keras(keras.load(path))
    return None


def _by_type(model: Any) -> Oracle | None:
    modules = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
    if "onnx" in modules and _has("onnxruntime"):
        return _onnxruntime(model.SerializeToString())
    if type(model).__name__ == "ExportedProgram":
        return _torch(model.module())
    if "torch" in modules:
        return _torch(model)
    if "keras" in modules:
        return _keras(model)
    return None


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _onnxruntime(model: str | bytes) -> Oracle:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def call(inputs: Sequence[Array]) -> list[Array]:
        return [np.asarray(out) for out in session.run(None, dict(zip(names, inputs, strict=True)))]

    return Oracle("onnxruntime", call)


def _is_hybrid(interpreter: Any) -> bool:
    """Whether a layer multiplies float activations with int8 weights (a dynamic-range file)."""
    types = {detail["index"]: detail["dtype"] for detail in interpreter.get_tensor_details()}
    layers = interpreter._get_ops_details()  # noqa: SLF001 - the only list of operators there is
    weighted = [layer for layer in layers if layer["op_name"] in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}]
    return any([types[index] for index in layer["inputs"][:2]] == [np.float32, np.int8] for layer in weighted)


def _tflite(path: Path) -> Oracle | None:
    tf = require_tensorflow(str(path))
    with quiet():
        interpreter = tf.lite.Interpreter(
            model_content=path.read_bytes(),
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF,
        )
    if _is_hybrid(interpreter):
        return None  # LiteRT quantizes the activations of such layers at run time; the C keeps them in float
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def call(values: Sequence[Array]) -> list[Array]:
        for detail, value in zip(inputs, values, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]

    exact = any(detail["dtype"] in {np.int8, np.uint8, np.int16} for detail in outputs)
    return Oracle("tf.lite reference kernels", call, exact)


def _torch(module: Any) -> Oracle:
    import torch

    modes = {} if isinstance(module, torch.fx.GraphModule) else {part: part.training for part in module.modules()}

    def call(inputs: Sequence[Array]) -> list[Array]:
        for part in modes:
            part.training = False
        try:
            with torch.no_grad():
                return _flat(module(*(torch.from_numpy(np.array(value)) for value in inputs)))
        finally:
            for part, mode in modes.items():
                part.training = mode

    return Oracle("torch", call)


def _keras(model: Any) -> Oracle:
    def call(inputs: Sequence[Array]) -> list[Array]:
        with quiet():
            return _flat(model(inputs[0] if len(inputs) == 1 else list(inputs), training=False))

    return Oracle("keras", call)


def _flat(value: Any) -> list[Array]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _flat(item)]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _flat(item)]
    return [value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)]

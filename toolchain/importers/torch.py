"""PyTorch modules, exported programs and .pt2 files, by way of torch's own ONNX exporter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import InputError
from toolchain.importers import onnx
from toolchain.importers.builder import one_line
from toolchain.importers.fake_quantize import frozen
from toolchain.importers.quiet import quiet

if TYPE_CHECKING:
    from toolchain.ir.graph import Graph

PACKED = (
    "; its converted layers (torch.ao) hide their weights: pass the module as it was before convert, "
    "or what torch.onnx.export(..., dynamo=False) writes"
)
Shapes = Sequence[tuple[str, tuple[int, ...]]]


def load(model: Any, *, input_shape: Shapes = (), example_inputs: Any = None) -> Graph:
    """Return the Graph of an nn.Module, an ExportedProgram or a .pt2 path; weights keep their names.

    A module is exported with `example_inputs`, or with zeros of `input_shape`.
    """
    subject = str(model) if isinstance(model, str | Path) else type(model).__name__
    program = exported_program(model, subject, input_shape, example_inputs)
    open_dimensions = () if program is not model and not isinstance(model, str | Path) else tuple(input_shape)
    return onnx.load(to_onnx(program, subject), input_shape=open_dimensions, subject=subject)


def exported_program(model: Any, subject: str, input_shape: Shapes = (), example_inputs: Any = None) -> Any:
    """The torch.export.ExportedProgram of whatever form the model has."""
    torch = require_torch(subject)
    if isinstance(model, str | Path):
        return read_program(Path(model))
    if not isinstance(model, torch.nn.Module):
        return model
    inputs = _zeros(torch, subject, input_shape) if example_inputs is None else _tensors(torch, example_inputs)
    try:
        with quiet(), _evaluating(model):
            return torch.export.export(frozen(model), inputs)
    except Exception as error:
        hint = PACKED if _is_packed(model) else ""
        raise InputError(f"{subject}: torch.export cannot trace the module: {_first_line(error)}{hint}") from error


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """The module in evaluation mode; modules that torch.export made have their mode built in."""
    training = model.training
    try:
        model.eval()
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        model.train(training)


def _is_packed(model: Any) -> bool:
    """Whether layers are torch.ao's converted ones, which hide their weights from torch.export."""
    return any(".ao.nn.quantized" in type(module).__module__ for module in model.modules())


def require_torch(subject: str) -> Any:
    """The torch package. Raises InputError when it is not installed."""
    try:
        import torch
        import torch.export
    except ImportError:
        raise InputError(
            f"{subject}: PyTorch is not installed, expected it for this model; pip install torch"
        ) from None
    return torch


def read_program(path: Path) -> Any:
    """The ExportedProgram in a .pt2 file. Raises InputError when there is none."""
    torch = require_torch(str(path))
    try:
        with quiet():
            return torch.export.load(str(path))
    except Exception as error:  # noqa: BLE001  (torch raises whatever its reader meets in a foreign file)
        raise InputError(
            f"{path}: not a file of torch.export.save ({_first_line(error)}), expected a .pt2 of this PyTorch version"
        ) from None


def to_onnx(program: Any, subject: str) -> Any:
    """The ModelProto of an exported program; initializers are named as the program's parameters and buffers."""
    torch = require_torch(subject)
    try:
        with quiet():
            exported = torch.onnx.export(program, dynamo=True, verbose=False, optimize=True)
    except ImportError as error:
        text = f"{_first_line(error)}; expected torch's ONNX exporter; pip install onnxscript"
        raise InputError(f"{subject}: {text}") from None
    except Exception as error:
        raise InputError(f"{subject}: torch.onnx.export failed: {_first_line(error)}") from error
    return exported.model_proto


def _zeros(torch: Any, subject: str, input_shape: Shapes) -> tuple[Any, ...]:
    if not input_shape:
        raise InputError(
            f"{subject}: a module does not know its input shape, expected example_inputs=(tensor,) or "
            "input_shape=((name, shape),)"
        )
    return tuple(torch.zeros(shape) for _, shape in input_shape)


def _tensors(torch: Any, example_inputs: Any) -> tuple[Any, ...]:
    """The example inputs as a tuple of tensors; a single array and numpy arrays are accepted."""
    many = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    return tuple(torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in many)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(lines[0])[:200] if lines else type(error).__name__

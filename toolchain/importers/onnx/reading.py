"""From bytes to a checked ModelProto with its functions inlined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from toolchain.errors import InputError
from toolchain.importers.builder import one_line

TOLERATED = ("No Op registered", "No opset import for domain", "topologically sorted", "Field 'shape' of 'type'")
"""Complaints of onnx's checker that the import answers itself, more precisely or without harm."""


def read(model: Any, subject: str) -> onnx.ModelProto:
    """Return the checked model. Raises InputError for anything onnx does not accept."""
    proto = parse(Path(model), subject) if isinstance(model, str | Path) else model
    if not proto.graph.node and not proto.graph.output:
        raise InputError(f"{subject}: no graph inside, expected an ONNX model; is the file complete?")
    if not proto.opset_import:
        raise InputError(f"{subject}: no opset version inside, expected an ONNX model; is the file complete?")
    _check(proto, subject)
    return _inlined(proto, subject)


def parse(path: Path, subject: str) -> onnx.ModelProto:
    """Return the ModelProto in a file, its external weights loaded. Raises InputError."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        raise InputError(f"{subject}: not an ONNX file or a truncated one, expected a ModelProto") from None
    except OSError as error:
        raise InputError(f"{subject}: {error.strerror}, expected a readable ONNX file") from None
    _load_external_data(proto, path, subject)
    return proto


def _load_external_data(proto: onnx.ModelProto, path: Path, subject: str) -> None:
    """Read the weights kept beside the model; onnx itself refuses paths that leave the folder."""
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:  # noqa: BLE001  (onnx raises its own, protobuf's and plain Python errors here)
        text = one_line(str(error))[:300]
        raise InputError(
            f"{subject}: weights kept in another file cannot be read ({text}); expected that file beside the model"
        ) from None


def _check(proto: onnx.ModelProto, subject: str) -> None:
    """Onnx's own checker; operators it does not know are reported later, all at once."""
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        text = str(error)
        if any(phrase in text for phrase in TOLERATED):
            return
        raise InputError(f"{subject}: {one_line(text.strip().splitlines()[0])[:300]}; expected a valid model") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{subject}: {one_line(str(error))[:300]}; expected a valid model") from None


def _inlined(proto: onnx.ModelProto, subject: str) -> onnx.ModelProto:
    """The model without local functions."""
    if not proto.functions:
        return proto
    try:
        import onnx.inliner

        return onnx.inliner.inline_local_functions(proto)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{subject}: its local functions cannot be inlined: {one_line(str(error))[:300]}") from None

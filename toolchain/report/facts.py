"""manifest.json: every fact a tool may want, the same bytes for the same model and options."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.config import CalibrationMethod, Options, Rounding
from toolchain.errors import InputError
from toolchain.ir.graph import Graph, Node
from toolchain.lower.program import Program
from toolchain.ops.base import Body
from toolchain.report.archive import op_fields, type_document
from toolchain.samples import framework_shape

FILE = "manifest.json"
GENERATOR = "inlay"


def plain(value: Any) -> Any:  # noqa: PLR0911 - one line per kind of value
    """Any frozen value as JSON: dataclasses by field, enums by value, numpy as numbers, no infinities."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def json_text(document: Any) -> str:
    """Indented JSON that ends in a newline."""
    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"


def manifest(
    version: str, options: Options, source: Mapping[str, Any], graph: Graph, program: Program, quantization: Any
) -> dict[str, Any]:
    """Everything about one export except the files' hashes."""
    rows = layers(graph)
    return {
        "generator": GENERATOR,
        "version": version,
        "name": options.name,
        "source": dict(source),
        "options": plain(options),
        "inputs": [end(graph, name) for name in graph.inputs],
        "outputs": [end(graph, name) for name in graph.outputs],
        "states": [type_document(graph.tensors[state.read].type) for state in graph.states],
        "layers": rows,
        "macs": sum(row["macs"] for row in rows),
        "parameters": sum(row["parameters"] for row in rows),
        "tensors": {name: type_document(tensor.type) for name, tensor in graph.tensors.items()},
        "quantization": plain(quantization),
        "arena": {"bytes": program.arena_bytes, "lower_bound": _lower_bound(program), "buffers": buffers(program)},
        "sizes": {
            "arena_bytes": program.arena_bytes,
            "weights_bytes": program.weight_bytes,
            "weights_bytes_by_body": {body.value: program.body_bytes(body) for body in Body},
        },
        "files": {},
    }


def options_from(document: Mapping[str, Any]) -> Options:
    """The inverse of what `manifest` stores as options. Raises InputError for others."""
    known = {field.name for field in dataclasses.fields(Options)}
    try:
        fields = {key: value for key, value in document.items() if key in known}
        fields["calibration_method"] = CalibrationMethod(fields["calibration_method"])
        fields["rounding"] = Rounding(fields["rounding"])
        fields["input_shape"] = tuple((name, tuple(dims)) for name, dims in fields["input_shape"])
        return Options(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{FILE}: its options are not what inlay writes ({error}); export the model again") from None


def end(graph: Graph, name: str) -> dict[str, Any]:
    """An input or output: name and shape as the framework has them, type and layout as the C has them."""
    port = graph.port(name)
    return {
        "name": port.name,
        "framework_shape": list(framework_shape(graph, name)),
        "permutation": None if port.permutation is None else list(port.permutation),
        **plain(type_document(graph.tensors[name].type)),
    }


def layers(graph: Graph) -> list[dict[str, Any]]:
    """One row per node."""
    return [_layer(graph, index, node) for index, node in enumerate(graph.nodes)]


def _layer(graph: Graph, index: int, node: Node) -> dict[str, Any]:
    inputs, outputs = graph.operands(node.inputs), graph.operands(node.outputs)
    return {
        "index": index,
        "origin": node.origin,
        "op": type(node.op).__name__,
        "attributes": plain(op_fields(node.op)),
        "inputs": list(node.inputs),
        "outputs": list(node.outputs),
        "shape": list(outputs[0].type.shape),
        "dtype": outputs[0].type.dtype.value,
        "macs": int(node.op.macs(tuple(t.type for t in inputs), tuple(t.type for t in outputs))),
        "parameters": sum(tensor.type.elements for tensor in inputs if tensor.data is not None),
    }


def buffers(program: Program) -> list[dict[str, Any]]:
    """Where each buffer lies, from which step to which it is alive (-1: before the first), what it is written over."""
    if program.memory is None:
        raise ValueError(f"{program.name}: the buffers are not placed yet")
    rows = [
        {
            "name": name,
            "offset": offset,
            "bytes": program.buffers[name].bytes,
            "steps": list(program.memory.alive[name]),
            "over": list(program.memory.over.get(name, ())),
        }
        for name, offset in program.memory.offsets.items()
        if name in program.memory.alive
    ]
    return sorted(rows, key=lambda row: (row["steps"], row["offset"], row["name"]))


def _lower_bound(program: Program) -> int:
    return program.memory.lower_bound if program.memory else 0


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files in order of their names."""
    digest = hashlib.sha256()
    for entry in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if entry.is_file():
            digest.update(entry.relative_to(path).as_posix().encode() if path.is_dir() else b"")
            digest.update(entry.read_bytes())
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of an exported folder. Raises InputError when it is none."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{folder}: no {FILE} there; expected the folder of an `inlay export`")
    try:
        document = json.loads(path.read_text())
    except (ValueError, OSError):
        raise InputError(f"{path}: not readable as JSON; export the model again") from None
    wanted = {"generator", "name", "options", "files"}
    if not isinstance(document, dict) or not wanted <= set(document):
        raise InputError(f"{path}: not written by inlay; expected the folder of an `inlay export`")
    return document

"""The final graph as a file (`graph.npz`), so that `inlay verify` needs no source model.

Operators are stored as class name and dataclass fields in JSON, constants as arrays; nothing is pickled.
The same graph gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.errors import InputError
from toolchain.ir.graph import Graph, Node, Port, State, Tensor
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.ops.base import OPERATORS, Op

FILE = "graph.npz"
FORMAT = 1


def save_graph(graph: Graph, path: Path) -> None:
    """Write `graph` to `path`."""
    constants = [tensor.data for tensor in graph.tensors.values() if tensor.data is not None]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "graph", np.frombuffer(json.dumps(_document(graph)).encode(), np.uint8))
        for index, data in enumerate(constants):
            _add(archive, f"c{index}", data)
        for index, state in enumerate(graph.states):
            _add(archive, f"s{index}", state.initial)


def load_graph(path: Path) -> Graph:
    """Read a graph. Raises InputError for anything that is not one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _graph(json.loads(arrays["graph"].tobytes()), arrays)
    except FileNotFoundError:
        raise InputError(f"{path}: not there; expected the folder of an `inlay export`") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a graph that inlay wrote ({error}); export the model again") from None


def _add(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
    entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: the same bytes every day
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, stream.getvalue())


def _document(graph: Graph) -> dict[str, Any]:
    constants = iter(range(len(graph.tensors)))
    return {
        "format": FORMAT,
        "nodes": [_node_document(node) for node in graph.nodes],
        "tensors": [
            {
                "name": tensor.name,
                "type": type_document(tensor.type),
                "constant": None if tensor.data is None else next(constants),
            }
            for tensor in graph.tensors.values()
        ],
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "ports": {key: {"name": port.name, "permutation": port.permutation} for key, port in graph.ports.items()},
        "states": [[state.read, state.write] for state in graph.states],
    }


def _node_document(node: Node) -> dict[str, Any]:
    return {
        "op": type(node.op).__name__,
        "fields": op_fields(node.op),
        "inputs": node.inputs,
        "outputs": node.outputs,
        "origin": node.origin,
    }


def op_fields(op: Op) -> dict[str, Any]:
    """The attributes of an operator as JSON values."""
    if not dataclasses.is_dataclass(op):
        return {}
    return {field.name: _encode(getattr(op, field.name)) for field in dataclasses.fields(op)}


def _encode(value: Any) -> Any:
    if isinstance(value, DType):
        return {"dtype": value.value}
    if isinstance(value, (tuple, list)):
        return [_encode(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"an operator attribute of type {type(value).__name__} cannot be archived")


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return DType(value["dtype"])
    return tuple(_decode(item) for item in value) if isinstance(value, list) else value


def type_document(kind: TensorType) -> dict[str, Any]:
    """A tensor type as JSON values."""
    quant = kind.quant
    return {
        "shape": kind.shape,
        "dtype": kind.dtype.value,
        "quant": None if quant is None else {"scale": quant.scale, "zero_point": quant.zero_point, "axis": quant.axis},
    }


def type_from(document: dict[str, Any]) -> TensorType:
    """The inverse of `type_document`."""
    quant = document["quant"]
    return TensorType(
        tuple(document["shape"]),
        DType(document["dtype"]),
        None if quant is None else QuantParams(tuple(quant["scale"]), quant["zero_point"], quant["axis"]),
    )


def _graph(document: dict[str, Any], arrays: Any) -> Graph:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']}, expected {FORMAT}")
    return Graph(
        nodes=tuple(_node(entry) for entry in document["nodes"]),
        tensors={entry["name"]: _tensor(entry, arrays) for entry in document["tensors"]},
        inputs=tuple(document["inputs"]),
        outputs=tuple(document["outputs"]),
        ports={key: Port(port["name"], _decode(port["permutation"])) for key, port in document["ports"].items()},
        states=tuple(
            State(read, write, arrays[f"s{index}"]) for index, (read, write) in enumerate(document.get("states", []))
        ),
    )


def _node(entry: dict[str, Any]) -> Node:
    op = OPERATORS[entry["op"]](**{key: _decode(value) for key, value in entry["fields"].items()})
    return Node(op, tuple(entry["inputs"]), tuple(entry["outputs"]), entry["origin"])


def _tensor(entry: dict[str, Any], arrays: Any) -> Tensor:
    index = entry["constant"]
    return Tensor(entry["name"], type_from(entry["type"]), None if index is None else arrays[f"c{index}"])

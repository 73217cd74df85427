"""From bytes to plain values: tensors, operators and names of a model's first subgraph, each checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tflite

from toolchain.errors import InputError
from toolchain.importers.builder import LARGEST_TENSOR, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolchain.ir.types import Array

IDENTIFIER = b"TFL3"
STORED: dict[str, str] = {
    "FLOAT32": "<f4", "FLOAT16": "<f2", "FLOAT64": "<f8", "INT4": "|u1", "INT8": "|i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "UINT8": "|u1", "UINT16": "<u2", "UINT32": "<u4", "BOOL": "|b1",
}  # fmt: skip
"""Element type -> how numpy reads a buffer of it; int4 is packed two to a byte."""


def _constants(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


TYPE_NAMES, OPERATORS, OPTIONS = map(_constants, (tflite.TensorType, tflite.BuiltinOperator, tflite.BuiltinOptions))


@dataclass(frozen=True, slots=True)
class Scheme:
    """The quantization of a tensor as the file has it: one scale, or one per index of `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One tensor of the file. `signature` has -1 for open extents; `data` is set for constants."""

    name: str
    kind: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    scheme: Scheme | None
    data: Array | None
    sparse: bool
    variable: bool


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: the builtin's name (or the custom one's), options by the schema's names, tensor indices."""

    kind: str
    options: dict[str, Any]
    inputs: tuple[int, ...]
    """-1 for an omitted optional input."""
    outputs: tuple[int, ...]
    custom: bool = False
    intermediates: tuple[int, ...] = ()
    """Tensors that only state the scale of something inside the operator."""


@dataclass(frozen=True, slots=True)
class Network:
    """The first subgraph. `names` are the port names of a signature, by tensor index."""

    tensors: tuple[Stored, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: dict[int, str] = field(default_factory=dict)
    output_names: dict[int, str] = field(default_factory=dict)
    others: dict[int, Network] = field(default_factory=dict)
    """Subgraphs that CALL_ONCE runs, by their index."""


def read(model: Any, subject: str) -> Network:
    """Return the first subgraph of a model. Raises InputError for anything that is no sound .tflite."""
    data = _bytes(model, subject)
    if not data:
        raise InputError(f"{subject}: the file is empty, expected a .tflite")
    if data[4:8] != IDENTIFIER:
        raise InputError(f"{subject}: not a TensorFlow Lite file, expected the identifier TFL3 at byte 4")
    try:
        return _Reader(data).network()
    except InputError as error:
        raise InputError(f"{subject}: {one_line(str(error))}") from None
    except Exception:  # noqa: BLE001  (flatbuffers reads a damaged file into any error)
        raise damaged(subject, data) from None


def damaged(subject: str, data: bytes) -> InputError:
    """What to say of a file whose tables point outside it."""
    return InputError(f"{subject}: damaged or truncated ({len(data)} bytes), expected a whole .tflite; copy it again")


def _bytes(model: Any, subject: str) -> bytes:
    if not isinstance(model, str | Path):
        return bytes(model)
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise InputError(f"{subject}: {error.strerror}, expected a readable .tflite file") from None


class _Reader:
    """The flatbuffer under examination; lengths are checked before they are believed."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.model = tflite.Model.GetRootAs(data, 0)

    def network(self) -> Network:
        if not self.model.SubgraphsLength():
            raise InputError("no graph inside, expected a model; is the file complete?")
        main = self.subgraph(0)
        called = {int(each.options["InitSubgraphIndex"]) for each in main.operators if each.kind == "CALL_ONCE"}
        if not called.issubset(range(1, self.count(self.model.SubgraphsLength()))):
            raise InputError(f"damaged (it calls subgraphs {sorted(called)} of {self.model.SubgraphsLength()})")
        names = self.signature()
        return replace(
            main, input_names=names[0], output_names=names[1], others={index: self.subgraph(index) for index in called}
        )

    def subgraph(self, index: int) -> Network:
        graph = self.model.Subgraphs(index)
        tensors = tuple(self.tensor(graph.Tensors(i)) for i in range(self.count(graph.TensorsLength())))
        operators = tuple(self.operator(graph.Operators(i)) for i in range(self.count(graph.OperatorsLength())))
        inputs = self.integers(graph.Inputs, graph.InputsLength())
        outputs = self.integers(graph.Outputs, graph.OutputsLength())
        _check_indices(len(tensors), operators, inputs, outputs)
        return Network(tensors, operators, inputs, outputs)

    def count(self, length: int, size: int = 4) -> int:
        """A vector's length. Raises InputError when the file is too short to hold it."""
        if not 0 <= length * size <= len(self.data):
            raise InputError(f"damaged or truncated ({length} elements in {len(self.data)} bytes), expected a .tflite")
        return length

    def integers(self, element: Callable[[int], int], length: int) -> tuple[int, ...]:
        return tuple(int(element(i)) for i in range(self.count(length)))

    def signature(self) -> tuple[dict[int, str], dict[int, str]]:
        """Port names of inputs and outputs; empty for a model without signatures."""
        for i in range(self.count(self.model.SignatureDefsLength())):
            signature = self.model.SignatureDefs(i)
            if signature.SubgraphIndex() == 0:
                return (
                    self.port_names(signature.Inputs, signature.InputsLength()),
                    self.port_names(signature.Outputs, signature.OutputsLength()),
                )
        return {}, {}

    def port_names(self, element: Callable[[int], Any], length: int) -> dict[int, str]:
        maps = [element(i) for i in range(self.count(length))]
        return {int(each.TensorIndex()): text for each in maps if (text := _text(each.Name()))}

    def operator(self, operator: Any) -> Operator:
        index = operator.OpcodeIndex()
        if index >= self.model.OperatorCodesLength():
            raise InputError(f"damaged (operator code {index} of {self.model.OperatorCodesLength()})")
        code = self.model.OperatorCodes(index)
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        kind = OPERATORS.get(number, f"operator {number}")
        custom = kind == "CUSTOM"
        return Operator(
            _text(code.CustomCode()) or kind if custom else kind,
            self.options(operator),
            self.integers(operator.Inputs, operator.InputsLength()),
            self.integers(operator.Outputs, operator.OutputsLength()),
            custom,
            self.integers(operator.Intermediates, operator.IntermediatesLength()),
        )

    def options(self, operator: Any) -> dict[str, Any]:
        """The options' scalars as they are, vectors as tuples."""
        table = operator.BuiltinOptions()
        name = OPTIONS.get(operator.BuiltinOptionsType(), "NONE")
        if table is None or name == "NONE":
            return {}
        cls = getattr(tflite, name)
        options = cls()
        options.Init(table.Bytes, table.Pos)
        fields = [key for key in vars(cls) if f"{key}Length" in vars(cls)]
        values: dict[str, Any] = {
            key: self.integers(getattr(options, key), getattr(options, f"{key}Length")()) for key in fields
        }
        for key in vars(cls):
            reader = key != "Init" and not key.startswith(("GetRoot", "_", *fields))
            if reader and not key.endswith("HasIdentifier"):
                values[key] = getattr(options, key)()
        return values

    def tensor(self, tensor: Any) -> Stored:
        name = _text(tensor.Name())
        kind = TYPE_NAMES.get(tensor.Type(), f"type {tensor.Type()}")
        shape = self.integers(tensor.Shape, tensor.ShapeLength())
        signature = self.integers(tensor.ShapeSignature, tensor.ShapeSignatureLength())
        scheme = self.scheme(tensor.Quantization(), name)
        sparse = tensor.Sparsity() is not None
        data = None if sparse else self.buffer(tensor.Buffer(), name, kind, shape)
        return Stored(name, kind, shape, signature, scheme, data, sparse, bool(tensor.IsVariable()))

    def scheme(self, quantization: Any, name: str) -> Scheme | None:
        if quantization is None or not quantization.ScaleLength():
            return None
        scales = tuple(float(quantization.Scale(i)) for i in range(self.count(quantization.ScaleLength())))
        zeros = self.integers(quantization.ZeroPoint, self.count(quantization.ZeroPointLength(), 8))
        if not np.isfinite(scales).all() or min(scales) < 0:
            raise InputError(f"{name}: scale {min(scales)}, expected positive numbers")
        return Scheme(scales, zeros or (0,), int(quantization.QuantizedDimension()))

    def buffer(self, index: int, name: str, kind: str, shape: tuple[int, ...]) -> Array | None:
        """The values of a constant, None for a tensor without data."""
        if index >= self.model.BuffersLength():
            raise InputError(f"{name}: damaged (buffer {index} of {self.model.BuffersLength()})")
        buffer = self.model.Buffers(index)
        raw = self.raw(buffer, name)
        if raw is None or kind not in STORED:
            return None
        elements = _elements(name, shape)
        stored = (elements + 1) // 2 if kind == "INT4" else elements
        wanted = stored * np.dtype(STORED[kind]).itemsize
        if len(raw) != wanted:
            raise InputError(f"{name}: {len(raw)} bytes, expected {wanted} for {kind} of shape {list(shape)}")
        values = np.frombuffer(raw, STORED[kind])
        if kind == "INT4":
            values = _unpacked(values)[:elements]
        return values.reshape(shape)

    def raw(self, buffer: Any, name: str) -> bytes | None:
        """The bytes inside the flatbuffer, or behind it where a large file keeps them."""
        offset, size = buffer.Offset(), buffer.Size()
        if offset > 1:
            if offset + size > len(self.data):
                raise InputError(f"{name}: truncated, its data ends at {offset + size} of {len(self.data)} bytes")
            return self.data[offset : offset + size]
        if not self.count(buffer.DataLength(), 1):
            return None
        return np.asarray(buffer.DataAsNumpy()).tobytes()


def _elements(name: str, shape: tuple[int, ...]) -> int:
    total = 1
    for extent in shape:
        total *= extent
        if extent < 0 or total > LARGEST_TENSOR:
            raise InputError(f"{name}: impossible shape {list(shape)}")
    return total


def _unpacked(pairs: Array) -> Array:
    """Signed 4-bit numbers, the low half of each byte first."""
    halves = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(-1).astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8)


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")


def _check_indices(
    count: int, operators: tuple[Operator, ...], inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    """Raise InputError for a tensor index outside the graph."""
    for operator in operators:
        written = (*operator.outputs, *operator.intermediates)
        if any(not -1 <= i < count for i in operator.inputs) or any(not 0 <= i < count for i in written):
            raise InputError(f"damaged ({operator.kind} uses tensors the model does not have)")
    if any(not 0 <= i < count for i in (*inputs, *outputs)):
        raise InputError("damaged (its inputs or outputs are tensors the model does not have)")

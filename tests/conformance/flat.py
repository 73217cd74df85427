"""Writes small .tflite files operator by operator, where the converter would choose other numbers or refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 3
VERSIONS = {"BROADCAST_TO": 3}
"""Operators whose first version does not take int8."""
NUMPY = {
    "FLOAT32": np.float32, "INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32,
    "INT64": np.int64, "BOOL": np.bool_,
}  # fmt: skip


@dataclass(frozen=True)
class Quant:
    """real = scale * (q - zero_point); several scales run over `axis`."""

    scale: float | tuple[float, ...]
    zero_point: int = 0
    axis: int = 0

    @property
    def scales(self) -> tuple[float, ...]:
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)


def _schema() -> Any:
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


class Flat:
    """A model under construction: tensors by index, then operators, then `content`."""

    def __init__(self) -> None:
        schema = _schema()
        self.schema = schema
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = VERSION, [self.graph]
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self.graph.tensors, self.graph.operators, self.graph.inputs = [], [], []

    def tensor(
        self,
        shape: Sequence[int],
        quant: Quant | None = None,
        kind: str = "INT8",
        data: np.ndarray | None = None,
        *,
        variable: bool = False,
    ) -> int:
        """Add a tensor; `data` makes it a constant."""
        made = self.schema.TensorT()
        made.name = f"t{len(self.graph.tensors)}"
        made.shape = [int(n) for n in shape]
        made.type = getattr(self.schema.TensorType, kind)
        made.isVariable = variable
        if quant is not None:
            made.quantization = self._quantization(quant)
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(_stored(data, kind), np.uint8)
            made.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def input(self, shape: Sequence[int], quant: Quant | None = None, kind: str = "INT8") -> int:
        """Add an input of the model."""
        index = self.tensor(shape, quant, kind)
        self.graph.inputs.append(index)
        return index

    def constant(self, data: Any, quant: Quant | None = None, kind: str | None = None) -> int:
        """Add a constant; of plain Python integers int32."""
        array = np.asarray(data) if isinstance(data, np.ndarray) else np.asarray(data, np.int32)
        kind = kind or next(name for name, dtype in NUMPY.items() if array.dtype == dtype)
        return self.tensor(array.shape, quant, kind, array)

    def operator(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: str | None = None, **fields: Any
    ) -> None:
        """Add an operator; `options` is its option table, `fields` what differs from the defaults."""
        made = self.schema.OperatorT()
        made.opcodeIndex = self._code(kind)
        made.inputs, made.outputs = list(inputs), list(outputs)
        if options is not None:
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            made.builtinOptions = getattr(self.schema, f"{options}T")()
            for name, value in fields.items():
                assert hasattr(made.builtinOptions, name), (options, name)
                setattr(made.builtinOptions, name, value)
        self.graph.operators.append(made)

    def _code(self, kind: str) -> int:
        number = getattr(self.schema.BuiltinOperator, kind)
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), VERSIONS.get(kind, 1)
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def _quantization(self, quant: Quant) -> Any:
        made = self.schema.QuantizationParametersT()
        made.scale = [float(scale) for scale in quant.scales]
        made.zeroPoint = [quant.zero_point] * len(made.scale)
        made.quantizedDimension = quant.axis
        return made

    def content(self, *outputs: int) -> bytes:
        """The file with these outputs."""
        import flatbuffers

        self.graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _stored(data: np.ndarray, kind: str) -> bytes:
    if kind == "INT4":
        flat = np.append(data.reshape(-1).astype(np.int8), np.zeros(data.size % 2, np.int8)).view(np.uint8) & 15
        return (flat[::2] | flat[1::2] << 4).astype(np.uint8).tobytes()
    return np.ascontiguousarray(data, NUMPY[kind]).tobytes()


def changed(content: bytes) -> Any:
    """A file's model as objects, to be altered and packed by `packed`."""
    return _schema().ModelT.InitFromPackedBuf(content, 0)


def packed(model: Any) -> bytes:
    """The file of a model of objects."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())

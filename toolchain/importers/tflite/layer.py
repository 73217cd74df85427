"""One TensorFlow Lite operator as its handler sees it, and the table of handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.importers.layer import ForeignLayer, NoCFormError, normal_axis
from toolchain.ir.graph import Tensor
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.ops.base import Operands
from toolchain.ops.elementwise import Binary, Dequantize, Quantize, Unary
from toolchain.ops.shape import Reshape, Transpose

if TYPE_CHECKING:
    from toolchain.importers.tflite.tracing import Traces
    from toolchain.ops.base import Op

Clamp = tuple[float, float]

ACTIVATIONS: dict[int, Clamp] = {1: (0.0, inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""Fused activations that are limits: RELU, RELU_N1_TO_1, RELU6."""
TANH, SIGN_BIT = 4, 5


def real_values(data: Array, quant: QuantParams) -> Array:
    """The float32 numbers behind quantized constants, per tensor or per channel."""
    scale = np.asarray(quant.scale, np.float32)
    if quant.axis is not None:
        scale = scale.reshape([-1 if axis == quant.axis else 1 for axis in range(data.ndim)])
    return np.asarray((data.astype(np.int32) - quant.zero_point).astype(np.float32) * scale)


@dataclass(frozen=True, slots=True)
class Layer(ForeignLayer):
    """An operator, its options in plain Python.

    `declared` has, per output, the element type and the quantization the file states; shapes are inferred.
    """

    options: dict[str, Any]
    declared: tuple[TensorType, ...]
    traces: Traces
    intermediates: tuple[QuantParams | None, ...] = ()
    """Scales of values inside the operator."""
    unsigned: bool = False
    """Whether the file holds the first input as uint8; here it is int8, 128 less."""

    @property
    def quantized(self) -> bool:
        """Whether the first input holds quantized integers."""
        return self.type(0).quant is not None

    def integers(self, index: int, role: str) -> tuple[int, ...]:
        """A constant list of integers."""
        value = self.constant_value(index, role)
        if value.dtype.kind not in "iu":
            raise ValueError(f"{role} of {value.dtype}, expected integers")
        return tuple(int(i) for i in value.reshape(-1))

    def option(self, name: str) -> Any:
        """A required option."""
        if name not in self.options:
            raise ValueError(f"option {name} is missing")
        return self.options[name]

    def get(self, name: str, default: Any) -> Any:
        """An option or its default."""
        return self.options.get(name, default)

    def axis(self, axis: int, rank: int | None = None) -> int:
        """An axis counted from the front."""
        return normal_axis(axis, self.rank if rank is None else rank)

    def constant(self, array: Any, role: str = "constant", quant: QuantParams | None = None) -> str:
        """Add a constant named after this layer."""
        return self.builder.constant(f"{self.origin}/{role}", np.asarray(array), quant)

    def emit(self, op: Op, *inputs: str, index: int = 0) -> str:
        """Apply an operator whose result is output `index` of this layer, in the type the file declares."""
        return self.emit_all(op, *inputs, indices=(index,))[0]

    def emit_all(self, op: Op, *inputs: str, indices: Sequence[int]) -> tuple[str, ...]:
        """Apply an operator whose results are these outputs of the layer."""
        declared = [self.declared[index] for index in indices]
        return self._apply(op, inputs, [(each.dtype, each.quant) for each in declared])

    def move(self, op: Op, *inputs: str) -> str:
        """Apply an operator that only moves values: the result has the element type of its first input."""
        kind = self.builder.type(inputs[0])
        return self._apply(op, inputs, [(kind.dtype, kind.quant)])[0]

    def compute(self, op: Op, *inputs: str) -> str:
        """Apply an operator to real numbers: quantized operands are dequantized first, the layer's result quantized."""
        return self._apply(op, [self.real(name) for name in inputs], None)[0]

    def real(self, name: str) -> str:
        """The real numbers a tensor stands for."""
        quant, value = self.builder.type(name).quant, self.builder.value(name)
        if quant is None:
            return name
        if value is not None:
            return self.builder.constant(name, real_values(value, quant))
        return self._apply(Dequantize(), [name], None)[0]

    def rescaled(self, name: str) -> str:
        """A quantized tensor with the scale of the first output."""
        quant = self.declared[0].quant
        return name if quant in {None, self.builder.type(name).quant} else self.emit(Quantize(), name)

    def _apply(
        self, op: Op, inputs: Sequence[str], kinds: Sequence[tuple[DType, QuantParams | None]] | None
    ) -> tuple[str, ...]:
        operands = [self.builder.type(name) for name in inputs]
        inferred = op.infer(*operands)
        types = list(inferred)
        if kinds is not None:
            if len(kinds) != len(inferred):
                raise ValueError(f"{len(kinds)} outputs, expected {len(inferred)}")
            types = [
                TensorType(each.shape, dtype, quant) if quant is not None else each
                for each, (dtype, quant) in zip(inferred, kinds, strict=True)
            ]
            _check_types(type(op).__name__, operands, types, kinds)
        values = [self.builder.value(name) for name in inputs]
        if inputs and all(value is not None for value in values) and any(t.quant for t in (*operands, *types)):
            return self._fold(op, inputs, types)
        return self.builder.add(op, inputs, origin=self.origin, names=[self.origin] * len(types), types=types)

    def _fold(self, op: Op, inputs: Sequence[str], types: Sequence[TensorType]) -> tuple[str, ...]:
        """Compute on quantized constants here and now."""
        results = tuple(Tensor(self.origin, each) for each in types)
        operands = Operands(tuple(self.builder.tensors[name] for name in inputs), results)
        arrays = op.reference_int(operands, *(np.asarray(self.builder.value(name)) for name in inputs))
        return tuple(
            self.constant(array.astype(each.dtype.numpy), "folded", each.quant)
            for array, each in zip(arrays, types, strict=True)
        )

    def unary(self, kind: str, x: str, alpha: float = 0.0, beta: float = 0.0) -> str:
        """A function of one input, inside a composition."""
        return self.compute(Unary(kind, alpha, beta), x)

    def binary(self, kind: str, a: str, b: str | float) -> str:
        """A function of two inputs, or of an input and a number, inside a composition."""
        a = self.real(a)
        other = b if isinstance(b, str) else self.constant(np.asarray(b, self.builder.type(a).dtype.numpy))
        return self.compute(Binary(kind), a, other)

    def transpose(self, x: str, permutation: Sequence[int]) -> str:
        """Permute axes."""
        return self.move(Transpose(tuple(permutation)), x)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Reshape; the tensor itself when it has that shape."""
        if self.builder.shape(x) == tuple(shape):
            return x
        return self.move(Reshape(tuple(int(extent) for extent in shape)), x)

    def result(self, x: str, index: int = 0) -> str:
        """Let `x`, which only moved values, be an output: in the parameters the file declares for it."""
        want, found = self.declared[index], self.builder.type(x)
        if found.quant is None or want.quant is None or found.quant == want.quant:
            return x
        return self.emit(Reshape(found.shape), x, index=index)

    def emit_stateful(self, op: Op, *inputs: str, states: Sequence[int]) -> str:
        """Apply an operator that gives the layer's output, then the next values of the variables at these inputs."""
        first = self.declared[0]
        held = [self.type(index) for index in states]
        kinds = [(first.dtype, first.quant), *((kind.dtype, kind.quant) for kind in held)]
        result, *following = self._apply(op, inputs, kinds)
        for index, value in zip(states, following, strict=True):
            self.update(index, value)
        return result

    def update(self, index: int, value: str) -> None:
        """Let `value` be what the variable that is input `index` holds from now on."""
        self.traces.updates[self.operand(index)] = value

    def clamp(self) -> Clamp | None:
        """The fused activation as limits; None for none and for those that `activated` applies."""
        return ACTIVATIONS.get(int(self.get("FusedActivationFunction", 0)))

    def activated(self, y: str) -> str:
        """The result after a fused activation that is no limit."""
        code = int(self.get("FusedActivationFunction", 0))
        if code == 0 or code in ACTIVATIONS:
            return y
        if code == TANH and self.builder.type(y).quant is None:
            return self.unary("tanh", y)
        name = {TANH: "TANH on integers", SIGN_BIT: "SIGN_BIT"}.get(code, str(code))
        raise NoCFormError(f"fused activation {name}, expected none, RELU, RELU_N1_TO_1, RELU6 or TANH")

    def clamped(self, y: str) -> str:
        """The result after any fused activation, of an operator that has no limits of its own."""
        clamp = self.clamp()
        return self.activated(y) if clamp is None else self.unary("clip", y, *clamp)

    def check_rank(self, *ranks: int) -> None:
        """Raise NoCFormError unless the first input has one of these ranks."""
        if self.rank not in ranks:
            raise NoCFormError(f"an input of rank {self.rank}, expected {' or '.join(map(str, ranks))}")


def _check_types(
    name: str,
    operands: Sequence[TensorType],
    types: Sequence[TensorType],
    kinds: Sequence[tuple[DType, QuantParams | None]],
) -> None:
    """Integers come from integers, and reals from reals, except at Quantize and Dequantize."""
    integers = any(operand.quant is not None for operand in operands)
    for found, (dtype, _) in zip(types, kinds, strict=True):
        if name in {"Quantize", "Dequantize"}:
            continue
        if not integers and found.quant is not None:
            raise NoCFormError("its output is quantized, but its input is not")
        if integers and found.quant is None and dtype is DType.FLOAT32:
            raise NoCFormError("its input is quantized, but its output is not")


Handler = Callable[[Layer], "str | tuple[str, ...]"]

HANDLERS: dict[str, Handler] = {}
"""Builtin operator name -> handler. A handler returns the names of the tensors that are the operator's outputs."""


def handles(*kinds: str) -> Callable[[Handler], Handler]:
    """Register a handler for builtin operators."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(kinds, handler))
        return handler

    return register

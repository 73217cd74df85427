"""What every operator answers: its shape, its float meaning, its integer meaning, and its kernel."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from toolchain.config import Rounding
from toolchain.ir.graph import Tensor
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.ops.overlap import Overlap


class QuantRule(enum.Enum):
    """How the quantization of an output follows from its operator."""

    OWN_RANGE = "its own calibrated range"
    SAME_AS_INPUT = "the parameters of input 0; the operator only moves or selects values"
    SHARED = "one set of parameters for all activations and the output where that costs nothing"
    FIXED = "parameters the operator prescribes: `Op.fixed_quant`"
    FLOAT = "no integer form: runs in float between dequantize and quantize"
    INDEX = "the output is not a real quantity (indices, booleans)"


@dataclass(frozen=True, slots=True)
class Operands:
    """The typed tensors around one node, constants with their data, and the rounding policy.

    `room`: bytes by which the network's largest tensor exceeds this node's together: scratch that costs nothing.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    rounding: Rounding = Rounding.TFLM
    room: int = 0

    @property
    def quantized(self) -> bool:
        """Whether the first output (or input) holds quantized integers."""
        return any(
            tensor.type.quant is not None and tensor.type.dtype is not DType.FLOAT32
            for tensor in (self.outputs[0], self.inputs[0])
        )


class Body(enum.Enum):
    """What a kernel's C may have a body for. A core runs the last of them that it has the instructions for."""

    PORTABLE = "portable"
    DSP = "dsp"
    MVE = "mve"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One C function: macro `macro` of templates/ops/<family>.c.j2, rendered as kernel(symbol, variant).

    `variant` holds what the template asks about, `helpers` the macros of templates/helpers that all its bodies
    call. What else only one of them calls stands apart; `mve_helpers` is None where cores with MVE run the DSP body.
    """

    family: str
    macro: str
    symbol: str
    variant: tuple[tuple[str, Any], ...] = ()
    helpers: tuple[str, ...] = ()
    portable_helpers: tuple[str, ...] = ()
    dsp_helpers: tuple[str, ...] = ()
    mve_helpers: tuple[str, ...] | None = None

    def helpers_of(self, body: Body) -> tuple[str, ...]:
        """The helpers that this body calls."""
        if body is Body.PORTABLE:
            return self.helpers + self.portable_helpers
        mve = body is Body.MVE and self.mve_helpers is not None
        return self.helpers + ((self.mve_helpers or ()) if mve else self.dsp_helpers)


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """An array of a record: emitted into the weights header, shared with equal arrays."""

    data: Array


Plain = int | float | bool | str | tuple[int, ...] | tuple[float, ...] | Constant


@dataclass(frozen=True, slots=True, eq=False)
class Bodies:
    """A field that differs between the bodies of a kernel; None where a body's struct has no such field."""

    portable: Plain | None
    dsp: Plain | None
    mve: Plain | None

    def of(self, body: Body) -> Plain | None:
        """The field as this body reads it."""
        found: Plain | None = getattr(self, body.value)
        return found


def bodies(portable: Plain | None, dsp: Plain | None, **mve: Plain | None) -> Bodies:
    """A field per body; without `mve` the body for MVE is the one for DSP, as such cores have both.

    >>> bodies(1, 2).of(Body.MVE), bodies(None, 2, mve=None).of(Body.MVE)
    (2, None)
    """
    return Bodies(portable, dsp, mve.get("mve", dsp))


Field = Plain | Bodies


def fields_of_bodies(
    portable: Mapping[str, Plain], dsp: Mapping[str, Plain], mve: Mapping[str, Plain]
) -> dict[str, Field]:
    """One record of the records of the three bodies.

    >>> fields_of_bodies({"a": 1, "b": 2}, {"a": 1, "c": 3}, {"a": 1})["a"]
    1
    """
    names = dict.fromkeys((*portable, *dsp, *mve))
    return {name: _field(portable.get(name), dsp.get(name), mve.get(name)) for name in names}


def _field(portable: Plain | None, dsp: Plain | None, mve: Plain | None) -> Field:
    same = portable is dsp is mve or (not isinstance(portable, Constant) and portable == dsp == mve)
    return portable if same and portable is not None else Bodies(portable, dsp, mve)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a kernel: `symbol(&record, reads..., writes..., scratch)`.

    `record` initialises `struct <kernel.symbol>`. `reads` and `writes` index the node's inputs and outputs.
    `overlaps` says per read how writes[0] may lie over its memory when it dies here (None or missing: not at all).
    `scratch`: bytes of memory that hold nothing before and after the call; None where the kernel takes none, 0
    where this call passes NULL.
    """

    kernel: Kernel
    record: dict[str, Field]
    reads: tuple[int, ...] = (0,)
    writes: tuple[int, ...] = (0,)
    scratch: int | None = None
    overlaps: tuple[Overlap | None, ...] = ()


class Op:
    """Base of all operators: frozen dataclasses whose fields are attributes in the field's standard terms.

    Spatial tensors are channels-last: (batch, *spatial, channels).
    """

    quant_rule: ClassVar[QuantRule] = QuantRule.OWN_RANGE
    weight: ClassVar[int | None] = None
    """Index of the input that holds weights (quantized symmetrically), or None."""
    bias: ClassVar[int | None] = None
    """Index of the input that holds the int32 bias, or None."""
    channel_axis: ClassVar[int] = 0
    """Axis of the weight that runs over output channels."""
    updates: ClassVar[tuple[tuple[int, int], ...]] = ()
    """(output, input over which the kernel may write it): states."""
    view: ClassVar[bool] = False
    """Whether the output is the input's memory under another shape."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """Return the output types (float meaning: no quantization). Raises ValueError for impossible shapes."""
        raise NotImplementedError

    def reference(self, *inputs: Array) -> tuple[Array, ...]:
        """Return the outputs in numpy, float32 (or the integers of an unquantized integer operator)."""
        raise NotImplementedError

    def reference_int(self, operands: Operands, *inputs: Array) -> tuple[Array, ...]:
        """Return the outputs on quantized integers, to the bit what the C computes."""
        del operands
        if self.quant_rule is QuantRule.SAME_AS_INPUT:
            return self.reference(*inputs)
        raise ValueError(f"{type(self).__name__} has no integer form")

    def lower(self, operands: Operands) -> tuple[Call, ...]:
        """Return the kernel calls that compute the outputs, for the dtypes the operands have."""
        raise NotImplementedError

    def has_integer_form(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], dtype: DType = DType.INT8
    ) -> str | None:
        """Return None when the operator runs on int8 (or int16: `dtype`) here, else why not (said in the report)."""
        del inputs, outputs, dtype
        return "no integer form" if self.quant_rule is QuantRule.FLOAT else None

    def fixed_quant(self, dtype: DType) -> QuantParams:
        """For QuantRule.FIXED: the output's parameters."""
        raise NotImplementedError

    def macs(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> int:
        """Multiply-accumulates of one run (0 for operators that are not counted so)."""
        del inputs, outputs
        return 0


OPERATORS: dict[str, type[Op]] = {}
"""Every operator class by name."""
FAMILIES: dict[str, str] = {}
"""Operator class name -> family, the name of its file in toolchain/ops and templates/ops."""

OpType = TypeVar("OpType", bound=type[Op])


def operator(family: str) -> Callable[[OpType], OpType]:
    """Register an operator class (apply above @dataclass(frozen=True, slots=True))."""

    def register(cls: OpType) -> OpType:
        OPERATORS[cls.__name__] = cls
        FAMILIES[cls.__name__] = family
        return cls

    return register


def only_quant(tensor: Tensor) -> tuple[float, int]:
    """(scale, zero point) of a per-tensor quantized tensor."""
    if tensor.type.quant is None or len(tensor.type.quant.scale) != 1:
        raise ValueError(f"{tensor.name}: expected one scale, found {tensor.type.quant}")
    return float(tensor.type.quant.scale[0]), tensor.type.quant.zero_point


def float32(*arrays: Any) -> tuple[Array, ...]:
    """The arrays as float32."""
    return tuple(np.asarray(a, np.float32) for a in arrays)

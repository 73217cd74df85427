"""Quantized ONNX: QuantizeLinear, DequantizeLinear and the QLinear operators.

Everything is imported as float operators between Dequantize and Quantize; a pass finds what runs on integers.
Unsigned activations become int8 with the zero point moved by 128. Dequantized weights become float constants that
remember their grid (`TensorType.quant`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.importers.layer import NoCFormError, normal_axis
from toolchain.importers.onnx.layer import HANDLERS, Layer, handles
from toolchain.ir.graph import Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.ops.convert import Dequantize, Quantize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolchain.importers.builder import GraphBuilder
    from toolchain.ir.types import Array

ADDED = {
    "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu",
    "QLinearMul", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere",
}  # fmt: skip
"""Operators that ONNX Runtime adds to ONNX."""
CONTRIBUTED = ADDED | {"QuantizeLinear", "DequantizeLinear"}
"""Operators of the domain com.microsoft that are read here."""
QUANTIZED = CONTRIBUTED | {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
COMPUTED = QUANTIZED - {"QuantizeLinear"}
"""What must not be folded on constants: weights would lose their integers."""
MOVES = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Resize",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that only move or select, hence mean the same on integers as on the reals behind them."""
READS_ORDER = {"ArgMax", "ArgMin", "Shape", "Size"}
INNER_OPSET = 13
"""The opset whose operators the contributed ones wrap."""
_STORED = {"int8": DType.INT8, "uint8": DType.INT8, "int16": DType.INT16, "uint16": DType.INT16, "int32": DType.INT16}
"""ONNX's type -> the IR's. Constants of uint16 are int32 in the IR; ONNX quantizes nothing to int32 itself."""
_UNSIGNED = {"uint8": 128, "uint16": 32768, "int32": 32768}


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Scale and zero point as ONNX has them: scalars, vectors over an axis, or blocks along it."""

    scale: Array
    zero: Array
    axis: int = 0
    block: int = 0

    @property
    def single(self) -> bool:
        """Whether there is one scale for the whole tensor."""
        return self.scale.size == 1

    def over(self, x: Array, values: Array) -> Array:
        """Scales or zero points, shaped to broadcast to x."""
        if self.single:
            return values.reshape(())
        if values.ndim == 1:
            return values.reshape([-1 if axis == self.axis else 1 for axis in range(x.ndim)])
        block = self.block or -(-x.shape[self.axis] // values.shape[self.axis])
        return np.repeat(values, block, self.axis)[tuple(slice(n) for n in x.shape)]


def _grid(layer: Layer, scale: str, zero: str, shape: tuple[int, ...], axis: int, integers: str = "uint8") -> Grid:
    """The parameters named by two inputs, checked; `integers` is the type where no zero point is given.

    Raises NoCFormError where they are computed.
    """
    scales = layer.builder.value(scale)
    zeros = layer.builder.value(zero) if zero else np.zeros((), integers)
    if scales is None or zeros is None:
        raise NoCFormError("its scale or zero point is computed at run time, expected constants")
    if not np.all(np.isfinite(scales) & (scales > 0)):
        raise ValueError("a scale that is not positive, expected finite numbers above 0")
    if scales.size > 1:
        axis = normal_axis(axis, len(shape))
        if scales.ndim == 1 and scales.size != shape[axis]:
            raise ValueError(f"{scales.size} scales, expected {shape[axis]} for axis {axis} of {list(shape)}")
    zeros = zeros.reshape(scales.shape) if zeros.size == scales.size else np.broadcast_to(zeros, scales.shape)
    return Grid(scales.astype(np.float32), zeros, axis, int(layer.get("block_size", 0)))


def _activation(grid: Grid, integers: str) -> tuple[DType, QuantParams]:
    """How the IR stores a computed tensor of ONNX's type `integers`."""
    if integers not in _STORED:
        raise NoCFormError(f"activations of type {integers}, expected 8 or 16 bits")
    if not grid.single:
        raise NoCFormError("an activation with many scales (per channel or block), expected one for the whole tensor")
    zero = int(grid.zero.reshape(())) - _UNSIGNED.get(integers, 0)
    return _STORED[integers], QuantParams((float(grid.scale.reshape(())),), zero)


def is_quantized(builder: GraphBuilder, name: str) -> bool:
    """Whether a tensor holds integers with a scale."""
    kind = builder.type(name)
    return kind.quant is not None and kind.dtype is not DType.FLOAT32


def quantize(layer: Layer, x: str, scale: str, zero: str, integers: str | None = None) -> str:
    """The tensor on the grid of two inputs; its type is that of the zero point."""
    kind = layer.builder.type(x)
    if kind.dtype is not DType.FLOAT32:
        raise NoCFormError(f"it quantizes {kind.dtype.value}, expected float32")
    if zero in layer.builder.four_bit:
        raise NoCFormError("activations of 4 bits, expected 8 or 16")
    grid = _grid(layer, scale, zero, kind.shape, int(layer.get("axis", 1)))
    dtype, quant = _activation(grid, integers or grid.zero.dtype.name)
    made = _requantized(layer.builder, x, TensorType(kind.shape, dtype, quant), layer.origin)
    if (integers or grid.zero.dtype.name) in _UNSIGNED:
        layer.builder.unsigned.add(made)
    return made


def _requantized(builder: GraphBuilder, x: str, kind: TensorType, origin: str) -> str:
    return builder.add(Quantize(), [x], origin=origin, names=[f"{origin}/Quantize"], types=[kind])[0]


def dequantize(layer: Layer, x: str, scale: str, zero: str, axis: int | None = None) -> str:
    """The reals behind integers: a constant that remembers its grid, or a Dequantize of a computed tensor."""
    axis = int(layer.get("axis", 1)) if axis is None else axis
    grid = _grid(layer, scale, zero, layer.builder.shape(x), axis, _integers_of(layer.builder, x))
    value = layer.builder.value(x)
    if value is not None:
        return _constant(layer, x, value, grid)
    kind = layer.builder.type(x)
    if kind.quant is not None:
        return _dequantized(layer, x, grid, kind)
    if kind.dtype not in {DType.INT8, DType.UINT8}:
        raise NoCFormError(f"it dequantizes a computed {kind.dtype.value}, expected 8 bits")
    raw = QuantParams((float(grid.scale.reshape(-1)[0]),), int(grid.zero.reshape(-1)[0]))
    layer.builder.tensors[x] = Tensor(x, replace(kind, quant=raw))
    return _dequantized(layer, x, grid, layer.builder.type(x))


def _integers_of(builder: GraphBuilder, x: str) -> str:
    """ONNX's type of a computed 8 or 16 bit tensor."""
    bits = 8 * builder.type(x).dtype.bytes
    unsigned = x in builder.unsigned or builder.type(x).dtype is DType.UINT8
    return f"{'u' if unsigned else ''}int{bits}"


def _dequantized(layer: Layer, x: str, grid: Grid, kind: TensorType) -> str:
    dtype, quant = _activation(grid, grid.zero.dtype.name)
    if kind.dtype is DType.UINT8 and kind.quant is not None:
        assert grid.single
        stored = TensorType(kind.shape, DType.INT8, replace(kind.quant, zero_point=kind.quant.zero_point - 128))
        x = _requantized(layer.builder, x, stored, layer.origin)
        kind = stored
    if (kind.dtype, kind.quant) != (dtype, quant):
        raise NoCFormError("it reads integers with other parameters than they were made with")
    return layer.add(Dequantize(), x)


def _constant(layer: Layer, name: str, value: Array, grid: Grid) -> str:
    """The reals of a constant."""
    centred = value.astype(np.int64) - grid.over(value, grid.zero).astype(np.int64)
    reals = centred.astype(np.float32) * grid.over(value, grid.scale)
    return layer.builder.constant(name, reals, _remembered(value, centred, grid))


def _remembered(value: Array, centred: Array, grid: Grid) -> QuantParams | None:
    """The grid a constant lies on: symmetric where its values allow or its scales are many, None for blocks."""
    if grid.scale.ndim > 1:
        return None
    scales = tuple(float(scale) for scale in grid.scale.reshape(-1))
    if value.dtype.itemsize > 1:
        symmetric = grid.single and value.dtype == np.int16 and not np.any(grid.zero)
        return QuantParams(scales, 0) if symmetric else None
    low, high = DType.INT8.limits
    if not grid.single or (low <= centred.min(initial=0) and centred.max(initial=0) <= high):
        return QuantParams(scales, 0, None if grid.single else grid.axis)
    return QuantParams(scales, int(grid.zero.reshape(-1)[0]) - _UNSIGNED.get(grid.zero.dtype.name, 0))


@handles("QuantizeLinear")
def quantize_linear(layer: Layer) -> str:
    """Reals to integers."""
    import onnx

    asked = int(layer.get("output_dtype", 0))
    integers = onnx.helper.tensor_dtype_to_np_dtype(asked).name if asked else None
    zero = layer.inputs[2] if layer.has(2) else ""
    return quantize(layer, layer.x, layer.operand(1), zero, integers)


@handles("DequantizeLinear")
def dequantize_linear(layer: Layer) -> str:
    """Integers to reals."""
    return dequantize(layer, layer.x, layer.operand(1), layer.inputs[2] if layer.has(2) else "")


def on_reals(layer: Layer) -> tuple[str, ...]:
    """An operator that moves quantized integers, as one that moves the reals behind them."""
    if layer.kind == "Cast" and _keeps_type(layer):
        return (layer.x,)
    if layer.kind not in MOVES | READS_ORDER:
        raise NoCFormError(
            "it computes with the integers of a quantized tensor, expected it between (De)QuantizeLinear"
        )
    kinds = [layer.builder.type(name) for name in layer.inputs if name and is_quantized(layer.builder, name)]
    if len({(kind.dtype, kind.quant) for kind in kinds}) > 1:
        raise NoCFormError("it joins integers of different scales")
    if layer.kind == "Pad" and layer.get("mode", "constant") == "constant":
        layer = replace(layer, inputs=(*layer.inputs[:2], _padding_value(layer, kinds[0]), *layer.inputs[3:]))
    reals = tuple(
        layer.add(Dequantize(), name) if name and is_quantized(layer.builder, name) else name for name in layer.inputs
    )
    result = HANDLERS[layer.kind](replace(layer, inputs=reals))
    results = (result,) if isinstance(result, str) else result
    made = tuple(
        _requantized(layer.builder, name, replace(kinds[0], shape=layer.builder.shape(name)), layer.origin)
        if layer.is_float(name)
        else name
        for name in results
    )
    if layer.builder.unsigned.intersection(layer.inputs):
        layer.builder.unsigned.update(made)
    return made


def _keeps_type(layer: Layer) -> bool:
    """Whether a Cast is to the 8 bits that its input has in the source model."""
    import onnx

    to = onnx.TensorProto.UINT8 if layer.x in layer.builder.unsigned else onnx.TensorProto.INT8
    return layer.type(0).dtype is DType.INT8 and int(layer.get("to", 0)) == to


def _padding_value(layer: Layer, kind: TensorType) -> str:
    """The real number behind the integer that a Pad writes."""
    if not layer.has(2):
        raise NoCFormError("it pads integers without saying by what, expected the zero point as its value")
    value = layer.constant_value(2, "value")
    assert kind.quant is not None
    steps = int(value.reshape(-1)[0]) - _UNSIGNED.get(value.dtype.name, 0) - kind.quant.zero_point
    return layer.constant(np.float32(steps * kind.quant.scale[0]), "value")


def as_unsigned(builder: GraphBuilder, name: str, origin: str) -> str:
    """A uint8 output of the model, which is stored as int8, as uint8."""
    kind = builder.type(name)
    if kind.dtype is not DType.INT8 or kind.quant is None:
        return name
    quant = replace(kind.quant, zero_point=kind.quant.zero_point + 128)
    return _requantized(builder, name, TensorType(kind.shape, DType.UINT8, quant), origin)


def _inner(layer: Layer, kind: str, inputs: Sequence[str], y: tuple[str, str], **attributes: Any) -> str:
    """The float operator between Dequantize and Quantize. `y` names the output's scale and zero point."""
    opset = layer.opset if kind == "Conv" else INNER_OPSET
    inner = replace(layer, kind=kind, inputs=tuple(inputs), attributes={**layer.attributes, **attributes}, opset=opset)
    result = HANDLERS[kind](inner)
    assert isinstance(result, str)
    return quantize(replace(layer, attributes={}), result, *y)


def _triple(layer: Layer, first: int, axis: int | None = None) -> str:
    """The reals of the tensor, scale and zero point that start at an input."""
    zero = layer.inputs[first + 2] if layer.has(first + 2) else ""
    return dequantize(replace(layer, attributes={}), layer.operand(first), layer.operand(first + 1), zero, axis)


def _pair(layer: Layer, first: int) -> tuple[str, str]:
    """The names of the output's scale and zero point."""
    return layer.operand(first), layer.inputs[first + 1] if layer.has(first + 1) else ""


def _bias(layer: Layer, index: int, factor: float = 1.0) -> str:
    """An int32 bias at the product of the scales of input and weights, as reals; the empty name without one."""
    if not layer.has(index):
        return ""
    integers = layer.constant_value(index, "bias")
    scales = layer.constant_value(1, "scale").reshape(-1) * layer.constant_value(4, "scale").reshape(-1)
    return layer.builder.constant(layer.inputs[index], (integers * scales * factor).astype(np.float32))


@handles("DynamicQuantizeLinear")
def dynamic_quantize_linear(layer: Layer) -> str:
    """Always refused."""
    del layer
    raise NoCFormError(
        "it quantizes by the range of each input (dynamic quantization), expected scales in the file; "
        "use static quantization, or the float model with calibration samples"
    )


@handles("ConvInteger", "MatMulInteger")
def integer_products(layer: Layer) -> str:
    """(x, weights, their zero points): int32 sums of products, here as the reals that a Cast and a Mul make of them."""
    quant, plain = layer.type(0).quant, replace(layer, attributes={})
    layer.constant_value(1, "weights")
    step = 1.0 if quant is None else quant.scale[0]
    zeros = [layer.inputs[index] if layer.has(index) else "" for index in (2, 3)]
    ones = np.ones(() if layer.value(3) is None else layer.constant_value(3, "zero point").shape, np.float32)
    x = dequantize(plain, layer.x, layer.constant(np.float32(step), "scale"), zeros[0])
    kind = layer.kind.removesuffix("Integer")
    weight = dequantize(plain, layer.inputs[1], layer.constant(ones, "one"), zeros[1], 0 if kind == "Conv" else -1)
    result = HANDLERS[kind](replace(layer, kind=kind, inputs=(x, weight)))
    assert isinstance(result, str)
    return layer.binary("mul", result, 1.0 / step)


@handles("QLinearConv")
def qlinear_conv(layer: Layer) -> str:
    """(x, scale, zero; w, scale, zero; output scale, zero; int32 bias)."""
    inputs = (_triple(layer, 0), _triple(layer, 3, axis=0), _bias(layer, 8))
    return _inner(layer, "Conv", inputs, _pair(layer, 6))


@handles("QLinearMatMul")
def qlinear_matmul(layer: Layer) -> str:
    """(a, scale, zero; b, scale, zero; output scale, zero)."""
    return _inner(layer, "MatMul", (_triple(layer, 0), _triple(layer, 3, axis=-1)), _pair(layer, 6))


@handles("QGemm")
def qgemm(layer: Layer) -> str:
    """(a, scale, zero; b, scale, zero; int32 c; output scale, zero); a float output without the last two."""
    alpha = float(layer.get("alpha", 1.0))
    inputs = (_triple(layer, 0), _triple(layer, 3, axis=0 if layer.get("transB", 0) else 1), _bias(layer, 6, alpha))
    if layer.has(7):
        return _inner(layer, "Gemm", inputs, _pair(layer, 7))
    result = HANDLERS["Gemm"](replace(layer, kind="Gemm", inputs=inputs, opset=INNER_OPSET))
    assert isinstance(result, str)
    return result


@handles("QLinearAdd", "QLinearMul")
def qlinear_binary(layer: Layer) -> str:
    """(a, scale, zero; b, scale, zero; output scale, zero)."""
    return _inner(layer, layer.kind.removeprefix("QLinear"), (_triple(layer, 0), _triple(layer, 3)), _pair(layer, 6))


@handles("QLinearConcat")
def qlinear_concat(layer: Layer) -> str:
    """(output scale, zero; then tensor, scale, zero of each part)."""
    parts = tuple(_triple(layer, first) for first in range(2, len(layer.inputs), 3))
    return _inner(layer, "Concat", parts, _pair(layer, 0))


@handles("QLinearWhere")
def qlinear_where(layer: Layer) -> str:
    """(condition; x, scale, zero; y, scale, zero; output scale, zero)."""
    return _inner(layer, "Where", (layer.x, _triple(layer, 1), _triple(layer, 4)), _pair(layer, 7))


@handles("QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearReduceMean")
def qlinear_unary(layer: Layer) -> str:
    """(x, scale, zero; output scale, zero)."""
    if layer.get("channels_last", 0):
        raise NoCFormError("channels_last, expected the usual order of axes")
    alpha = {"alpha": float(layer.get("alpha", 0.01))} if layer.kind == "QLinearLeakyRelu" else {}
    return _inner(layer, layer.kind.removeprefix("QLinear"), (_triple(layer, 0),), _pair(layer, 3), **alpha)


@handles("QLinearSoftmax")
def qlinear_softmax(layer: Layer) -> str:
    """(x, scale, zero; output scale, zero); `opset` says which Softmax is meant."""
    x = _triple(layer, 0)
    inner = replace(layer, kind="Softmax", inputs=(x,), opset=int(layer.get("opset", INNER_OPSET)))
    result = HANDLERS["Softmax"](inner)
    assert isinstance(result, str)
    return quantize(replace(layer, attributes={}), result, *_pair(layer, 3))

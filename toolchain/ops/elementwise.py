"""The elementwise operators under one name: one input (unary), two (binary), and changes of type (convert)."""

from toolchain.ops.binary import Binary, PRelu
from toolchain.ops.convert import Cast, Dequantize, Quantize
from toolchain.ops.select import Select
from toolchain.ops.unary import KINDS, Unary

__all__ = ["KINDS", "Binary", "Cast", "Dequantize", "PRelu", "Quantize", "Select", "Unary"]

"""The options of an export, frozen once they are read."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Rounding(enum.Enum):
    """How an accumulator becomes an output integer."""

    TFLM = "tflm"
    """Saturating doubling high multiply, then a rounding shift: what TensorFlow Lite Micro computes."""
    SINGLE = "single"
    """One rounding of the exact 64-bit product."""
    LITERT = "litert"
    """What LiteRT's reference kernels compute: fully connected layers round once, all other operators as `tflm`."""


class CalibrationMethod(enum.Enum):
    """How the range of an activation is found from samples."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"
    AUTO = "auto"
    """For each tensor the one that errs least at the outputs."""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that decides the bytes of an export. The flags of `inlay export`, one field each."""

    name: str
    quantize: str = "float32"
    per_channel: bool = False
    calibration_method: CalibrationMethod = CalibrationMethod.MINMAX
    io: str | None = None
    input_shape: tuple[tuple[str, tuple[int, ...]], ...] = ()
    input_layout: str = "nhwc"
    rounding: Rounding = Rounding.TFLM
    max_ram: int | None = None
    max_flash: int | None = None
    max_stack: int | None = None
    max_accuracy_drop: float | None = None
    min_sqnr: float | None = None
    equalize: bool = True
    absorb_bias: bool = True
    bias_correction: bool = True
    optimize_weights: bool = False
    preserve_input: bool = False
    vectors: int = 1
    verify: bool = True

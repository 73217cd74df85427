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
    """The extremes."""
    PERCENTILE = "percentile"
    """The middle 99.99 % of the values."""
    MSE = "mse"
    """The range of least mean squared error."""
    ENTROPY = "entropy"
    """The range of least Kullback-Leibler divergence."""
    AUTO = "auto"
    """For each tensor the one that errs least at the outputs."""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that decides the bytes of an export. The flags of `inlay export`, one field each.

    Attributes:
        name: Prefix of files, functions and macros in C.
        quantize: float32, int8, or int16x8: activations of 16 bits, weights of 8.
        per_channel: One weight scale for each output channel, not one for each tensor.
        calibration_method: How the range of an activation is found.
        io: Type of the C's inputs and outputs: float32, int8 or int16; as in the model when None.
        input_shape: (input name, dimensions) where the model leaves them open; the empty name is the only input's.
        input_layout: Order of the axes of images in the C: nhwc or nchw.
        rounding: How sums become output integers.
        max_ram: Limit of the arena in bytes.
        max_flash: Limit of code and constants in bytes, built for a Cortex-M4 where its gcc is installed.
        max_stack: Limit of the deepest call chain of that build in bytes, without the C library's.
        max_accuracy_drop: Percentage points of accuracy that the C may lose against the model as it was given.
        min_sqnr: Least ratio of signal to quantization noise at the outputs in dB.
        equalize: Balance channel ranges between layers, where it helps on the calibration samples.
        absorb_bias: Move what a channel never falls below into the next layer's bias, where it helps.
        bias_correction: Take the mean quantization error out of the biases, where it helps.
        optimize_weights: Round weights so that their errors make up for each other on the samples.
        preserve_input: A run leaves the inputs as they are: outputs and scratch lie elsewhere.
        vectors: How many samples the C's self-test embeds.
        verify: Build the C and compare it with its meaning.
    """

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

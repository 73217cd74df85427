"""The arguments and options of the commands: how each is written, and what its help says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from toolchain.errors import InputError

CORES = "cortex-m0|m3|m4|m7|m33|m55, rv32imc, host"
QUANTIZING, ENDS, LIMITS = "Quantization", "Inputs and outputs", "Limits"
CHECKS, BUILD = "Checks", "Build on this machine"
"""The headings under which the help lists options."""

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A .onnx, .tflite, .keras, .h5, .pt2 file or a SavedModel folder.")
]
WeightsModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A .onnx, .tflite, .keras, .h5, .pt2 file, a SavedModel folder, or a state_dict (.pt, .pth).",
    ),
]
Exported = Annotated[Path, typer.Argument(metavar="DIR", help="The folder that inlay export wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder to write: new, empty, or of an earlier export.")]
Name = Annotated[
    str | None,
    typer.Option(help="Prefix of every file, function and macro in C; the model file's name when not given."),
]
Vectors = Annotated[int, typer.Option(min=1, help="How many samples the C's self-test embeds.")]

Quantize = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        help="float32, int8, or int16x8 (16-bit activations, 8-bit weights). A quantized model keeps its own integers.",
        rich_help_panel=QUANTIZING,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Representative inputs, needed by int8 and int16x8: .npz with an array per input, or .npy; "
        "the first axis counts samples.",
        rich_help_panel=QUANTIZING,
    ),
]
CalibrationMethod = Annotated[
    str,
    typer.Option(
        metavar="METHOD",
        help="How ranges follow from the samples: minmax, percentile, mse, entropy, or auto (the best for each "
        "tensor; slower).",
        rich_help_panel=QUANTIZING,
    ),
]
PerChannel = Annotated[
    bool,
    typer.Option(
        "--per-channel/--per-tensor", help="One weight scale per channel or per tensor.", rich_help_panel=QUANTIZING
    ),
]
Equalize = Annotated[
    bool,
    typer.Option(
        "--equalize/--no-equalize",
        help="Balance channel ranges between layers, where it helps.",
        rich_help_panel=QUANTIZING,
    ),
]
AbsorbBias = Annotated[
    bool,
    typer.Option(
        "--absorb-bias/--no-absorb-bias",
        help="Move large biases into the next layer, where it helps.",
        rich_help_panel=QUANTIZING,
    ),
]
BiasCorrection = Annotated[
    bool,
    typer.Option(
        "--bias-correction/--no-bias-correction",
        help="Take the mean quantization error out of the biases, where it helps.",
        rich_help_panel=QUANTIZING,
    ),
]
OptimizeWeights = Annotated[
    bool,
    typer.Option(
        "--optimize-weights",
        help="Round weights so that their errors cancel on the samples (slower).",
        rich_help_panel=QUANTIZING,
    ),
]
Rounding = Annotated[
    str,
    typer.Option(
        metavar="POLICY",
        help="How sums become output integers: tflm (as TensorFlow Lite Micro), litert (as LiteRT on the desktop), "
        "or single (one rounding everywhere).",
        rich_help_panel=QUANTIZING,
    ),
]

Ends = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="Type of the C's inputs and outputs: float32, int8 or int16; as in the model when not given.",
        rich_help_panel=ENDS,
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SHAPE",
        help="Sizes of dimensions that the model leaves open, as [NAME=]1,3,32,32; may be given for each input.",
        rich_help_panel=ENDS,
    ),
]
Layout = Annotated[
    str,
    typer.Option(
        metavar="LAYOUT",
        help="Order of the axes of images in the C: nhwc (channels last) or nchw.",
        rich_help_panel=ENDS,
    ),
]
PreserveInput = Annotated[
    bool,
    typer.Option(
        "--preserve-input",
        help="Keep the inputs through a run, at the price of RAM; else their memory is used again.",
        rich_help_panel=ENDS,
    ),
]

MaxRam = Annotated[
    int | None, typer.Option(metavar="BYTES", help="Fail when the arena is larger.", rich_help_panel=LIMITS)
]
MaxFlash = Annotated[
    int | None,
    typer.Option(
        metavar="BYTES",
        help="Fail when code and weights, built for a Cortex-M4 where its gcc is installed, are larger.",
        rich_help_panel=LIMITS,
    ),
]
MaxStack = Annotated[
    int | None,
    typer.Option(
        metavar="BYTES", help="Fail when the deepest call chain of that build takes more stack.", rich_help_panel=LIMITS
    ),
]
MaxAccuracyDrop = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help="Percentage points of accuracy the C may lose on --eval. With int8, layers move to more precision "
        "until it holds.",
        rich_help_panel=LIMITS,
    ),
]
MinSqnr = Annotated[
    float | None,
    typer.Option(
        metavar="DB",
        help="Least ratio of signal to quantization noise at the outputs; layers move to more precision until it "
        "holds.",
        rich_help_panel=LIMITS,
    ),
]

Eval = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Labelled samples, .npz with the labels as y: prints the accuracy of the model and of the C.",
        rich_help_panel=CHECKS,
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Build the C with the host's compiler and compare its outputs with the model's.",
        rich_help_panel=CHECKS,
    ),
]
Compiler = Annotated[
    str | None,
    typer.Option(
        "--cc",
        metavar="COMMAND",
        help="The host's C compiler; $CC, else gcc, when not given.",
        rich_help_panel=BUILD,
    ),
]
Sanitize = Annotated[
    bool,
    typer.Option(
        "--sanitize", help="Build with the address and undefined-behaviour sanitizers.", rich_help_panel=BUILD
    ),
]

Data = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Inputs to compare on, .npz or .npy; seeded noise when not given."),
]
VerifyTarget = Annotated[
    str | None, typer.Option(metavar="CPU", help=f"Run on an emulated core, not on this machine: {CORES}.")
]
BenchTarget = Annotated[str, typer.Option(metavar="CPU", help=f"Core to emulate, or this machine: {CORES}.")]
Compare = Annotated[Path | None, typer.Option(metavar="DIR", help="Another export to measure beside it.")]
Level = Annotated[str, typer.Option("-O", metavar="LEVEL", help="The compiler's optimisation: 0, 1, 2, 3 or s.")]
Portable = Annotated[
    bool, typer.Option("--portable", help="Build plain C alone, without the kernels for this core's instructions.")
]
Native = Annotated[
    bool, typer.Option("--native", help="With --target host: all instructions this processor has (-march=native).")
]

Header = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="C header to write.")]
WeightType = Annotated[
    str, typer.Option("--quantize", metavar="TYPE", help="Type in the header: float32 or int8 (symmetric, per tensor).")
]


def parse_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """[NAME=]1,3,32,32 as {name: dimensions}; no name is the single input's."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, _, dims = text.rpartition("=")
        if not re.fullmatch(r"\d+(,\d+)*", dims):
            raise InputError(f"--input-shape: found {text!r}, expected [NAME=]1,3,32,32")
        if name in shapes:
            raise InputError(f"--input-shape: found {name or 'the input'} twice, expected one shape for each input")
        shapes[name] = tuple(int(dim) for dim in dims.split(","))
    return shapes

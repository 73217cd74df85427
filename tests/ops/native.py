"""Renders one operator's kernels by themselves, compiles them strictly and runs them in a child process."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.flags import STRICT
from toolchain.emit.environment import c_float, environment
from toolchain.ir.graph import Tensor
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.ops.base import Bodies, Body, Call, Constant, Op, Operands, Plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FLAGS = [
    *STRICT,
    "-O1",
    "-g",
    "-DKERNEL_DSP=0",
    "-DKERNEL_MVE=0",
    "-DKERNEL_WIDE=1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
]
STYLE = (
    "{BasedOnStyle: LLVM, IndentWidth: 4, ColumnLimit: 100, BreakBeforeBraces: Linux, "
    "AllowShortFunctionsOnASingleLine: None}"
)
DTYPES = {dtype.numpy: dtype for dtype in DType}


def operands_of(op: Op, inputs: Sequence[Array], quant: Sequence[QuantParams | None] = ()) -> Operands:
    """Typed operands; `quant` names the inputs' parameters, then the outputs'."""
    quants = [*quant, *[None] * (len(inputs) + 8 - len(quant))]
    types = [TensorType(a.shape, DTYPES[a.dtype], q) for a, q in zip(inputs, quants, strict=False)]
    sources = tuple(Tensor(f"x{i}", t) for i, t in enumerate(types))
    outputs = op.infer(*types)
    targets = quants[len(inputs) :]
    typed = [TensorType(t.shape, t.dtype, q) for t, q in zip(outputs, targets, strict=False)]
    return Operands(sources, tuple(Tensor(f"y{i}", t) for i, t in enumerate(typed)))


def portable(call: Call) -> dict[str, Plain]:
    """The call's record as plain C reads it."""
    return fields_of(call, Body.PORTABLE)


def fields_of(call: Call, body: Body) -> dict[str, Plain]:
    """The call's record as one of the bodies reads it."""
    fields = {name: value.of(body) if isinstance(value, Bodies) else value for name, value in call.record.items()}
    return {name: value for name, value in fields.items() if value is not None}


def flags(body: Body, *, wide: bool = True) -> list[str]:
    """FLAGS for the host to run a body, by the plain C that stands for its instructions; `wide`: on its vector unit."""
    macros = {"KERNEL_DSP": body is Body.DSP, "KERNEL_WIDE": wide}
    chosen = [f"-D{macro}={int(value)}" for macro, value in macros.items()]
    return [flag for flag in FLAGS if not flag.startswith(tuple(f"-D{macro}=" for macro in macros))] + chosen


def _text(values: Array) -> str:
    flat = values.ravel()
    return ", ".join(c_float(v) if values.dtype.kind == "f" else str(int(v)) for v in flat)


def _field(name: str, value: object, constants: list[str], prefix: str) -> str:
    if isinstance(value, Constant):
        array = f"{prefix}_{name}".replace(".", "_")
        ctype = DTYPES[value.data.dtype].c
        constants.append(f"static const {ctype} {array}[{value.data.size}] = {{{_text(value.data)}}};")
        return f".{name} = {array}"
    if isinstance(value, tuple):
        return f".{name} = {{{_text(np.asarray(value))}}}"
    return f".{name} = {_text(np.asarray(value))}"


def source(op: Op, operands: Operands, inputs: Sequence[Array]) -> tuple[str, list[str]]:
    """The whole C program, and the text of each kernel in it."""
    calls: tuple[Call, ...] = op.lower(operands)
    kernels = {call.kernel.symbol: call.kernel for call in calls}
    assert all(kernels[call.kernel.symbol] == call.kernel for call in calls)
    bodies = []
    for kernel in kernels.values():
        module = environment().get_template(f"ops/{kernel.family}.c.j2").module
        bodies.append(str(getattr(module, kernel.macro)(kernel.symbol, dict(kernel.variant))))
    lines: list[str] = []
    steps: list[str] = []
    for i, x in enumerate(inputs):
        lines.append(f"static const {DTYPES[x.dtype].c} x{i}[{x.size}] = {{{_text(x)}}};")
    for i, y in enumerate(operands.outputs):
        lines.append(f"static {y.type.dtype.c} y{i}[{y.type.elements}];")
    for i, call in enumerate(calls):
        fields = ", ".join(_field(n, v, lines, f"layer{i}") for n, v in portable(call).items())
        lines.append(f"static const struct {call.kernel.symbol} layer{i} = {{{fields}}};")
        arguments = [f"&layer{i}", *(f"x{r}" for r in call.reads), *(f"y{w}" for w in call.writes)]
        if call.scratch:
            lines.append(f"static uint32_t scratch{i}[{-(-call.scratch // 4)}];")
        if call.scratch is not None:
            arguments.append(f"scratch{i}" if call.scratch else "NULL")
        steps.append(f"{call.kernel.symbol}({', '.join(arguments)});")
    steps += [f"fwrite(y{i}, 1, sizeof y{i}, stdout);" for i in range(len(operands.outputs))]
    includes = "#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n"
    main = "int main(void)\n{\n" + "\n".join(steps) + "\nreturn 0;\n}\n"
    return includes + "\n".join([*bodies, *lines]) + "\n" + main, bodies


def run_c(op: Op, operands: Operands, inputs: Sequence[Array], compiler: str = "gcc") -> tuple[Array, ...]:
    """The outputs as the compiled C computes them."""
    text, _ = source(op, operands, inputs)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        (Path(folder) / "program.c").write_text(text)
        subprocess.run([compiler, *FLAGS, "-o", program, f"{program}.c", "-lm"], check=True)
        raw = subprocess.run([program], check=True, capture_output=True).stdout
    outputs, start = [], 0
    for tensor in operands.outputs:
        end = start + tensor.type.bytes
        outputs.append(np.frombuffer(raw[start:end], tensor.type.dtype.numpy).reshape(tensor.type.shape))
        start = end
    assert start == len(raw)
    return tuple(outputs)


def check(op: Op, *inputs: Array, quant: Sequence[QuantParams | None] = (), rtol: float = 0.0) -> tuple[Array, ...]:
    """Assert that the C equals the reference and that the reference keeps its promised type; return it."""
    operands = operands_of(op, inputs, quant)
    expected = op.reference_int(operands, *inputs) if operands.quantized else op.reference(*inputs)
    for tensor, y in zip(operands.outputs, expected, strict=True):
        assert (tensor.type.shape, tensor.type.dtype) == (y.shape, DTYPES[y.dtype])
    for y, c in zip(expected, run_c(op, operands, inputs), strict=True):
        np.testing.assert_allclose(c, y, rtol=0, atol=rtol * float(np.ptp(y)) if rtol else 0)
    return expected


def assert_formatted(cases: Iterable[tuple[Op, Sequence[Array], Sequence[QuantParams | None]]]) -> None:
    """Assert that clang-format changes nothing in the kernels of (operator, inputs, parameters)."""
    bodies = {body.strip() for op, x, quant in cases for body in source(op, operands_of(op, x, quant), x)[1]}
    text = "\n\n".join(sorted(bodies)) + "\n"
    if shutil.which("clang-format") is None:
        pytest.skip("clang-format not found: sudo apt-get install clang-format")
    assert formatted(text) == text


def formatted(text: str) -> str:
    """C as clang-format lays it out, where it is installed; elsewhere the text itself."""
    if shutil.which("clang-format") is None:
        return text
    command = ["clang-format", f"--style={STYLE}"]
    return subprocess.run(command, input=text, text=True, capture_output=True, check=True).stdout

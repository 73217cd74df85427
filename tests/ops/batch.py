"""Many operators in one C program: each kernel once, strictly compiled, run under sanitizers, compared with numpy."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tests.ops.native import fields_of, flags, formatted
from toolchain.config import Rounding
from toolchain.emit.emitter import helper_functions, tidy
from toolchain.emit.environment import c_type, c_value, environment
from toolchain.ir.graph import Tensor
from toolchain.ir.types import Array, DType, QuantParams, TensorType
from toolchain.ops.base import Body, Constant, Field, Kernel, Op, Operands

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DTYPES = {dtype.numpy: dtype for dtype in DType}
INCLUDES = "".join(f"#include <{name}.h>\n" for name in ("math", "stddef", "stdint", "stdio", "string"))


@dataclass(frozen=True, eq=False)
class Case:
    """An operator on arrays; `quant` names the inputs' parameters, then the output's. `out`: the output's type.

    Inputs whose index is in `constant` are constants of the model.
    """

    op: Op
    inputs: tuple[Array, ...]
    quant: tuple[QuantParams | None, ...] = ()
    out: DType | None = None
    rounding: Rounding = Rounding.TFLM
    constant: tuple[int, ...] = ()

    @property
    def operands(self) -> Operands:
        quants = (*self.quant, *(None,) * (len(self.inputs) + 1 - len(self.quant)))
        types = [TensorType(x.shape, DTYPES[x.dtype], q) for x, q in zip(self.inputs, quants, strict=False)]
        (y,) = self.op.infer(*types)
        y = replace(y, dtype=self.out or y.dtype, quant=quants[len(types)])
        data = [x if i in self.constant else None for i, x in enumerate(self.inputs)]
        sources = tuple(Tensor(f"x{i}", *each) for i, each in enumerate(zip(types, data, strict=True)))
        return Operands(sources, (Tensor("y", y),), self.rounding)

    @property
    def expected(self) -> Array:
        operands = self.operands
        with np.errstate(all="raise", under="ignore"):
            exact = self.op.reference_int(operands, *self.inputs) if operands.quantized else None
        (y,) = exact or self.op.reference(*self.inputs)
        kind = operands.outputs[0].type
        assert (y.shape, y.dtype) == (kind.shape, kind.dtype.numpy), self.op
        return y


def check(
    cases: Sequence[Case], folder: Path, compiler: str = "gcc", body: Body = Body.PORTABLE, *, wide: bool = True
) -> None:
    """Assert that the C of every case equals numpy: integers to the bit, floats within 1e-5 of the output's range."""
    assert len({case.rounding for case in cases}) == 1
    functions, program = _program(cases, body)
    (folder / "program.c").write_text(INCLUDES + functions + program)
    subprocess.run(
        [compiler, *flags(body, wide=wide), "-o", folder / "program", folder / "program.c", "-lm"], check=True
    )
    raw = subprocess.run([folder / "program"], check=True, capture_output=True).stdout
    start = 0
    for case in cases:
        expected = case.expected
        y = np.frombuffer(raw, expected.dtype, expected.size, start).reshape(expected.shape)
        start += expected.nbytes
        _compare(case, y, expected)
    assert start == len(raw)
    assert functions.splitlines() == formatted(functions).splitlines()


def _compare(case: Case, y: Array, expected: Array) -> None:
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(y, expected, err_msg=str(case.op))
        return
    finite = expected[np.isfinite(expected)]
    span = float(np.ptp(finite)) if finite.size > 1 else float(np.abs(finite).max(initial=1.0))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * max(span, 1e-3), err_msg=str(case.op))


def _program(cases: Sequence[Case], body: Body) -> tuple[str, str]:
    kernels: dict[str, Kernel] = {}
    lines, steps = [], []
    for number, case in enumerate(cases):
        operands = case.operands
        lines += [_array(f"x{number}_{i}", x) for i, x in enumerate(case.inputs) if i not in case.constant]
        y = operands.outputs[0].type
        lines.append(f"static {y.dtype.c} y{number}[{y.elements}];")
        (call,) = case.op.lower(operands)
        assert kernels.setdefault(call.kernel.symbol, call.kernel) == call.kernel
        fields = ", ".join(_field(f"c{number}_{k}", k, v, lines) for k, v in fields_of(call, body).items())
        lines.append(f"static const struct {call.kernel.symbol} layer{number} = {{{fields}}};")
        reads = "".join(f", x{number}_{i}" for i in call.reads)
        scratch = "" if call.scratch is None else f", scratch{number}" if call.scratch else ", NULL"
        if call.scratch:
            lines.append(f"static uint32_t scratch{number}[{-(-call.scratch // 4)}];")
        steps.append(f"    {call.kernel.symbol}(&layer{number}{reads}, y{number}{scratch});")
        steps.append(f"    fwrite(y{number}, 1, sizeof y{number}, stdout);")
    main = "int main(void)\n{\n" + "\n".join(steps) + "\n    return 0;\n}\n"
    return _functions(kernels, cases[0].rounding, body), "\n".join(lines) + "\n" + main


def _functions(kernels: dict[str, Kernel], rounding: Rounding, body: Body) -> str:
    wanted = {name for kernel in kernels.values() for name in kernel.helpers_of(body)}
    assert not wanted & set(kernels)
    parts = list(helper_functions(wanted, rounding).values())
    for kernel in kernels.values():
        module = environment().get_template(f"ops/{kernel.family}.c.j2").module
        parts.append(tidy(str(getattr(module, kernel.macro)(kernel.symbol, dict(kernel.variant)))))
    return "\n\n".join(parts) + "\n"


def _array(name: str, x: Array) -> str:
    values = ", ".join("NAN" if np.isnan(v) else c_value(v) for v in x.ravel().tolist())
    return f"static const {c_type(x)} {name}[{x.size}] = {{{values}}};"


def _field(constant: str, name: str, value: Field, lines: list[str]) -> str:
    if isinstance(value, Constant):
        array = constant.replace(".", "_")
        lines.append(_array(array, value.data))
        return f".{name} = {array}"
    return f".{name} = {c_value(value)}"

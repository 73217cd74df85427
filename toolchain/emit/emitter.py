"""Rendering of a planned program: the four C files."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from jinja2 import nodes

from toolchain.config import Rounding
from toolchain.emit import bodies, layout
from toolchain.emit.crc import weights_crc
from toolchain.emit.environment import c_type, c_value, environment, table, wrapped
from toolchain.ir.types import Array, DType
from toolchain.lower.names import comment
from toolchain.lower.program import PortSpec, Program, StateSpec, Step, Value
from toolchain.ops.base import Body

TOLERANCE = 1e-4
"""Of the output's range: what a float output may be off in the self-test (reductions reorder sums)."""
HELPERS = ("rounding", "dsp", "pairs", "octets", "products", "rows", "functions", "mve", "depthwise", "taps")
"""The files of small static functions, templates/helpers/*.c.j2: each macro is emitted at most once, in this order."""
LIBM = "math"
"""The helper name that asks for <math.h>; a call of one of its functions asks as well."""
_LIBM_CALL = re.compile(
    r"\b(?:(?:exp|exp2|expm1|log|log2|log10|log1p|sqrt|cbrt|rsqrt|pow|hypot|fabs|floor|ceil|trunc|round|rint|nearbyint|"
    r"lrint|lround|fmod|remainder|fmin|fmax|fma|copysign|sin|cos|tan|asin|acos|atan|atan2|sinh|cosh|tanh|asinh|acosh|"
    r"atanh|erf|erfc|ldexp|frexp|scalbn)f\(|(?:isnan|isinf|isfinite|signbit)\(|INFINITY\b|NAN\b)"
)


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embedded self-test samples: per port an array (vectors, *shape) in the C's layout and type."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]

    def __len__(self) -> int:
        return len(self.inputs[0])

    def finite(self) -> Vectors:
        """Only the samples whose every number is finite: the others have no literal in C."""
        keep = np.ones(len(self), bool)
        for array in (*self.inputs, *self.outputs):
            keep &= np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        return Vectors(tuple(a[keep] for a in self.inputs), tuple(a[keep] for a in self.outputs))


def emit(program: Program, vectors: Vectors | None = None, *, trace: bool = False, source: str = "") -> dict[str, str]:
    """Return {file name: text} of NAME.h, NAME.c, NAME_weights.h and NAME_vectors.h.

    `trace` adds a call of `inlay_trace(step, data, bytes)` after every step, for the test harness. `source` is
    what the model was read from, for the comments.
    """
    samples = vectors.finite() if vectors is not None and len(vectors) else None
    facts = _facts(program, samples, trace=trace, source=source)
    name = program.name
    templates = {f"{name}.h": "model.h.j2", f"{name}.c": "model.c.j2"}
    templates |= {f"{name}_weights.h": "weights.h.j2", f"{name}_vectors.h": "vectors.h.j2"}
    return {path: environment().get_template(template).render(facts) for path, template in templates.items()}


def _facts(program: Program, vectors: Vectors | None, *, trace: bool, source: str) -> dict[str, Any]:
    """Everything the four templates look up."""
    count = len(vectors) if vectors is not None else 0
    inputs = [_port(program, port, "input") for port in program.inputs]
    outputs = [_port(program, port, "output") for port in program.outputs]
    helpers = _helpers(program)
    kernels = [_kernel(kernel.family, kernel.macro, kernel.symbol, kernel.variant) for kernel in program.kernels]
    records = [_record(step) for step in program.steps if step.record]
    constants = _constants(program)
    conditional = [*helpers, *kernels, *(line for each in records for line in each["lines"]), *constants["conditions"]]
    return {
        "name": program.name,
        "prefix": program.prefix,
        "source": comment(source),
        "rounding": program.rounding.value,
        "preserve_input": program.preserve_input,
        "arena_bytes": program.arena_bytes,
        "weight_bytes": program.weight_bytes,
        "memory_map": layout.memory_map(program),
        "states": [_state(program, state) for state in program.states],
        "inputs": inputs,
        "outputs": outputs,
        "quantized_inputs": [port for port in inputs if port["scale"] is not None],
        "quantized_outputs": [port for port in outputs if port["scale"] is not None],
        "integers": any(buffer.dtype in {DType.INT8, DType.INT16} for buffer in program.buffers.values()),
        "uses_libm": _uses_libm(program, [*helpers, *kernels]),
        "helpers": helpers,
        "kernels": kernels,
        "bodies": {macro for macro in bodies.MACROS if any(macro in text for text in conditional)},
        "wide": any("KERNEL_WIDE" in text for text in [*helpers, *kernels]),
        "records": records,
        "pointers": layout.arena_pointers(program),
        "network": layout.network(program),
        "traces": [_traces(program, step) for step in program.steps] if trace else [],
        **constants,
        "vectors": count,
        "samples": _samples(program, vectors) if vectors is not None and count else [],
        "tolerances": _tolerances(program, vectors if count else None),
    }


def _port(program: Program, port: PortSpec, direction: str) -> dict[str, Any]:
    dtype, quant = port.type.dtype, port.type.quant
    offset = program.plan[port.buffer] // dtype.bytes
    return {
        "id": f"{direction}{port.index}",
        "macro": f"{direction.upper()}{port.index}",
        "framework": comment(port.name),
        "type": dtype.c,
        "elements": port.type.elements,
        "bytes": port.type.bytes,
        "rank": len(port.type.shape),
        "dims": ", ".join(map(str, port.type.shape)) or "1",
        "layout": _layout(port),
        "offset": offset,
        "scale": None if quant is None else c_value(float(quant.scale[0])),
        "zero_point": None if quant is None else quant.zero_point,
        "limits": None if dtype.numpy.kind not in "iu" else dtype.limits,
        "float": dtype.numpy.kind == "f",
    }


def _state(program: Program, state: StateSpec) -> dict[str, Any]:
    buffer = program.buffers[state.buffer]
    facts = {"offset": program.plan[state.buffer], "bytes": buffer.bytes, "fill": state.fill}
    return {**facts, "constant": state.constant or ""}


def _layout(port: PortSpec) -> str:
    """How the C's axes follow from the framework's, or nothing when they are the same."""
    permutation = port.permutation
    if permutation is None or permutation == tuple(range(len(permutation))):
        return ""
    return f"the framework's axes in the order {', '.join(map(str, permutation))}"


def _uses_libm(program: Program, functions: Iterable[str]) -> bool:
    asked = any(LIBM in kernel.helpers for kernel in program.kernels)
    return asked or any(_LIBM_CALL.search(text) for text in functions)


def _helpers(program: Program) -> list[str]:
    """The helpers' C, each with the condition under which a body calls it."""
    callers = {
        name: {body for body in Body if any(name in kernel.helpers_of(body) for kernel in program.kernels)}
        for kernel in program.kernels
        for body in Body
        for name in kernel.helpers_of(body)
        if name != LIBM
    }
    if both := sorted(callers.keys() & {kernel.symbol for kernel in program.kernels}):
        raise ValueError(f"templates/helpers: {', '.join(both)} is the name of a kernel as well")
    codes = helper_functions(callers, program.rounding)
    runs = groupby(codes, lambda name: bodies.condition(callers[name]))
    return [text for condition, run in runs for text in _conditional(condition, [codes[name] for name in run])]


def helper_functions(wanted: Collection[str], rounding: Rounding) -> dict[str, str]:
    """Return {name: C} of the helpers asked for, in the order of templates/helpers; ValueError for unknown ones."""
    known = {name: file for file in HELPERS for name in _macros(f"helpers/{file}.c.j2")}
    if missing := sorted(set(wanted) - known.keys()):
        raise ValueError(f"templates/helpers: no macro {', '.join(missing)}")
    policy = Rounding.SINGLE if rounding is Rounding.SINGLE else Rounding.TFLM
    return {name: _helper(file, name, policy) for name, file in known.items() if name in wanted}


def _helper(file: str, name: str, rounding: Rounding) -> str:
    return tidy(str(getattr(environment().get_template(f"helpers/{file}.c.j2").module, name)(rounding.value)))


def _conditional(condition: str, codes: list[str]) -> list[str]:
    """The functions under one #if, or as they are."""
    return [f"#if {condition}\n" + "\n\n".join(codes) + "\n#endif"] if condition else codes


@functools.cache
def _macros(template: str) -> tuple[str, ...]:
    """The template's macros in the order of the file."""
    env = environment()
    source, _, _ = env.loader.get_source(env, template)  # type: ignore[union-attr]
    return tuple(macro.name for macro in env.parse(source).find_all(nodes.Macro))


def _kernel(family: str, macro: str, symbol: str, variant: Iterable[tuple[str, Any]]) -> str:
    module = environment().get_template(f"ops/{family}.c.j2").module
    return tidy(str(getattr(module, macro)(symbol, dict(variant))))


def tidy(code: str) -> str:
    """Return C with single blank lines, none before a closing brace, and signatures broken at 100 columns."""
    code = re.sub(r"\n{3,}", "\n\n", code.strip("\n"))
    code = re.sub(r"\n\n(?= *\})", "\n", code)
    return "\n".join(wrapped(line) if line.startswith("static ") else line for line in code.split("\n"))


def _record(step: Step) -> dict[str, Any]:
    return {
        "type": step.kernel.symbol,
        "name": step.record_name,
        "origin": comment(step.origin),
        "lines": bodies.merged(_field(step, name) for name in step.record),
    }


def _field(step: Step, name: str) -> dict[Body, list[str]]:
    found = {body: step.fields(body) for body in Body}
    return {body: _field_lines(name, fields[name]) for body, fields in found.items() if name in fields}


def _field_lines(name: str, value: Value) -> list[str]:
    head, text = f"    .{name} = ", c_value(value)
    if not text.startswith("{") or len(head) + len(text) < layout.WIDTH:
        return [f"{head}{text},"]
    return layout.wrap(head + "{", text[1:-1].split(", "), "},")


def _traces(program: Program, step: Step) -> list[tuple[str, int]]:
    return [(layout.pointer(program, ref), program.buffers[ref].bytes) for ref in step.writes]


def _constants(program: Program) -> dict[str, Any]:
    """The arrays, each with the condition under which it is there, and the checksum of what is there."""
    arrays = [_constant(program, name, array) for name, array in program.constants.items()]
    used = {body: program.constants_of(body) for body in Body}
    crcs = {body: weights_crc(program.constants[name] for name in names) for body, names in used.items()}
    define = "#define {}_WEIGHTS_CRC32 0x{:08x}u"
    call = "    crc = crc32_elements(crc, {name}, {elements}, {width});"
    return {
        "conditions": [array["condition"] for array in arrays],
        "constants": [
            {"condition": condition, "arrays": list(group)}
            for condition, group in groupby(arrays, lambda array: str(array["condition"]))
        ],
        "crc": bodies.chain({body: [define.format(program.prefix, crc)] for body, crc in crcs.items()}),
        "crc_calls": bodies.merged(
            {body: [wrapped(call.format(**array))] for body in Body if array["name"] in used[body]} for array in arrays
        ),
    }


def _constant(program: Program, name: str, array: Array) -> dict[str, Any]:
    readers = [(body, step.origin) for body in Body for step in program.steps if _reads(step, body, name)]
    if any(state.constant == name for state in program.states):
        readers += [(body, "what a state begins with") for body in Body]
    _, origin = readers[0]
    return {
        "condition": bodies.condition({body for body, _ in readers}),
        "name": name,
        "type": c_type(array),
        "elements": array.size,
        "width": array.dtype.itemsize,
        "shape": " x ".join(map(str, array.shape)) or "scalar",
        "origin": comment(origin),
        "table": table(array),
    }


def _reads(step: Step, body: Body, name: str) -> bool:
    return name in step.reads or name in step.fields(body).values()


def _samples(program: Program, vectors: Vectors) -> list[dict[str, Any]]:
    ports = [(f"input{p.index}", p) for p in program.inputs] + [(f"output{p.index}", p) for p in program.outputs]
    arrays = (*vectors.inputs, *vectors.outputs)
    return [
        {
            "id": name,
            "macro": name.upper(),
            "rows": [table(row.astype(port.type.dtype.numpy, copy=False), 8) for row in array],
        }
        for (name, port), array in zip(ports, arrays, strict=True)
    ]


def _tolerances(program: Program, vectors: Vectors | None) -> Mapping[str, str]:
    """Per float output the largest difference the self-test lets pass."""
    if vectors is None:
        return {}
    return {
        f"output{port.index}": c_value(float(max(np.ptp(array), np.abs(array).max(), 1e-30) * TOLERANCE))
        for port, array in zip(program.outputs, vectors.outputs, strict=True)
        if port.type.dtype.numpy.kind == "f"
    }

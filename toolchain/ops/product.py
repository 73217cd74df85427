"""Products of two int8 tensors, with bodies for DSP instructions and MVE: both tensors of one size, or one a row."""

from __future__ import annotations

from dataclasses import replace

from toolchain.ops.base import Bodies, Body, Call, fields_of_bodies

LAYOUTS = {"same": ("elements",), "row": ("rows", "columns")}
"""How the operands meet, and the fields that say how many there are."""
SHIFTS = (1, 22)
"""Shifts to the right by which half of what is lost and the zero point leave room for products in 32 bits."""
FIELDS = {"a_offset": "a_offset", "b_offset": "b_offset", "multiplier": "y_multiplier", "shift": "y_shift"} | {
    name: name for name in ("y_offset", "low", "high")
}
"""Fields of these bodies, and those of plain C with the same value."""
DSP_HELPERS = ("clamp_s8", "four_bytes", "larger_bytes", "int16_pairs", "scaled_sum", "multiply_s8")
MVE_HELPERS = ("multiply_mve",)


def with_bodies(call: Call) -> Call:
    """Return the call of a kernel that has these bodies besides plain C, where they take its layout and scale."""
    layout = dict(call.kernel.variant)["layout"]
    if layout not in LAYOUTS:
        return call
    plain = {name: value for name, value in call.record.items() if not isinstance(value, Bodies)}
    if not SHIFTS[0] <= -int(str(plain["y_shift"])) <= SHIFTS[1]:
        symbol = call.kernel.symbol.replace("mul", "mul_stepwise")
        return replace(call, kernel=replace(call.kernel, symbol=symbol))
    own = {name: plain[name] for name in LAYOUTS[layout]}
    own |= {f"by.{name}": plain[source] for name, source in FIELDS.items()}
    kernel = replace(
        call.kernel,
        variant=(*call.kernel.variant, ("product", True)),
        helpers=(),
        portable_helpers=call.kernel.helpers_of(Body.PORTABLE),
        dsp_helpers=DSP_HELPERS,
        mve_helpers=MVE_HELPERS,
    )
    return replace(call, kernel=kernel, record=fields_of_bodies(plain, own, own))

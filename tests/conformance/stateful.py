"""Models that keep state from run to run: the samples of a case are the steps of one sequence."""

from __future__ import annotations

import numpy as np

from tests.conformance.family import Draw
from tests.conformance.flat import Flat, Quant
from tests.conformance.int16 import family

RELU = 1


@family(8)
def svdf(draw: Draw) -> bytes:
    """On int8 with an int16 state."""
    model, x_quant, batch = Flat(), draw.quant(), draw.pick(1, 1, 2)
    inputs, units, rank, memory = (draw.integer(1, n) for n in (12, 6, 3, 7))
    filters = units * rank
    feature, time = Quant(draw.scale(-3, -1)), Quant(draw.scale(-6, -5))
    state = Quant(float(np.float32(x_quant.scales[0] * feature.scales[0] * 74 * 74 * inputs**0.5 * 3 / 32768)))
    spread = state.scales[0] * time.scales[0] * 10000 * 3000 * (memory * rank) ** 0.5
    x = model.input((batch, inputs), x_quant)
    w = model.constant(draw.int8(filters, inputs, low=-127), feature)
    t = model.constant(draw.rng.integers(-3000, 3001, (filters, memory)).astype(np.int16), time)
    bias_scale = Quant(float(np.float32(state.scales[0] * time.scales[0])))
    b = model.constant(draw.rng.integers(-(1 << 20), 1 << 20, units).astype(np.int32), bias_scale)
    kept = model.tensor((batch, filters * memory), state, "INT16", variable=True)
    y = model.tensor([batch, units], Quant(float(np.float32(spread / 64)), draw.zero()))
    model.operator("SVDF", [x, w, t, b, kept], [y], "SVDFOptions", rank=rank, fusedActivationFunction=RELU)
    return model.content(y)

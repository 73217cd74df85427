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


def lstm_model(draw: Draw, weight_scale: tuple[float, float]) -> bytes:
    """All of an LSTM's 24 inputs, the optional ones omitted."""
    model, x_quant, h_quant = Flat(), draw.quant(-2.0, -1.0), Quant(1 / 128, draw.integer(-20, 20))
    inputs, cells, steps, batch = draw.integer(1, 9), draw.integer(1, 8), draw.integer(1, 4), draw.pick(1, 1, 2)
    time_major = bool(draw.integer(0, 1))
    lead = (steps, batch) if time_major else (batch, steps)
    x = model.input((*lead, inputs), x_quant)
    given = [Quant(draw.scale(*weight_scale)) for _ in range(4)]
    weights = [model.constant(draw.int8(cells, inputs, low=-127), quant) for quant in given]
    back = [model.constant(draw.int8(cells, cells, low=-127), Quant(draw.scale(*weight_scale))) for _ in range(4)]
    biases = [
        model.constant(
            draw.rng.integers(-3000, 3000, cells).astype(np.int32),
            Quant(float(np.float32(quant.scales[0] * x_quant.scales[0]))),
        )
        for quant in given
    ]
    hidden = model.tensor((batch, cells), h_quant, variable=True)
    cell = model.tensor((batch, cells), Quant(2.0 ** -draw.integer(9, 14)), "INT16", variable=True)
    y = model.tensor([], h_quant)
    none = [-1] * 3
    model.operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", [x, *weights, *back, *none, *biases, -1, -1, hidden, cell], [y],
        "UnidirectionalSequenceLSTMOptions", fusedActivationFunction=4, timeMajor=time_major,
        cellClip=draw.pick(0.0, 0.0, 1.5),
    )  # fmt: skip
    inner = [model.tensor([], Quant(2.0**-12), "INT16") for _ in range(4)]
    model.graph.operators[-1].intermediates = [*inner, model.tensor([], h_quant)]
    return model.content(y)


@family(8)
def lstm(draw: Draw) -> bytes:
    """On int8 with an int16 cell."""
    return lstm_model(draw, (-2.5, -1.5))


@family(4)
def lstm_saturated(draw: Draw) -> bytes:
    """Gates at their ends."""
    return lstm_model(draw, (-1.0, 0.5))

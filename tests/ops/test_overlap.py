"""How far outputs may lie over inputs: the closed functions against simulation, the statements against the real C."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cases import CASES, Row
from tests.ops.probe import probes, program_of, survivors
from toolchain.ir.types import DType, TensorType
from toolchain.ops import conv, overlap, pool
from toolchain.ops.overlap import FAR, Overlap

MASKING = {"copy_block", "copy_rows", "copy_indexed", "concat", "matmul_f32", "matmul_int", "concat_mapped", "maxpool"}
"""Kernels that may get away with less: by memcpy, by a statement simpler than their order, by ignoring small values."""


def vectors(step):
    """Whether this machine's vector unit takes several channels at a time that other cores take one by one."""
    return step.kernel.macro == "depthwise" and step.record["channels"] >= 8


def least_by_simulation(events):
    """The least distance from which on no byte of x is written before it is read.

    `events` are ("r", address in x) and ("w", address in y), byte by byte in order.
    """
    read_last = {address: when for when, (kind, address) in enumerate(events) if kind == "r"}
    written_first = {}
    for when, (kind, address) in enumerate(events):
        if kind == "w":
            written_first.setdefault(address, when)
    # y + w lies over x + r where w - r is the distance.
    clashes = [w - r for r, last in read_last.items() for w, first in written_first.items() if first < last]
    return max(clashes, default=-FAR) + 1 if clashes else -FAR


@st.composite
def windows(draw):
    """(inputs, outputs, kernel, stride, dilation, pad) of one axis."""
    inputs, kernel, stride = draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dilation, pad, end = draw(st.integers(1, 2)), draw(st.integers(-1, 3)), draw(st.integers(-1, 3))
    outputs = (inputs + pad + end - dilation * (kernel - 1) - 1) // stride + 1
    return (inputs, outputs, kernel, stride, dilation, pad) if outputs > 0 else draw(windows())


@st.composite
def pictures(draw):
    """Axes y and x, batch, channels in and out, element type."""
    dtype = draw(st.sampled_from([DType.INT8, DType.FLOAT32]))
    return (
        draw(windows()),
        draw(windows()),
        draw(st.integers(1, 2)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 5)),
        dtype,
    )


def taps(axes, batch):
    """For each output pixel in order, the input pixels under its window."""
    (in_y, out_y, kernel_y, stride_y, dilation_y, pad_y), (in_x, out_x, kernel_x, stride_x, dilation_x, pad_x) = axes
    for n, row, column in product(range(batch), range(out_y), range(out_x)):
        places = []
        for ky, kx in product(range(kernel_y), range(kernel_x)):
            y, x = row * stride_y - pad_y + ky * dilation_y, column * stride_x - pad_x + kx * dilation_x
            if 0 <= y < in_y and 0 <= x < in_x:
                places.append((n * in_y + y) * in_x + x)
        yield places


def touch(kind, first, count, size):
    return [(kind, address) for address in range(first * size, (first + count) * size)]


def types(axes, batch, channels, outputs, dtype):
    (in_y, out_y, *_), (in_x, out_x, *_) = axes
    x, y = TensorType((batch, in_y, in_x, channels), dtype), TensorType((batch, out_y, out_x, outputs), dtype)
    pixels = overlap.first_pixels([overlap.first_inputs(*axis) for axis in axes], (in_y, in_x), batch)
    return x, y, pixels


def exactly(found, events, x, y):
    """Both agree on every distance at which x and y meet."""
    least = least_by_simulation(events)
    reach = range(-x.bytes, y.bytes + 1)
    assert [d for d in reach if found.allows(d)] == [d for d in reach if d >= least]


@given(pictures())
@settings(max_examples=60, deadline=None)
def test_a_channel_after_the_other(picture):
    *axes, batch, channels, outputs, dtype = picture
    x, y, pixels = types(axes, batch, channels, outputs, dtype)
    events = []
    for number, places in enumerate(taps(axes, batch)):
        for channel in range(outputs):
            for place in places:
                events += touch("r", place * channels, channels, dtype.bytes)
            events += touch("w", number * outputs + channel, 1, dtype.bytes)
    exactly(overlap.by_channel(pixels, x, y), events, x, y)


@given(pictures(), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_groups_of_channels(picture, groups):
    *axes, batch, depth, each, dtype = picture
    channels, outputs = depth * groups, each * groups
    x, y, pixels = types(axes, batch, channels, outputs, dtype)
    events = []
    for number, places in enumerate(taps(axes, batch)):
        for channel in range(outputs):
            for place in places:
                events += touch("r", place * channels + channel // each * depth, depth, dtype.bytes)
            events += touch("w", number * outputs + channel, 1, dtype.bytes)
    exactly(overlap.by_channel(pixels, x, y, groups), events, x, y)


@given(pictures(), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_some_channels_at_a_time(picture, lanes):
    *axes, batch, channels, _, dtype = picture
    x, y, pixels = types(axes, batch, channels, channels, dtype)
    events = []
    for number, places in enumerate(taps(axes, batch)):
        for first in range(0, channels, lanes):
            count = min(lanes, channels - first)
            for place in places:
                events += touch("r", place * channels + first, count, dtype.bytes)
            events += touch("w", number * channels + first, count, dtype.bytes)
    exactly(overlap.by_lanes(pixels, x, lanes), events, x, y)


@given(pictures(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_pixel_at_a_time(picture, writes_first):
    *axes, batch, channels, outputs, dtype = picture
    x, y, pixels = types(axes, batch, channels, outputs, dtype)
    events = []
    for number, places in enumerate(taps(axes, batch)):
        writes = touch("w", number * outputs, outputs, dtype.bytes)
        reads = [event for place in places for event in touch("r", place * channels, channels, dtype.bytes)]
        events += [*writes, *reads] if writes_first else [*reads, *writes]
    exactly(overlap.by_pixel(pixels, x, y, writes_first=writes_first), events, x, y)


@given(pictures())
@settings(max_examples=40, deadline=None)
def test_rows_copied_aside(picture):
    rows, columns, batch, channels, outputs, dtype = picture
    (in_y, out_y, kernel, stride, dilation, pad), (in_x, out_x, *_) = rows, columns
    x, y, _ = types((rows, columns), batch, channels, outputs, dtype)
    events = []
    for n in range(batch):
        copied = 0
        for row in range(out_y):
            while copied < min(in_y, row * stride - pad + (kernel - 1) * dilation + 1):
                events += touch("r", (n * in_y + copied) * in_x * channels, in_x * channels, dtype.bytes)
                copied += 1
            events += touch("w", (n * out_y + row) * out_x * outputs, out_x * outputs, dtype.bytes)
    exactly(overlap.by_row(x, y, *rows), events, x, y)


@pytest.mark.parametrize("elements", [1, 2, 7])
@pytest.mark.parametrize(("x", "y"), [(DType.INT8, DType.FLOAT32), (DType.FLOAT32, DType.INT8), (DType.INT16,) * 2])
def test_elementwise(x, y, elements):
    events = []
    for i in range(elements):
        events += [*touch("r", i, 1, x.bytes), *touch("w", i, 1, y.bytes)]
    exactly(overlap.elementwise(x, y, elements), events, TensorType((elements,), x), TensorType((elements,), y))


def test_types_that_c_keeps_apart_do_not_overlap():
    assert overlap.elementwise(DType.INT32, DType.FLOAT32, 4) is None
    assert overlap.elementwise(DType.BOOL, DType.FLOAT32, 4) == Overlap(9)


def awkward(rng):
    """Windows with strides, dilations and paddings that no network has."""
    rows = []
    while len(rows) < 24:
        rank = int(rng.integers(1, 3))
        spatial, kernel = rng.integers(1, 11, rank).tolist(), rng.integers(1, 5, rank).tolist()
        stride, dilation = rng.integers(1, 4, rank).tolist(), rng.integers(1, 3, rank).tolist()
        padding = tuple((int(a), int(b)) for a, b in rng.integers(0, 4, (rank, 2)))
        axes = list(zip(spatial, kernel, dilation, padding, strict=True))
        if any(n + b + e < d * (k - 1) + 1 for n, k, d, (b, e) in axes):
            continue
        groups = int(rng.choice([1, 1, 3, 20]))
        inputs = groups * int(rng.integers(1, 4)) if groups < 20 else 20
        outputs = groups * int(rng.integers(1, 4)) if groups < 20 else 20
        shape = (int(rng.integers(1, 3)), *spatial, inputs)
        op = conv.Conv(tuple(stride), tuple(dilation), padding, groups)
        rows.append(Row(op, (shape, (outputs, *kernel, inputs // groups), (outputs,)), (1, 2)))
        largest = pool.MaxPool(tuple(kernel), tuple(stride), padding, tuple(dilation))
        if np.isfinite(largest.reference(np.zeros(shape, np.float32))[0]).all():
            rows.append(Row(largest, (shape,)))
        if all(b < k and e < k for _, k, _, (b, e) in axes) and set(dilation) == {1}:
            rows.append(Row(pool.AvgPool(tuple(kernel), tuple(stride), padding), (shape,)))
    return rows


def every_row(rng):
    return [*(row for rows in CASES.values() for row in rows), *awkward(rng)]


@pytest.fixture(scope="module", params=[False, True], ids=["float", "int8"])
def program(request):
    rng = np.random.default_rng(5)
    return program_of(every_row(rng), rng, integers=request.param)


def test_the_real_c_computes_the_same_at_every_allowed_distance(program, tmp_path, rng):
    todo = probes(program, allowed=True)
    assert len({step.kernel.macro for step, _, _ in todo}) > 20
    for (step, _, allowed), found in zip(todo, survivors(program, tmp_path, rng, allowed=True), strict=True):
        assert found == allowed, step


def several_bodies(kernel):
    """Whether other bodies than the one that runs here may tolerate less."""
    return bool(kernel.dsp_helpers or kernel.mve_helpers)


def test_the_real_c_fails_at_the_next_shorter_distance(program, tmp_path, rng):
    """Statements are not only safe but exact, and a distance that is too short does harm that is seen.

    A kernel with several bodies states what all of them tolerate; the one that runs here may tolerate more.
    """
    harmed, spared = set(), []
    for (step, position, _), found in zip(probes(program), survivors(program, tmp_path, rng), strict=True):
        x, y = program.buffers[step.reads[position]], program.buffers[step.writes[0]]
        shorter = step.overlaps[position].least - 1
        shorter -= shorter % x.dtype.bytes
        if shorter <= -x.bytes:
            continue
        if shorter not in found:
            harmed.add(step.kernel.macro)
        elif (
            x.dtype is y.dtype
            and step.kernel.macro not in MASKING
            and not (several_bodies(step.kernel) or vectors(step))
        ):
            spared.append((step.kernel.symbol, step.overlaps[position].least, step.record))
    assert not spared
    assert harmed & {"conv_grouped", "conv_groups"}
    assert harmed >= {
        "conv",
        "depthwise",
        "conv_transpose",
        "dense",
        "maxpool",
        "reduce",
        "copy_strided",
    }

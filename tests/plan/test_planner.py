from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lower import graphs
from toolchain.ir.types import DType, TensorType
from toolchain.lower import Buffer, PortSpec, Program, Step, lower
from toolchain.ops.base import Kernel
from toolchain.plan import check, plan
from toolchain.plan.placement import Block, extent, fit, live_bytes, place

KERNEL = Kernel("shape", "any", "any_s8")

spans = st.tuples(st.integers(0, 12), st.integers(0, 6)).map(lambda pair: (pair[0], sum(pair)))
sizes = st.integers(1, 300)


@st.composite
def blocks(draw):
    drawn = draw(st.lists(st.tuples(sizes, spans), min_size=1, max_size=14))
    return [Block(f"b{i}", size, first, last) for i, (size, (first, last)) in enumerate(drawn)]


@given(blocks())
@settings(max_examples=60, deadline=None)
def test_live_blocks_never_overlap(drawn):
    offsets = place(drawn)
    for i, one in enumerate(drawn):
        assert offsets[one.name] % 4 == 0
        for other in drawn[:i]:
            first, second = offsets[one.name], offsets[other.name]
            assert not one.meets(other) or first + one.size <= second or second + other.size <= first


@given(blocks())
@settings(max_examples=60, deadline=None)
def test_arena_is_at_least_what_is_alive_and_no_worse_than_greedy(drawn):
    offsets = place(drawn)
    greedy = sorted(drawn, key=lambda b: (-b.size, b.first))
    assert live_bytes(drawn) <= extent(drawn, offsets) <= extent(drawn, fit(greedy))
    assert offsets == place(drawn)


@st.composite
def programs(draw):
    """A random network: every step reads up to three earlier tensors."""
    names = ["input0"]
    steps = []
    shapes = {"input0": draw(st.integers(1, 64))}
    for index in range(draw(st.integers(1, 10))):
        reads = tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)))
        target = f"step{index}"
        shapes[target] = draw(st.sampled_from([shapes[reads[0]], draw(st.integers(1, 64))]))
        scratch = f"{target}_scratch" if draw(st.booleans()) else None
        if scratch:
            shapes[scratch] = draw(st.integers(1, 64))
        steps.append(Step(KERNEL, target, {}, reads, (target,), scratch, draw(st.integers(0, len(reads)))))
        names.append(target)
    dtypes = {name: draw(st.sampled_from([DType.INT8, DType.FLOAT32, DType.INT64])) for name in shapes}
    return Program(
        name="net",
        kernels=(KERNEL,),
        steps=tuple(steps),
        constants={},
        buffers={name: Buffer(name, dtypes[name], elements) for name, elements in shapes.items()},
        inputs=(port("input0", dtypes, shapes),),
        outputs=(port(names[-1], dtypes, shapes),),
        preserve_input=draw(st.booleans()),
    )


def port(name, dtypes, shapes):
    return PortSpec(0, name, name, TensorType((shapes[name],), dtypes[name]))


def run(program, offsets):
    """Run a network in which every kernel folds its reads into its output; the bytes of the output.

    Memory is a list of who wrote each byte last, so a read of bytes that somebody else has overwritten shows.
    """
    memory = {}
    marks = {"input0": ("input0",)}

    def touch(name, mark):
        for byte in range(offsets[name], offsets[name] + program.buffers[name].bytes):
            memory[byte] = mark

    touch("input0", marks["input0"])
    for step in program.steps:
        for name in step.reads:
            for byte in range(offsets[name], offsets[name] + program.buffers[name].bytes):
                assert memory[byte] == marks[name]
        if step.scratch:
            touch(step.scratch, "scratch")
            for name in step.reads:
                assert memory[offsets[name]] == marks[name]
        marks[step.writes[0]] = (step.record_name,)
        touch(step.writes[0], marks[step.writes[0]])
    kept = [port.buffer for port in (*program.outputs, *(program.inputs if program.preserve_input else ()))]
    for name in kept:
        for byte in range(offsets[name], offsets[name] + program.buffers[name].bytes):
            assert memory[byte] == marks[name]


@given(programs())
@settings(max_examples=80, deadline=None)
def test_random_networks_read_what_was_written(program):
    planned = plan(program)
    run(planned, planned.plan)
    assert planned.memory.lower_bound <= planned.arena_bytes


def test_output_is_written_over_an_input_of_its_size():
    buffers = {name: Buffer(name, DType.INT8, 64) for name in ("input0", "relu0")}
    step = Step(KERNEL, "relu0", {}, ("input0",), ("relu0",), in_place=1)
    shapes, dtypes = dict.fromkeys(buffers, 64), dict.fromkeys(buffers, DType.INT8)
    program = Program(
        "net", (KERNEL,), (step,), {}, buffers, (port("input0", dtypes, shapes),), (port("relu0", dtypes, shapes),)
    )
    assert plan(program).arena_bytes == 64
    assert plan(program).memory.shared == {"relu0": "input0"}
    assert plan(replace(program, preserve_input=True)).arena_bytes == 128


def test_checker_sees_an_overlap():
    planned = plan(lower(graphs.chain(), graphs.OPTIONS))
    broken = replace(planned.memory, offsets=dict.fromkeys(planned.plan, 0))
    with pytest.raises(ValueError, match="overlap"):
        check(planned, broken)


def test_checker_sees_a_buffer_outside():
    planned = plan(lower(graphs.chain(), graphs.OPTIONS))
    with pytest.raises(ValueError, match="arena of"):
        check(planned, replace(planned.memory, arena_bytes=16))

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lower import graphs
from toolchain.ir.types import DType, TensorType
from toolchain.lower import Buffer, PortSpec, Program, Step, lower
from toolchain.lower.program import NULL
from toolchain.ops.base import Kernel
from toolchain.ops.overlap import FAR, Overlap
from toolchain.plan import check, plan
from toolchain.plan.bound import shared_bytes
from toolchain.plan.lifetimes import lifetimes, overlaps
from toolchain.plan.placement import Block, extent, forbidden, place

KERNEL = Kernel("shape", "any", "any_s8")

spans = st.tuples(st.integers(0, 12), st.integers(0, 6)).map(lambda pair: (pair[0], sum(pair)))
sizes = st.integers(1, 300)
leasts = st.one_of(st.integers(-80, 80), st.sampled_from([0, -FAR]))


@st.composite
def stated(draw):
    least = draw(leasts)
    return Overlap(least, draw(st.sampled_from([FAR, max(least, 0), max(least, 40)])))


@st.composite
def packings(draw, largest=14):
    """Blocks, and how some that begin where another ends may lie over it."""
    drawn = draw(st.lists(st.tuples(sizes, spans), min_size=1, max_size=largest))
    blocks = [Block(f"b{i}", size, first, last) for i, (size, (first, last)) in enumerate(drawn)]
    pairs = [(y.name, x.name) for y in blocks for x in blocks if x is not y and y.first == x.last > x.first]
    return blocks, {pair: draw(stated()) for pair in pairs if draw(st.booleans())}


def apart(one, other, offsets, pairs):
    """Whether two blocks may lie where they do."""
    first, second = offsets[one.name], offsets[other.name]
    if not one.meets(other) or first + one.size <= second or second + other.size <= first:
        return True
    return any(
        pair in pairs and pairs[pair].allows(offsets[pair[1]] - offsets[pair[0]])
        for pair in ((one.name, other.name), (other.name, one.name))
    )


@given(packings())
@settings(max_examples=80, deadline=None)
def test_live_blocks_keep_their_distance(packing):
    blocks, pairs = packing
    offsets = place(blocks, pairs)
    assert offsets == place(blocks, pairs)
    for i, one in enumerate(blocks):
        assert offsets[one.name] % 4 == 0
        assert all(apart(one, other, offsets, pairs) for other in blocks[:i])


def live_bytes(blocks):
    return max(sum(b.size for b in blocks if b.first <= t <= b.last) for t in range(20))


@given(packings())
@settings(max_examples=60, deadline=None)
def test_overlaps_never_cost_bytes(packing):
    blocks, pairs = packing
    plain = extent(blocks, place(blocks))
    assert live_bytes(blocks) <= plain
    assert extent(blocks, place(blocks, pairs)) <= plain


def lowest(block, blocks, offsets, pairs):
    """The lowest offset a block can have beside those placed, by trying all."""
    placed = [other for other in blocks if other.name in offsets]
    return next(
        at for at in range(0, 9999, 4) if all(apart(block, o, offsets | {block.name: at}, pairs) for o in placed)
    )


@given(packings(largest=5))
@settings(max_examples=40, deadline=None)
def test_few_blocks_are_placed_as_well_as_by_any_order(packing):
    blocks, pairs = packing
    best = 10**9
    for order in permutations(blocks):
        offsets = {}
        for block in order:
            offsets[block.name] = lowest(block, blocks, offsets, pairs)
        best = min(best, extent(blocks, offsets))
    assert extent(blocks, place(blocks, pairs)) <= best


@given(sizes, sizes, stated())
def test_forbidden_distances_are_those_that_are_not_allowed(size, other, overlap):
    x, y = Block("x", size, 0, 1), Block("y", other, 1, 2)
    intervals = forbidden(x, y, overlap)
    for distance in range(-size - 2, other + 3):
        forbids = any(start < distance < stop for start, stop in intervals)
        assert forbids == (-size < distance < other and not overlap.allows(distance))


@given(sizes, sizes, stated())
def test_shared_bytes_are_the_most_at_any_allowed_distance(written, read, overlap):
    found = [
        min(distance + read, written) - max(distance, 0)
        for distance in range(-read, written + 1)
        if overlap.allows(distance)
    ]
    assert shared_bytes(written, read, overlap) == max([0, *found])


@st.composite
def programs(draw):
    """A random network: every step reads up to three earlier tensors; some write the output of the step before on."""
    names = ["input0"]
    steps = []
    shapes = {"input0": draw(st.integers(1, 64))}
    for index in range(draw(st.integers(1, 10))):
        reads = tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)))
        target = f"step{index}"
        if steps and draw(st.booleans()) and names[-1] not in reads and draw(st.booleans()):
            target = names[-1]
        shapes.setdefault(target, draw(st.sampled_from([shapes[reads[0]], draw(st.integers(1, 64))])))
        scratch = draw(st.sampled_from([None, NULL, f"step{index}_scratch"]))
        if scratch not in (None, NULL):
            shapes[scratch] = draw(st.integers(1, 64))
        tolerated = draw(st.lists(st.one_of(st.none(), stated()), max_size=len(reads)))
        steps.append(Step(KERNEL, f"step{index}", {}, reads, (target,), scratch, tuple(tolerated)))
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


class Machine:
    """Runs a network on numbered bytes. A kernel writes byte after byte of its output, upwards.

    It tells an input byte it still needs from one that it has read by its own overlap: byte i of an input is read for
    the last time just before the first byte of the output that would lie over it at the least allowed distance, and at
    the most allowed one not after it.
    """

    def __init__(self, program):
        self.program = program
        self.memory = {}
        self.values = {}
        for each in program.inputs:
            self.write(each.buffer, (each.buffer,))

    def place(self, name):
        return self.program.plan[name]

    def size(self, name):
        return self.program.buffers[name].bytes

    def write(self, name, value):
        self.values[name] = value
        for byte in range(self.size(name)):
            self.memory[self.place(name) + byte] = (value, byte)

    def expect(self, name, first=0):
        for byte in range(first, self.size(name)):
            assert self.memory.get(self.place(name) + byte) == (self.values[name], byte), name

    def run(self):
        for step in self.program.steps:
            self.step(step)
        ports = (*self.program.outputs, *(self.program.inputs if self.program.preserve_input else ()))
        for each in ports:
            self.expect(each.buffer)

    def step(self, step):
        (target,) = step.writes
        if step.scratch in self.program.buffers:
            self.write(step.scratch, ("scratch", step.record_name))
        if target in self.values:
            self.expect(target)
        overlaps = (*step.overlaps, *(None,) * len(step.reads))
        for name, overlap in zip(step.reads, overlaps, strict=False):
            self.expect(name)
            self.survives(name, target, overlap)
        self.write(target, (step.record_name, target))
        if step.scratch in self.program.buffers:
            self.expect(step.scratch)

    def survives(self, name, target, overlap):
        """Whether no byte of an input is written while the kernel still needs it."""
        distance = self.place(name) - self.place(target)
        for byte in range(self.size(target)):
            under = byte - distance
            if not 0 <= under < self.size(name):
                continue
            assert overlap is not None
            assert under + overlap.least <= byte <= under + overlap.most


@given(programs())
@settings(max_examples=150, deadline=None)
def test_random_networks_read_what_was_written(program):
    planned = plan(program)
    Machine(planned).run()
    assert planned.memory.lower_bound <= planned.arena_bytes


@given(programs(), st.data())
@settings(max_examples=60, deadline=None)
def test_the_proof_fails_where_the_machine_does(program, data):
    """A plan with one buffer moved is refused exactly when it computes something else."""
    planned = plan(program)
    name = data.draw(st.sampled_from(sorted(planned.plan)))
    moved = dict(planned.plan) | {name: 8 * data.draw(st.integers(0, planned.arena_bytes // 8))}
    memory = replace(planned.memory, offsets=moved, arena_bytes=planned.arena_bytes + 8 * 64)
    broken = replace(planned, memory=memory)
    try:
        check(broken, memory)
    except ValueError:
        with pytest.raises(AssertionError):
            Machine(broken).run()
    else:
        Machine(broken).run()


def chain(*steps, bytes_of):
    """Steps (name, read, overlap) over one input."""
    buffers = {name: Buffer(name, DType.INT8, size) for name, size in bytes_of.items()}
    dtypes = dict.fromkeys(buffers, DType.INT8)
    made = tuple(Step(KERNEL, name, {}, (read,), (name,), None, (overlap,)) for name, read, overlap in steps)
    ends = (port("input0", dtypes, bytes_of),), (port(steps[-1][0], dtypes, bytes_of),)
    return Program("net", (KERNEL,), made, {}, buffers, *ends)


def test_output_is_written_over_an_input_of_its_size():
    program = chain(("relu0", "input0", Overlap(0)), bytes_of={"input0": 64, "relu0": 64})
    assert plan(program).arena_bytes == plan(program).memory.lower_bound == 64
    assert plan(program).memory.over == {"relu0": ("input0",)}
    assert plan(replace(program, preserve_input=True)).arena_bytes == 128


def test_a_growing_output_ends_where_its_input_ends():
    program = chain(("wide0", "input0", Overlap(96)), bytes_of={"input0": 32, "wide0": 128})
    assert plan(program).plan == {"input0": 96, "wide0": 0}
    assert plan(program).arena_bytes == 128


def test_a_row_of_lagging_layers_needs_the_sum_of_the_lags():
    steps = [(f"conv{i}", f"conv{i - 1}" if i else "input0", Overlap(20)) for i in range(6)]
    program = chain(*steps, bytes_of={"input0": 400, **{name: 400 for name, _, _ in steps}})
    assert plan(program).arena_bytes == 520
    assert plan(program).memory.lower_bound == 420


def test_an_input_that_is_read_again_is_not_written_over():
    program = chain(("a", "input0", Overlap(0)), ("b", "input0", Overlap(0)), bytes_of={"input0": 8, "a": 8, "b": 8})
    alive = lifetimes(program)
    assert set(overlaps(program, alive)) == {("b", "input0")}


def test_both_reads_of_one_buffer_must_tolerate_the_overlap():
    program = chain(("add0", "input0", Overlap(0)), bytes_of={"input0": 8, "add0": 8})
    for second, expected in ((Overlap(4), {("add0", "input0"): Overlap(4)}), (None, {})):
        step = replace(program.steps[0], reads=("input0", "input0"), overlaps=(Overlap(0), second))
        twice = replace(program, steps=(step,))
        assert overlaps(twice, lifetimes(twice)) == expected


def test_checker_sees_an_overlap():
    planned = plan(lower(graphs.chain(), graphs.OPTIONS))
    broken = replace(planned.memory, offsets=dict.fromkeys(planned.plan, 0))
    with pytest.raises(ValueError, match="overlap"):
        check(planned, broken)


def test_checker_sees_a_distance_that_is_too_short():
    program = plan(chain(("conv0", "input0", Overlap(20)), bytes_of={"input0": 400, "conv0": 400}))
    check(program, program.memory)
    with pytest.raises(ValueError, match="overlap"):
        check(replace(program, steps=(replace(program.steps[0], overlaps=(Overlap(24),)),)), program.memory)


def test_checker_sees_a_buffer_outside():
    planned = plan(lower(graphs.chain(), graphs.OPTIONS))
    with pytest.raises(ValueError, match="arena of"):
        check(planned, replace(planned.memory, arena_bytes=16))

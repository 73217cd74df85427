"""The cost model and the readers of what compilers and QEMU write, on small texts."""

import pytest

from toolchain.errors import InputError
from toolchain.targets.cycles import Instruction, base_cycles, estimate, registers
from toolchain.targets.emulator import Counted, read_counts
from toolchain.targets.marks import mark_steps
from toolchain.targets.stack import deepest_stack


@pytest.mark.parametrize(
    ("name", "operands", "cycles"),
    [
        ("adds", "r0, r1, r2", 1),
        ("smlad", "r0, r1, r2, r0", 1),
        ("smull", "r0, r1, r2, r3", 1),
        ("ldr.w", "r0, [r1]", 2),
        ("ldrsb", "r0, [r1], #1", 2),
        ("vldr", "s0, [r1]", 2),
        ("strd", "r0, r1, [r2]", 3),
        ("push", "{r4, r5, lr}", 4),
        ("ldmia.w", "r0!, {r4-r7}", 5),
        ("vpush", "{s16-s19}", 5),
        ("sdiv", "r0, r1, r2", 6),
        ("vdiv.f32", "s0, s1, s2", 14),
        ("vmla.f32", "s0, s1, s2", 3),
        ("vmul.f32", "s0, s1, s2", 1),
        ("bne.n", "10 <f>", 1),
    ],
)
def test_base_cycles(name, operands, cycles):
    assert base_cycles(Instruction(0, name, operands), pipelined=False) == cycles


def test_a_load_behind_a_load_is_pipelined():
    assert base_cycles(Instruction(0, "ldr", "r0, [r1]"), pipelined=True) == 1
    assert base_cycles(Instruction(0, "ldrd", "r0, r1, [r1]"), pipelined=True) == 3


def test_registers():
    assert registers("{r4, r5-r7, pc}") == 5


def test_a_loop():
    listing = (
        Instruction(0, "ldr", "r0, [r2]"),
        Instruction(2, "ldr", "r1, [r3]"),
        Instruction(4, "bne.n", "0"),
        Instruction(6, "bx", "lr"),
    )
    stretch = {0: Counted(10, 0), 2: Counted(10, 0), 4: Counted(10, 9), 6: Counted(1, 1)}
    assert estimate(listing, stretch) == {0: 20, 2: 10, 4: 28, 6: 3}


def test_counts_are_cut_at_the_marks():
    first, second = read_counts("10 3 0\n10 2 1\n#\n20 1 1\n#\n30 7 0\n")
    assert first == {0x10: Counted(5, 1)}
    assert second == {0x20: Counted(1, 1)}


C = """void net_run(void *arena)
{
    int8_t *const a = (int8_t *)arena;

    conv_s8(&conv0, a, a + 8); /* conv; first */
    dense_s8(&dense1,
             a + 8, a);
}
"""


def test_marks_stand_behind_every_call():
    marked = mark_steps(C, "net")
    assert marked.kernels == ("conv_s8", "dense_s8")
    assert "conv_s8(&conv0, a, a + 8); inlay_mark(); /* conv; first */" in marked.text
    assert "a + 8, a); inlay_mark();" in marked.text


def test_no_network():
    with pytest.raises(InputError, match=r"net\.c: found no net_run"):
        mark_steps("int x;", "net")


def test_deepest_stack(tmp_path):
    graph = tmp_path / "model.ci"
    rows = [("run", 8), ("net.c:conv", 100), ("net.c:helper", 16), ("self", 500)]
    edges = [("run", "net.c:conv"), ("net.c:conv", "net.c:helper"), ("run", "net.c:helper"), ("self", "run")]
    lines = [f'node: {{ title: "{name}" label: "{name}\\n{size} bytes (static)" }}' for name, size in rows]
    lines += [f'edge: {{ sourcename: "{a}" targetname: "{b}" label: "x" }}' for a, b in edges]
    graph.write_text("\n".join(lines))
    assert deepest_stack(graph, "run") == 124
    assert deepest_stack(tmp_path / "none.ci", "run") is None

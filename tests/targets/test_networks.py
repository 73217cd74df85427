"""Random int8 networks, outputs lying over inputs, on the cores whose kernels have bodies of their own: every layer."""

from __future__ import annotations

import numpy as np
import pytest

from tests.plan.random_nets import all_equal, random_graph
from toolchain.config import Options
from toolchain.emit import emit
from toolchain.lower import lower
from toolchain.ops.base import Body
from toolchain.plan import plan
from toolchain.targets.cores import TARGETS
from toolchain.targets.emulator import run_image
from toolchain.targets.image import Build, build_image
from toolchain.verify import check
from toolchain.verify.harness import pack, trace_records

SEEDS = range(1, 24, 2)


def wrong_networks(core, seeds, folder):
    """Those seeds whose network writes something else than numpy in one of its layers."""
    rng = np.random.default_rng(2)
    wrong = []
    for seed in seeds:
        graph = random_graph(seed)
        program = plan(lower(graph, Options(name="n")))
        (folder / f"{seed}").mkdir()
        for name, text in emit(program, trace=True).items():
            (folder / f"{seed}" / name).write_text(text)
        ends = check.interface(graph, "n")
        feed = {name: rng.integers(-128, 128, graph.tensors[name].type.shape).astype(np.int8) for name in graph.inputs}
        here = folder / f"{seed}"
        image = build_image(here / "n.c", here, ends, TARGETS[core], here, Build(mode="dump"))
        records = trace_records(run_image(image, pack(ends.inputs, {n: x[None] for n, x in feed.items()})).output)
        if not all_equal(graph, program, feed, [data for _, data in records]):
            wrong.append(seed)
    return wrong


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55"])
def test_every_layer_of_random_networks_is_right(core, needs, tmp_path):
    needs(core)
    assert wrong_networks(core, SEEDS, tmp_path) == []


@pytest.mark.slow
def test_every_layer_of_more_random_networks_is_right(needs, tmp_path):
    needs("cortex-m4")
    assert wrong_networks("cortex-m4", range(25, 125, 2), tmp_path) == []


def test_the_networks_have_such_bodies():
    programs = [lower(random_graph(seed), Options(name="n")) for seed in SEEDS]
    own = [
        step
        for program in programs
        for step in program.steps
        if step.kernel.helpers_of(Body.DSP) != step.kernel.helpers_of(Body.PORTABLE)
    ]
    assert len(own) > len(programs)

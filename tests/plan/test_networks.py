"""Whole networks: with outputs over inputs every layer computes what numpy computes, and a wrong claim is seen."""

import pytest

from tests.plan.random_nets import random_graph, with_shorter_distances, wrong_layers
from toolchain.config import Options
from toolchain.lower import lower
from toolchain.plan import plan


def test_every_layer_of_random_networks_is_right(tmp_path):
    assert wrong_layers([random_graph(seed) for seed in range(16)], tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("first", range(16, 316, 50))
def test_every_layer_of_hundreds_of_random_networks_is_right(first, tmp_path):
    assert wrong_layers([random_graph(seed) for seed in range(first, first + 50)], tmp_path) == []


def test_kernels_that_claim_too_much_are_found_out(tmp_path):
    graphs = [random_graph(seed) for seed in range(16)]
    assert len(wrong_layers(graphs, tmp_path, lambda program: with_shorter_distances(program, 16))) > 8


def test_random_networks_have_layers_over_their_inputs():
    planned = [plan(lower(random_graph(seed), Options(name="net"))) for seed in range(16)]
    assert sum(len(program.memory.over) for program in planned) > 40
    assert all(program.memory.lower_bound <= program.arena_bytes for program in planned)

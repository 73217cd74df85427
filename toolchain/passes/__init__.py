"""Graph -> Graph: canonical form. Each pass keeps the float function; the pipeline runs until none changes anything."""

from __future__ import annotations

from collections.abc import Callable

from toolchain.ir.graph import Graph
from toolchain.passes.activation import fuse_activations
from toolchain.passes.affine import fold_affine
from toolchain.passes.constants import fold_constants
from toolchain.passes.dead import drop_dead_nodes
from toolchain.passes.duplicates import merge_duplicates
from toolchain.passes.identity import remove_identities
from toolchain.passes.layout import assign_layouts
from toolchain.passes.padding import fold_padding
from toolchain.passes.quantized import float_layers, integer_ends, use_integers
from toolchain.passes.ranks import align_ranks
from toolchain.passes.shapes import merge_shape_chains, view_unit_axes

__all__ = ["float_layers", "integer_ends", "optimize"]

Pass = Callable[[Graph, str], Graph]


def _plain(function: Callable[[Graph], Graph]) -> Pass:
    def run(graph: Graph, input_layout: str) -> Graph:
        del input_layout
        return function(graph)

    return run


PIPELINE: tuple[Pass, ...] = (
    *map(_plain, (drop_dead_nodes, fold_constants, remove_identities, merge_shape_chains, merge_duplicates)),
    _plain(align_ranks),
    assign_layouts,
    *map(_plain, (view_unit_axes, merge_shape_chains, remove_identities, fold_padding, fold_affine, fuse_activations)),
)
ROUNDS = 50


def optimize(graph: Graph, input_layout: str = "nhwc") -> Graph:
    """The graph in canonical form: channels-last, constants and batch normalisation folded, activations fused."""
    for _ in range(ROUNDS):
        before = graph
        for step in PIPELINE:
            graph = step(graph, input_layout)
        if graph is before:
            graph = use_integers(graph)
        if graph is before:
            return drop_dead_nodes(graph)
    raise RuntimeError(f"the passes do not come to rest within {ROUNDS} rounds")

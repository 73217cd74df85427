"""Reductions over axes, ArgMax and ArgMin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.importers.layer import normal_axis
from toolchain.importers.onnx.layer import Layer, handles
from toolchain.ir.types import DType
from toolchain.ops.reduce import ArgReduce, Reduce

if TYPE_CHECKING:
    from collections.abc import Callable

SIMPLE = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
}


def axes_of(layer: Layer) -> tuple[int, ...]:
    """The reduced axes, counted from the front; all when none are given."""
    axes = layer.integers(1, "axes")
    if axes:
        return tuple(sorted({normal_axis(axis, layer.rank) for axis in axes}))
    return () if layer.get("noop_with_empty_axes", 0) else tuple(range(layer.rank))


def reduced(layer: Layer, kind: str, x: str, *, keepdims: bool | None = None) -> str:
    """Reduce x over the layer's axes."""
    axes = axes_of(layer)
    keep = bool(layer.get("keepdims", 1)) if keepdims is None else keepdims
    return layer.add(Reduce(kind, axes, keepdims=keep), x) if axes else x


@handles(*SIMPLE)
def simple(layer: Layer) -> str:
    """A reduction the IR has."""
    return reduced(layer, SIMPLE[layer.kind], layer.x)


@handles("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
def composed(layer: Layer) -> str:
    """A sum with functions around it."""
    steps: dict[str, Callable[[], str]] = {
        "ReduceL1": lambda: reduced(layer, "sum", layer.unary("abs", layer.x)),
        "ReduceSumSquare": lambda: reduced(layer, "sum", layer.unary("square", layer.x)),
        "ReduceL2": lambda: layer.unary("sqrt", reduced(layer, "sum", layer.unary("square", layer.x))),
        "ReduceLogSum": lambda: layer.unary("log", reduced(layer, "sum", layer.x)),
        "ReduceLogSumExp": lambda: _log_sum_exp(layer),
    }
    return steps[layer.kind]()


def _log_sum_exp(layer: Layer) -> str:
    """log(sum(exp(x - max))) + max, which does not overflow."""
    top = reduced(layer, "max", layer.x, keepdims=True)
    total = reduced(layer, "sum", layer.unary("exp", layer.binary("sub", layer.x, top)))
    return layer.binary("add", layer.unary("log", total), layer.reshape(top, layer.builder.shape(total)))


@handles("ArgMax", "ArgMin")
def arg_reduce(layer: Layer) -> str:
    """Index of the largest or smallest element."""
    kind = "max" if layer.kind == "ArgMax" else "min"
    keep, last = bool(layer.get("keepdims", 1)), bool(layer.get("select_last_index", 0))
    return layer.add(ArgReduce(kind, layer.axis(0), keepdims=keep, dtype=DType.INT64, last=last), layer.x)

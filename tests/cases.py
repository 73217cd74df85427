"""Operator -> rows. A row is an operator and the shapes it takes; every check of tests/test_cases.py runs on it.

Activations are random; the inputs named by `Op.weight` and `Op.bias`, and those after a `constant`, are constants.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from toolchain.ir.types import DType
from toolchain.ops import (
    binary,
    conv,
    convert,
    dense,
    indexing,
    joining,
    lstm,
    normalize,
    pool,
    recurrent,
    reduce,
    resize,
    select,
    shape,
    softmax,
    unary,
)
from toolchain.ops.base import Op

INF = float("inf")


@dataclass(frozen=True)
class Row:
    """One case. `positive` keeps inputs in [0.2, 3], for functions that are not defined or steep elsewhere."""

    op: Op
    shapes: tuple[tuple[int, ...], ...]
    constants: tuple[int, ...] = ()
    positive: bool = False
    boolean: tuple[int, ...] = ()

    @property
    def jumps(self) -> bool:
        """Whether the function has steps, where the nearest input integer may fall on the other side."""
        return getattr(self.op, "kind", None) in {"round", "floor", "ceil", "sign", "thresholded_relu"}

    @property
    def name(self) -> str:
        fields = [str(v) for v in vars_of(self.op).values()]
        return f"{type(self.op).__name__}({', '.join(fields)}) on {self.shapes}"


def vars_of(op: Op) -> dict[str, object]:
    return {name: getattr(op, name) for name in op.__dataclass_fields__}  # type: ignore[attr-defined]


def convolutions() -> list[Row]:
    rows = []
    grid = [
        # spatial, kernel, stride, dilation, padding, inputs, outputs, groups
        ((5, 5), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 3, 4, 1),
        ((1, 1), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1, 1, 1),
        ((7, 6), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 8, 12, 1),
        ((7, 6), (1, 1), (2, 2), (1, 1), ((0, 0), (0, 0)), 5, 7, 1),
        ((8, 9), (3, 2), (2, 1), (1, 2), ((0, 2), (3, 1)), 6, 4, 2),
        ((2, 2), (3, 3), (1, 1), (1, 1), ((3, 3), (3, 3)), 2, 3, 1),
        ((9, 7), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 8, 8, 8),
        ((9, 7), (3, 3), (2, 2), (1, 1), ((0, 1), (0, 1)), 4, 8, 4),
        ((9, 9), (5, 3), (1, 1), (2, 2), ((4, 4), (2, 2)), 3, 3, 3),
        ((12,), (3,), (1,), (2,), ((4, 0),), 4, 6, 1),
        ((11,), (4,), (3,), (1,), ((1, 2),), 4, 4, 4),
    ]
    for number, (spatial, kernel, stride, dilation, padding, inputs, outputs, groups) in enumerate(grid):
        clamp = (None, (0.0, INF), (0.0, 6.0), (-1.0, 1.0))[number % 4]
        op = conv.Conv(stride, dilation, padding, groups, clamp)
        weight = (outputs, *kernel, inputs // groups)
        rows.append(Row(op, ((1, *spatial, inputs), weight, (outputs,)), (1, 2)))
    return rows


def transposed() -> list[Row]:
    grid = [
        ((4, 5), (2, 2), (2, 2), (1, 1), ((0, 0), (0, 0)), (0, 0), 3, 4, 1),
        ((3, 3), (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), (1, 1), 4, 4, 2),
        ((1, 1), (3, 2), (1, 3), (2, 1), ((0, 1), (0, 0)), (0, 0), 2, 3, 1),
        ((6,), (4,), (2,), (1,), ((1, 1),), (0,), 3, 2, 1),
    ]
    return [
        Row(conv.ConvTranspose(s, d, p, extra, g, None), ((1, *x, i), (o, *k, i // g), (o,)), (1, 2))
        for x, k, s, d, p, extra, i, o, g in grid
    ]


POOLS = [
    ((6, 6), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ((7, 5), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((7, 5), (3, 2), (1, 1), ((0, 1), (1, 0))),
    ((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))),
    ((9,), (3,), (2,), ((1, 1),)),
]
UNARY = {
    "relu": (), "relu6": (), "leaky": (0.1,), "elu": (1.0,), "selu": (1.67326, 1.0507), "celu": (1.5,), "sigmoid": (),
    "tanh": (), "hard_sigmoid": (1 / 6, 0.5), "hard_swish": (), "silu": (), "gelu": (), "gelu_tanh": (), "softplus": (),
    "mish": (), "exp": (), "abs": (), "neg": (), "square": (), "floor": (), "ceil": (), "round": (), "sign": (),
    "sin": (), "cos": (), "atan": (), "asinh": (), "erf": (), "softsign": (), "clip": (-0.5, 0.75),
    "thresholded_relu": (0.4,), "sinh": (), "cosh": (), "log": (), "sqrt": (), "rsqrt": (), "reciprocal": (),
}  # fmt: skip
ONLY_POSITIVE = {"log", "sqrt", "rsqrt", "reciprocal"}
BROADCASTS = [
    ((1, 4, 5, 3), (1, 4, 5, 3)),
    ((1, 4, 5, 3), (3,)),
    ((1, 4, 5, 3), (1, 1, 1, 1)),
    ((1, 4, 1, 3), (1, 1, 5, 3)),
    ((1, 7), (1, 7)),
]
COMPARISONS = ("equal", "less", "greater", "less_equal", "greater_equal", "not_equal")


def elementwise() -> list[Row]:
    rows = [
        Row(unary.Unary(kind, *parameters), (x,), positive=kind in ONLY_POSITIVE)
        for kind, parameters in UNARY.items()
        for x in ((1, 4, 3, 5), (1,))
    ]
    rows += [
        Row(binary.Binary(kind), shapes, positive=kind == "div")
        for kind in ("add", "sub", "mul", "div", "min", "max", "squared_difference")
        for shapes in BROADCASTS
    ]
    rows += [Row(binary.Binary("add", (0.0, INF)), BROADCASTS[0]), Row(binary.Binary("mul", (0.0, 6.0)), BROADCASTS[1])]
    rows += [Row(binary.Binary(kind), BROADCASTS[0], constants=(1,)) for kind in ("add", "mul", "sub")]
    rows += [Row(binary.Binary(kind), shapes) for kind in COMPARISONS for shapes in BROADCASTS[:2]]
    rows += [Row(binary.Binary(kind), ((2, 3), (2, 3)), boolean=(0, 1)) for kind in ("and", "or", "xor")]
    rows += [Row(binary.Binary("pow"), ((1, 5), (1, 5)), positive=True)]
    rows += [Row(binary.PRelu(), ((1, 3, 4, 6), alpha), constants=(1,)) for alpha in ((6,), (1,), (3, 4, 6))]
    rows += [Row(select.Select(), ((1, 4, 3), (1, 4, 3), (1, 4, 3)), boolean=(0,))]
    return rows


def movement() -> list[Row]:
    rows = [
        Row(shape.Reshape((1, 12)), ((1, 3, 4),)),
        Row(shape.Transpose((0, 3, 1, 2)), ((1, 4, 5, 3),)),
        Row(shape.Transpose((0, 2, 1)), ((1, 1, 7),)),
        Row(shape.Transpose((3, 1, 0, 2)), ((2, 3, 4, 5),)),
        Row(joining.Concat(3), ((1, 2, 3, 4), (1, 2, 3, 1), (1, 2, 3, 5))),
        Row(joining.Concat(1), ((1, 2, 3), (1, 1, 3))),
        Row(joining.Split(2, (1, 3, 2)), ((1, 4, 6, 2),)),
        Row(joining.Split(1, (5,)), ((1, 5),)),
        Row(indexing.Slice((0, 1, 4), (1, 7, -1), (1, 2, -2)), ((1, 7, 5),)),
        Row(indexing.Slice((0, 2), (1, 6), (1, 1)), ((1, 9),)),
        Row(indexing.Gather(2, (4, 0, 0, 3), (2, 2)), ((1, 3, 5),)),
        Row(indexing.Gather(1, (2,), ()), ((1, 3, 5),)),
        Row(shape.Tile((1, 2, 3)), ((1, 3, 2),)),
        Row(shape.Expand((1, 4, 3)), ((1, 1, 3),)),
        Row(shape.SpaceToDepth(2), ((1, 4, 6, 3),)),
        Row(shape.DepthToSpace(2, "DCR"), ((1, 2, 3, 8),)),
        Row(shape.DepthToSpace(2, "CRD"), ((1, 2, 3, 8),)),
        Row(shape.Copy(), ((1, 3, 3),)),
    ]
    modes = (("constant", 0.0), ("constant", 0.7), ("reflect", 0.0), ("edge", 0.0), ("symmetric", 0.0))
    rows += [Row(indexing.Pad(((0, 0), (1, 2), (2, 0), (0, 0)), mode, value), ((1, 4, 5, 2),)) for mode, value in modes]
    return rows


def resizes() -> list[Row]:
    rows = []
    for mode, coordinate in itertools.product(("nearest", "linear"), ("half_pixel", "asymmetric", "align_corners")):
        rows += [
            Row(resize.Resize(size, mode, coordinate, "floor", scales), ((1, *old, 3),))
            for old, size, scales in (((3, 4), (6, 8), (2.0, 2.0)), ((5, 5), (3, 7), (0.6, 1.4)), ((4,), (9,), (2.25,)))
        ]
    return rows


def reductions() -> list[Row]:
    rows = [
        Row(reduce.Reduce(kind, axes, keep), ((1, 4, 5, 6),), positive=kind == "prod")
        for kind in ("mean", "sum", "max", "min", "prod")
        for axes, keep in (((1, 2), True), ((3,), False), ((1, 2, 3), False), ((2,), True))
    ]
    rows += [Row(reduce.ArgReduce(kind, axis, keep, DType.INT64), ((1, 4, 5),)) for kind, axis, keep in
             (("max", 2, False), ("min", 1, True))]  # fmt: skip
    return rows


CASES: dict[str, list[Row]] = {}
for _row in [
    *convolutions(),
    *transposed(),
    Row(dense.Dense(), ((1, 7), (5, 7), (5,)), (1, 2)),
    Row(dense.Dense((0.0, INF)), ((1, 64), (12, 64), (12,)), (1, 2)),
    Row(dense.Dense(), ((1, 3, 5), (1, 5), (1,)), (1, 2)),
    Row(dense.MatMul(), ((1, 3, 4), (1, 4, 5))),
    Row(dense.MatMul(), ((1, 2, 1, 6), (1, 2, 6, 3))),
    *(Row(pool.MaxPool(w, s, p, (1,) * len(w)), ((1, *x, 3),)) for x, w, s, p in POOLS),
    *(Row(pool.AvgPool(w, s, p, c), ((1, *x, 3),)) for x, w, s, p in POOLS for c in ((), p)),
    *elementwise(),
    *movement(),
    *resizes(),
    *reductions(),
    *(Row(softmax.Softmax(axis), (x,)) for axis, x in ((1, (1, 10)), (1, (1, 1)), (3, (1, 2, 3, 17)), (1, (1, 5, 4)))),
    *(Row(softmax.LogSoftmax(axis), (x,)) for axis, x in ((1, (1, 10)), (2, (1, 3, 7)))),
    Row(convert.Cast(DType.INT32), ((1, 9),)),
    Row(lstm.Lstm(), ((1, 3, 5), (4, 6, 5), (4, 6, 6), (4, 6), (1, 6), (1, 6)), (1, 2, 3)),
    Row(lstm.Lstm(True, 0.5), ((3, 2, 4), (4, 5, 4), (4, 5, 5), (4, 5), (2, 5), (2, 5)), (1, 2, 3)),
    Row(recurrent.Svdf(2), ((1, 5), (6, 5), (6, 4), (3,), (1, 24)), (1, 2, 3)),
    Row(recurrent.Svdf(1, (0.0, INF)), ((2, 3), (4, 3), (4, 1), (4,), (2, 4)), (1, 2, 3)),
    Row(normalize.LayerNorm(2, 1e-5), ((1, 4, 6), (6,), (6,)), (1, 2)),
    Row(normalize.GroupNorm(2, 1e-5), ((1, 3, 4, 6), (6,), (6,)), (1, 2)),
    Row(normalize.GroupNorm(3, 1e-5), ((1, 5, 3), (3,), (3,)), (1, 2)),
    Row(normalize.LRN(3, 1e-2, 0.75, 1.0), ((1, 3, 2, 5),)),
]:
    CASES.setdefault(type(_row.op).__name__, []).append(_row)
EXERCISED_BY_ALL = {"Quantize", "Dequantize", "Lookup"}
"""Every int8 row enters and leaves through the first two; a table is made of a quantized model's functions, and
runs in the kernel of each Unary."""

"""Small graphs of real operators for the tests of lowering, planning and emission."""

import toolchain.ops  # noqa: F401 - fills OPERATORS
from toolchain.config import Options
from toolchain.ir.graph import Graph, Node, Port, Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.ops.base import OPERATORS

OPTIONS = Options(name="net")


def op(name, *args):
    return OPERATORS[name](*args)


def chain(dtype=DType.FLOAT32, quant=None):
    """x -> MaxPool -> Reshape -> MaxPool-free end; its output is a view of the pool's."""
    image = TensorType((1, 4, 4, 3), dtype, quant)
    pooled = TensorType((1, 2, 2, 3), dtype, quant)
    flat = TensorType((1, 12), dtype, quant)
    return Graph(
        nodes=(
            Node(op("MaxPool", (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), ("x",), ("p",), "net.onnx: pool*/1\n"),
            Node(op("Reshape", (1, 12)), ("p",), ("y",), "flatten"),
        ),
        tensors={"x": Tensor("x", image), "p": Tensor("p", pooled), "y": Tensor("y", flat)},
        inputs=("x",),
        outputs=("y",),
        ports={"x": Port("serving_default:0", (0, 2, 3, 1))},
    )


def int8_chain():
    return chain(DType.INT8, QuantParams((0.05,), -3))


def outputs_that_alias():
    """Output 0 is the input, 1 and 2 the same tensor, 3 a constant."""
    import numpy as np

    flat = TensorType((4,))
    constant = np.arange(4, dtype=np.float32)
    return Graph(
        nodes=(Node(op("Copy"), ("x",), ("y",), "copy"),),
        tensors={"x": Tensor("x", flat), "y": Tensor("y", flat), "c": Tensor("c", flat, constant)},
        inputs=("x",),
        outputs=("x", "y", "y", "c"),
    )

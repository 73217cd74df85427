"""Makes small TensorFlow Lite models and runs them by its reference kernels."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import interpret
from toolchain.samples import to_c, to_framework

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from toolchain.ir.graph import Graph

Function = "Callable[..., Any]"


def converter(function: Function, shapes: Sequence[tuple[int | None, ...]], dtypes: Sequence[Any] = ()) -> Any:
    """A converter of a function of tensors; the first dimension may be None."""
    import tensorflow as tf

    kinds = [*dtypes, *[tf.float32] * (len(shapes) - len(dtypes))]
    specs = [tf.TensorSpec(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)]
    concrete = tf.function(function, input_signature=specs).get_concrete_function()
    made = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    made._experimental_disable_per_channel = False
    return made


def convert(made: Any) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(made.convert())


def float_model(function: Function, shapes: Sequence[tuple[int | None, ...]], dtypes: Sequence[Any] = ()) -> bytes:
    return convert(converter(function, shapes, dtypes))


def int8_model(
    function: Function,
    shapes: Sequence[tuple[int, ...]],
    rng: np.random.Generator,
    *,
    io: str = "int8",
    samples: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> bytes:
    import tensorflow as tf

    draw = samples or (lambda shape: rng.normal(0.3, 2.0, shape))
    made = converter(function, shapes)
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    batches = [[draw(shape).astype(np.float32) for shape in shapes] for _ in range(16)]
    made.representative_dataset = lambda: iter(batches)
    made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    made.inference_input_type = made.inference_output_type = tf.as_dtype(io)
    return convert(made)


def dynamic_range_model(function: Function, shapes: Sequence[tuple[int, ...]]) -> bytes:
    import tensorflow as tf

    made = converter(function, shapes)
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    return convert(made)


class Lite:
    """A model under the reference kernels."""

    def __init__(self, content: bytes) -> None:
        import tensorflow as tf

        resolvers = tf.lite.experimental.OpResolverType
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.interpreter = tf.lite.Interpreter(
                    model_content=content, experimental_op_resolver_type=resolvers.BUILTIN_REF
                )
            except ValueError:  # some operators lack a reference kernel
                self.interpreter = tf.lite.Interpreter(
                    model_content=content, experimental_op_resolver_type=resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                )
        self.interpreter.allocate_tensors()
        self.inputs = self.interpreter.get_input_details()
        self.outputs = self.interpreter.get_output_details()

    def random(self, rng: np.random.Generator) -> list[np.ndarray]:
        return [_noise(rng, detail["shape"], detail["dtype"]) for detail in self.inputs]

    def run(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        for detail, value in zip(self.inputs, values, strict=True):
            self.interpreter.set_tensor(detail["index"], value)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(detail["index"]) for detail in self.outputs]


def _noise(rng: np.random.Generator, shape: Sequence[int], dtype: type) -> np.ndarray:
    if dtype is np.float32:
        return rng.normal(0.3, 2.0, shape).astype(np.float32)
    if dtype is np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    info = np.iinfo(dtype)
    low, high = (info.min, info.max + 1) if info.bits == 8 else (0, 4)
    return rng.integers(low, high, shape).astype(dtype)


def ours(graph: Graph, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs by numpy, values as the framework lays them out."""
    feeds = {name: to_c(graph, name, value[None])[0] for name, value in zip(graph.inputs, values, strict=True)}
    found = interpret.run(graph, feeds)
    return [to_framework(graph, name, found[name][None])[0] for name in graph.outputs]

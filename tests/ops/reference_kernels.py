"""One-operator int8 models, converted and run by TensorFlow Lite's reference kernels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir.types import Array, QuantParams

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Result:
    """What went in and came out; `quant` as `batch.Case` takes it."""

    inputs: tuple[Array, ...]
    output: Array
    quant: tuple[QuantParams, ...]


def _functions():
    import tensorflow as tf

    return {
        "softmax": tf.nn.softmax,
        "log_softmax": tf.nn.log_softmax,
        "mean": lambda x: tf.reduce_mean(x, [1, 2]),
        "mean_inner": lambda x: tf.reduce_mean(x, [3]),
        "add": tf.add,
        "sub": tf.subtract,
        "mul": tf.multiply,
        "max": tf.maximum,
        "min": tf.minimum,
        "squared_difference": tf.math.squared_difference,
        "add_relu": lambda a, b: tf.nn.relu(a + b),
    }


def run(kind: str, shapes: Sequence[tuple[int, ...]], rng: np.random.Generator) -> Result:
    """Random integers through the operator."""
    import tensorflow as tf

    function = tf.function(_functions()[kind], input_signature=[tf.TensorSpec(s, tf.float32) for s in shapes])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    spread = [4.0, 2.5]
    samples = [[rng.normal(0.3, spread[i], s).astype(np.float32) for i, s in enumerate(shapes)] for _ in range(20)]
    converter.representative_dataset = lambda: iter(samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resolver = tf.lite.experimental.OpResolverType.BUILTIN_REF
        interpreter = tf.lite.Interpreter(model_content=converter.convert(), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    inputs = tuple(rng.integers(-128, 128, s).astype(np.int8) for s in shapes)
    details = interpreter.get_input_details()
    order = {tuple(d["shape"]): d for d in details} if len(set(map(tuple, shapes))) == len(shapes) else None
    placed = [order[s] for s in shapes] if order else sorted(details, key=lambda d: d["name"])
    for detail, x in zip(placed, inputs, strict=True):
        interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    (out,) = interpreter.get_output_details()
    quant = tuple(QuantParams((float(d["quantization"][0]),), int(d["quantization"][1])) for d in [*placed, out])
    return Result(inputs, interpreter.get_tensor(out["index"]), quant)

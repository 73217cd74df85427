"""TensorFlow Lite models as graphs: numpy against LiteRT's reference kernels, and files nobody should have to debug."""

from __future__ import annotations

import numpy as np
import pytest

from tests.importers import lite
from toolchain.errors import InputError, UnsupportedError
from toolchain.importers.tflite import load
from toolchain.importers.tflite.layer import HANDLERS
from toolchain.ir.types import DType
from toolchain.ops.conv import Conv
from toolchain.passes import optimize

tf = pytest.importorskip("tensorflow", reason="needs tensorflow")

IMAGE = (1, 8, 6, 4)
WEIGHTS = np.random.default_rng(7)


def weights(*shape: int) -> np.ndarray:
    return WEIGHTS.normal(0, 0.4, shape).astype(np.float32)


KERNEL, DEEP, DENSE, BIAS = weights(3, 3, 4, 5), weights(3, 3, 4, 2), weights(24, 5), weights(5)
UP = weights(3, 3, 5, 4)


def dilated(x):
    return tf.nn.convolution(x, KERNEL, dilations=2, padding="SAME")


def batches(x):
    return tf.batch_to_space(tf.nn.relu(tf.space_to_batch(x, [2, 2], [[1, 1], [0, 2]])), [2, 2], [[0, 1], [1, 0]])


def spread_conv(x):
    spread = tf.space_to_batch(x, [2, 2], [[2, 2], [2, 2]])
    return tf.batch_to_space(tf.nn.conv2d(spread, KERNEL, 1, "VALID") + BIAS, [2, 2], [[0, 0], [0, 0]])


CASES = {
    "conv_same": lambda x: tf.nn.relu(tf.nn.conv2d(x, KERNEL, 2, "SAME") + BIAS),
    "conv_valid": lambda x: tf.nn.relu6(tf.nn.conv2d(x, KERNEL, 1, "VALID")),
    "conv_dilated": dilated,
    "conv_clip": lambda x: tf.clip_by_value(tf.nn.conv2d(x, KERNEL, 1, "SAME"), -1.0, 1.0),
    "conv_tanh": lambda x: tf.nn.tanh(tf.nn.conv2d(x, KERNEL, 1, "SAME")),
    "depthwise": lambda x: tf.nn.depthwise_conv2d(x, DEEP, (1, 1, 1, 1), "SAME"),
    "depthwise_stride": lambda x: tf.nn.relu(tf.nn.depthwise_conv2d(x, DEEP[..., :1], (1, 2, 2, 1), "VALID")),
    "transpose_conv": lambda x: tf.nn.conv2d_transpose(x, UP, (1, 16, 12, 5), 2, "SAME"),
    "transpose_conv_valid": lambda x: tf.nn.conv2d_transpose(x, UP, (1, 17, 13, 5), 2, "VALID"),
    "dense": lambda x: tf.nn.relu(tf.matmul(tf.reshape(x, (8, 24)), DENSE) + BIAS),
    "dense_deep": lambda x: tf.matmul(tf.reshape(x, (1, 4, 2, 24)), DENSE),
    "matmul": lambda x: tf.matmul(x, x, transpose_b=True),
    "max_pool": lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"),
    "avg_pool": lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME"),
    "softmax": tf.nn.softmax,
    "log_softmax": tf.nn.log_softmax,
    "add": lambda x: x + x[:, :1],
    "add_constant": lambda x: x + BIAS[:4],
    "sub": lambda x: tf.nn.relu(x - x[..., :1]),
    "mul": lambda x: x * x[:, :, :1],
    "maximum": lambda x: tf.maximum(x, x[..., :1]),
    "minimum": lambda x: tf.minimum(x, 0.5),
    "squared_difference": lambda x: tf.math.squared_difference(x, x[..., :1]),
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "leaky": lambda x: tf.nn.leaky_relu(x, 0.1),
    "prelu": lambda x: tf.nn.relu(x) - 0.25 * tf.nn.relu(-x),
    "elu": tf.nn.elu,
    "sigmoid": tf.nn.sigmoid,
    "tanh": tf.nn.tanh,
    "hard_swish": lambda x: x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0),
    "gelu": tf.nn.gelu,
    "exp": tf.exp,
    "abs": tf.abs,
    "mean": lambda x: tf.reduce_mean(x, (1, 2)),
    "mean_keep": lambda x: tf.reduce_mean(x, 3, keepdims=True),
    "reduce_max": lambda x: tf.reduce_max(x, (1, 2)),
    "reduce_min": lambda x: tf.reduce_min(x, 3),
    "argmax": lambda x: tf.argmax(x, 3),
    "argmin": lambda x: tf.argmin(x, 1, output_type=tf.int32),
    "squeeze": lambda x: tf.squeeze(x, 0),
    "expand_dims": lambda x: tf.expand_dims(x, 2),
    "concat": lambda x: tf.concat((x, tf.nn.relu(x)), 3),
    "split": lambda x: tuple(tf.split(x, 3, 2)),
    "split_sizes": lambda x: tuple(tf.split(x, (1, 3), 3)),
    "slice": lambda x: tf.slice(x, (0, 2, 1, 0), (1, 3, -1, 2)),
    "strided": lambda x: x[:, ::2, -4:-1, 1],
    "strided_masks": lambda x: x[..., tf.newaxis, 1:3],
    "strided_first": lambda x: x[0, :, tf.newaxis, 5],
    "reverse": lambda x: tf.reverse(x, (1,)),
    "stack": lambda x: tf.stack((x, tf.nn.relu(x)), 2),
    "unstack": lambda x: tuple(tf.unstack(x, axis=3)),
    "pad": lambda x: tf.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))),
    "pad_value": lambda x: tf.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=1.0),
    "mirror_pad": lambda x: tf.pad(x, ((0, 0), (1, 2), (2, 1), (0, 0)), "REFLECT"),
    "symmetric_pad": lambda x: tf.pad(x, ((0, 0), (1, 2), (2, 1), (0, 0)), "SYMMETRIC"),
    "gather": lambda x: tf.gather(x, (3, 0, 0), axis=3),
    "transpose": lambda x: tf.transpose(x, (0, 3, 1, 2)),
    "bilinear": lambda x: tf.image.resize(x, (11, 13)),
    "nearest": lambda x: tf.image.resize(x, (13, 3), "nearest"),
    "bilinear_corners": lambda x: tf.compat.v1.image.resize_bilinear(x, (11, 13), align_corners=True),
    "nearest_old": lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, (16, 9)),
    "space_to_depth": lambda x: tf.nn.space_to_depth(x, 2),
    "depth_to_space": lambda x: tf.nn.depth_to_space(x, 2),
    "batches": batches,
    "spread_conv": spread_conv,
    "tile": lambda x: tf.tile(x, (1, 2, 1, 3)),
    "broadcast_to": lambda x: tf.broadcast_to(x[:, :1], (1, 5, 6, 4)),
    "shape_reshape": lambda x: tf.reshape(x, (tf.shape(x)[0], -1)),
    "output_is_input": lambda x: (x, tf.nn.relu(x)),
}
"""Functions that LiteRT also runs on int8."""
FLOAT_CASES = {
    "div": lambda x: x / (tf.abs(x[..., :1]) + 1.0),
    "pow": lambda x: tf.pow(tf.abs(x), x[..., :1]),
    "floor_div": lambda x: tf.math.floordiv(x, 0.7),
    "floor_mod": lambda x: tf.math.floormod(x, 0.7),
    "log": lambda x: tf.math.log(tf.abs(x) + 0.1),
    "sqrt": lambda x: tf.sqrt(tf.abs(x)),
    "rsqrt": lambda x: tf.math.rsqrt(tf.abs(x) + 0.1),
    "square": tf.square,
    "neg": tf.negative,
    "floor": tf.floor,
    "ceil": tf.math.ceil,
    "round": tf.round,
    "sin": tf.sin,
    "cos": tf.cos,
    "sign": tf.sign,
    "gelu_tanh": lambda x: tf.nn.gelu(x, approximate=True),
    "l2_normalize": lambda x: tf.nn.l2_normalize(x, 3),
    "sum": lambda x: tf.reduce_sum(x, 2),
    "reduce_prod": lambda x: tf.reduce_prod(x, 3),
    "add_n": lambda x: tf.add_n((x, x, x)),
    "compare": lambda x: tf.cast(tf.logical_and(x > 0.2, tf.logical_not(x[..., :1] >= 1.0)), tf.float32),
    "equal": lambda x: tf.cast(tf.logical_or(x <= 0.2, tf.equal(x, x[..., :1])), tf.int32),
    "where": lambda x: tf.where(x < 0.0, x[..., :1], x),
    "not_equal": lambda x: tf.not_equal(tf.floor(x), 1.0),
    "cast": lambda x: tf.cast(tf.cast(x, tf.int32), tf.float32),
    "zeros_like": lambda x: tf.maximum(tf.zeros_like(x), x),
    "rank_range": lambda x: x + tf.cast(tf.range(tf.shape(x)[3]), tf.float32),
    "fill": lambda x: x * tf.fill((tf.shape(x)[2], 1), 2.0),
}


def compared(content: bytes, rng: np.random.Generator, tolerance: float) -> None:
    reference = lite.Lite(content)
    graph = load(content)
    again = optimize(graph)
    for _ in range(3):
        values = reference.random(rng)
        expected = reference.run(values)
        for each in (graph, again):
            for found, want in zip(lite.ours(each, values), expected, strict=True):
                assert found.dtype == want.dtype
                assert found.shape == want.shape
                difference = np.abs(found.astype(np.float64) - want.astype(np.float64)).max(initial=0)
                assert difference <= tolerance * max(1.0, np.ptp(want.astype(np.float64)))


@pytest.mark.parametrize("name", [*CASES, *FLOAT_CASES])
def test_float(name: str, rng: np.random.Generator) -> None:
    compared(lite.float_model({**CASES, **FLOAT_CASES}[name], [IMAGE]), rng, 1e-5)


QUICK = ("add", "avg_pool", "batches", "concat", "conv_same", "dense", "depthwise", "mean", "softmax", "strided")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_int8_to_the_bit(name: str, rng: np.random.Generator) -> None:
    compared(lite.int8_model(CASES[name], [IMAGE], rng), rng, 0.0)


def test_float_local_response_is_tensorflows(rng: np.random.Generator) -> None:
    """LiteRT's reference kernel leaves out the last channel of the window."""

    def function(x):
        return tf.nn.local_response_normalization(x, 1, 0.7, 0.3, 0.6)

    x = rng.normal(size=IMAGE).astype(np.float32)
    (found,) = lite.ours(load(lite.float_model(function, [IMAGE])), [x])
    assert np.abs(found - function(x).numpy()).max() <= 1e-6


def test_int8_sum_is_the_sum(rng: np.random.Generator) -> None:
    """LiteRT's reference kernel does not give it."""
    graph = load(lite.int8_model(lambda x: tf.reduce_sum(x, 2), [IMAGE], rng))
    x = rng.integers(-128, 128, IMAGE).astype(np.int8)
    source, target = (graph.tensors[name].type.quant for name in (graph.inputs[0], graph.outputs[0]))
    real = source.scale[0] * (x.astype(np.int64) - source.zero_point).sum(axis=2)
    expected = np.clip(np.round(real / target.scale[0]) + target.zero_point, -128, 127)
    assert np.abs(lite.ours(graph, [x])[0] - expected).max() <= 1


def network(x):
    x = tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, "SAME") + BIAS)
    x = x + tf.nn.relu6(tf.nn.conv2d(x, weights_of(), 1, "SAME"))
    return tf.nn.softmax(tf.matmul(tf.reduce_mean(x, (1, 2)), DENSE[:5]))


def weights_of() -> np.ndarray:
    return np.resize(KERNEL, (3, 3, 5, 5))


def test_uint8_outside_is_int8_inside(rng: np.random.Generator) -> None:
    content = lite.int8_model(network, [IMAGE], rng, io="uint8")
    graph = load(content)
    assert [graph.tensors[name].type.dtype for name in (*graph.inputs, *graph.outputs)] == [DType.UINT8] * 2
    compared(content, rng, 0.0)


def test_float_outside_of_int8(rng: np.random.Generator) -> None:
    content = lite.int8_model(network, [IMAGE], rng, io="float32")
    graph = load(content)
    assert graph.tensors[graph.inputs[0]].type.dtype is DType.FLOAT32
    compared(content, rng, 1e-6)


def test_dynamic_range_weights_are_reals(rng: np.random.Generator) -> None:
    big = rng.normal(0, 0.1, (192, 64)).astype(np.float32)

    def function(x):
        return tf.matmul(tf.reshape(x, (1, 192)), big)

    graph = load(lite.dynamic_range_model(function, [IMAGE]))
    assert all(tensor.type.quant is None for tensor in graph.tensors.values())
    x = rng.normal(size=IMAGE).astype(np.float32)
    expected = function(x).numpy()
    assert np.abs(lite.ours(graph, [x])[0] - expected).max() <= 0.02 * np.ptp(expected)


def test_dilation_becomes_one_convolution(rng: np.random.Generator) -> None:
    content = lite.int8_model(spread_conv, [IMAGE], rng)
    graph = load(content)
    (op,) = [node.op for node in graph.nodes]
    assert isinstance(op, Conv)
    assert (op.dilation, op.padding) == ((2, 2), ((2, 2), (2, 2)))


def test_open_batch_and_chosen_batch(rng: np.random.Generator) -> None:
    content = lite.float_model(lambda x: tf.reshape(x, (-1, 24)) @ DENSE, [(None, 8, 6, 4)])
    assert load(content).tensors[load(content).inputs[0]].type.shape == IMAGE
    graph = load(content, input_shape=(("", (3, 8, 6, 4)),))
    x = rng.normal(size=(3, 8, 6, 4)).astype(np.float32)
    (found,) = lite.ours(graph, [x])
    assert np.abs(found - x.reshape(-1, 24) @ DENSE).max() <= 1e-5
    with pytest.raises(InputError, match="expected a shape like"):
        load(content, input_shape=(("", (1, 8, 6, 5)),))
    with pytest.raises(InputError, match="expected one of x"):
        load(content, input_shape=(("z", IMAGE),))


def test_open_extents_are_asked_for() -> None:
    content = lite.float_model(lambda x: tf.nn.relu(x) + 1.0, [(None, None, 4)])
    with pytest.raises(InputError, match=r"--input-shape x=1,\?,4"):
        load(content)
    assert load(content, input_shape=(("x", (1, 9, 4)),)).nodes


def test_ports_have_the_names_of_the_signature(rng: np.random.Generator) -> None:
    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 4), name="left"), tf.TensorSpec((1, 4), name="right")])
        def serve(self, left, right):
            return {"sum": left + right, "difference": left - right}

    module = Two()
    content = tf.lite.TFLiteConverter.from_concrete_functions([module.serve.get_concrete_function()], module).convert()
    graph = load(content)
    assert {graph.port(name).name for name in graph.inputs} == {"left", "right"}
    assert {graph.port(name).name for name in graph.outputs} == {"sum", "difference"}
    compared(content, rng, 0.0)


def test_conditions_choose(rng: np.random.Generator) -> None:
    content = lite.float_model(lambda c, x: tf.where(c, x, -x), [(1, 8, 6, 1), IMAGE], [tf.bool])
    compared(content, rng, 0.0)


def test_every_layer_without_a_c_form_is_named() -> None:
    made = lite.converter(lambda x: (tf.math.cumsum(x, 1), tf.math.top_k(x, 2)[0], tf.nn.relu(x)), [IMAGE])
    content = lite.convert(made)
    with pytest.raises(UnsupportedError) as caught:
        load(content)
    assert "CUMSUM" in str(caught.value)
    assert "TOPK_V2" in str(caught.value)


def small(rng: np.random.Generator) -> bytes:
    return lite.int8_model(network, [IMAGE], rng)


def test_damaged_files_are_said_in_one_line(rng: np.random.Generator) -> None:
    content = small(rng)
    damaged = [b"", b"TFL3", bytes(8), b"\0\0\0\0TFL3", rng.bytes(400), b"\xff" * 4 + b"TFL3" + rng.bytes(400)]
    damaged += [content[:length] for length in range(8, len(content), len(content) // 60)]
    for data in damaged:
        with pytest.raises(InputError) as caught:
            load(data)
        assert "\n" not in str(caught.value)


def test_flipped_bytes_never_crash(rng: np.random.Generator) -> None:
    content = small(rng)
    for _ in range(300):
        data = bytearray(content)
        for at in rng.integers(8, len(data), 3):
            data[at] = rng.integers(0, 256)
        message = refusal(bytes(data))
        assert "\n" not in message or "unsupported" in message


def refusal(content: bytes) -> str:
    try:
        load(content)
    except (InputError, UnsupportedError) as error:
        return str(error)
    return ""


def test_weights_of_nan_are_refused() -> None:
    content = bytearray(lite.float_model(lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME"), [IMAGE]))
    raw = np.moveaxis(KERNEL, 3, 0)[0, 0, 0, :2].tobytes()
    at = bytes(content).find(raw)
    assert at > 0
    content[at : at + 4] = np.float32(np.nan).tobytes()
    with pytest.raises(InputError, match="NaN"):
        load(bytes(content))


def test_handlers_are_builtins() -> None:
    import tflite

    assert not set(HANDLERS) - set(vars(tflite.BuiltinOperator))

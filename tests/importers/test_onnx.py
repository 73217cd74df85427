"""ONNX layers against onnxruntime, and models that are broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.importers.running import feeds_for, model_of, onnx_outputs, outputs
from toolchain.errors import InputError, UnsupportedError
from toolchain.importers import load
from toolchain.importers.onnx.layer import HANDLERS


@dataclass(frozen=True)
class Drawn:
    """A weight whose numbers a test draws with its own generator."""

    shape: tuple[int, ...]
    positive: bool = False

    def draw(self, rng):
        numbers = rng.normal(size=self.shape).astype(np.float32)
        return np.abs(numbers) + np.float32(0.1) if self.positive else numbers


def array(*shape, positive=False):
    return Drawn(shape, positive)


def layers(nodes, inputs, weights=None, opset=17):
    """Builds a model from the generator of a test."""

    def build(rng):
        drawn = {name: each.draw(rng) if isinstance(each, Drawn) else each for name, each in (weights or {}).items()}
        return model_of(nodes, inputs, drawn, opset=opset)

    return build


def ints(*values):
    return np.asarray(values, np.int64)


def node(kind, inputs="x", outputs="y", **attributes):
    return helper.make_node(kind, inputs.split(","), outputs.split(","), name=f"the_{kind}", **attributes)


IMAGE = {"x": (1, 4, 9, 7)}
SIGNAL = {"x": (1, 4, 11)}
ROWS = {"x": (3, 6)}
W33 = {"w": array(6, 4, 3, 3), "b": array(6)}

CASES = {
    "conv": layers([node("Conv", "x,w,b", pads=[1, 0, 2, 1], strides=[2, 1])], IMAGE, W33),
    "conv_same_upper": layers([node("Conv", "x,w", auto_pad="SAME_UPPER", strides=[2, 2])], IMAGE, W33),
    "conv_same_lower": layers([node("Conv", "x,w", auto_pad="SAME_LOWER", strides=[2, 2])], IMAGE, W33),
    "conv_depthwise": layers([node("Conv", "x,w", group=4, dilations=[2, 2])], IMAGE, {"w": array(4, 1, 3, 3)}),
    "conv_grouped": layers([node("Conv", "x,w", group=2)], IMAGE, {"w": array(6, 2, 3, 1)}),
    "conv_1d": layers([node("Conv", "x,w", pads=[2, 0], dilations=[2])], SIGNAL, {"w": array(5, 4, 3)}),
    "transposed": layers(
        [node("ConvTranspose", "x,w,b", strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0])],
        IMAGE,
        {"w": array(4, 5, 3, 3), "b": array(5)},
    ),
    "transposed_shape": layers(
        [node("ConvTranspose", "x,w", strides=[2, 2], output_shape=[18, 14])], IMAGE, {"w": array(4, 5, 3, 3)}
    ),
    "transposed_same": layers(
        [node("ConvTranspose", "x,w", strides=[2, 2], auto_pad="SAME_UPPER")], IMAGE, {"w": array(4, 5, 3, 3)}
    ),
    "gemm": layers([node("Gemm", "x,w,b", alpha=0.5, beta=2.0, transB=1)], ROWS, {"w": array(5, 6), "b": array(5)}),
    "gemm_transposed": layers([node("Gemm", "x,w", transA=1)], ROWS, {"w": array(3, 5)}),
    "gemm_matrix_c": layers([node("Gemm", "x,w,b", beta=3.0)], ROWS, {"w": array(6, 5), "b": array(3, 5)}),
    "gemm_activations": layers([node("Gemm", "x,z", alpha=2.0, transB=1)], {"x": (3, 6), "z": (4, 6)}),
    "matmul": layers([node("MatMul", "x,w")], {"x": (2, 3, 6)}, {"w": array(6, 5)}),
    "matmul_left": layers([node("MatMul", "w,x")], {"x": (2, 3, 6)}, {"w": array(5, 3)}),
    "matmul_vector": layers([node("MatMul", "x,w")], ROWS, {"w": array(6)}),
    "matmul_activations": layers([node("MatMul", "x,z")], {"x": (2, 3, 6), "z": (6, 4)}),
    "batch_norm": layers(
        [node("BatchNormalization", "x,s,b,m,v", epsilon=1e-3)],
        IMAGE,
        {"s": array(4), "b": array(4), "m": array(4), "v": array(4, positive=True)},
    ),
    "max_pool": layers([node("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], ceil_mode=1)], IMAGE),
    "max_pool_dilated": layers([node("MaxPool", kernel_shape=[2, 2], dilations=[2, 3])], IMAGE),
    "average_pool": layers([node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])], IMAGE),
    "average_pool_counted": layers(
        [node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], count_include_pad=1)], IMAGE
    ),
    "average_pool_ceil": layers(
        [node("AveragePool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], {"x": (1, 4, 9, 8)}, opset=19
    ),
    "average_pool_1d": layers([node("AveragePool", kernel_shape=[3], auto_pad="SAME_UPPER")], SIGNAL),
    "global_average": layers([node("GlobalAveragePool")], IMAGE),
    "global_max": layers([node("GlobalMaxPool")], IMAGE),
    "softmax": layers([node("Softmax", axis=1)], IMAGE),
    "softmax_old": layers([node("Softmax", axis=1)], IMAGE, opset=11),
    "log_softmax": layers([node("LogSoftmax")], ROWS),
    "prelu": layers([node("PRelu", "x,s")], IMAGE, {"s": array(4, 1, 1)}),
    "clip_inputs": layers([node("Clip", "x,lo,hi")], ROWS, {"lo": np.float32(-0.3), "hi": np.float32(0.5)}),
    "clip_relu6": layers([node("Clip", "x", min=0.0, max=6.0)], ROWS, opset=7),
    "gelu": layers([node("Gelu")], ROWS, opset=20),
    "gelu_tanh": layers([node("Gelu", approximate="tanh")], ROWS, opset=20),
    "square": layers([node("Pow", "x,two")], ROWS, {"two": np.float32(2)}),
    "sum": layers([node("Sum", "x,w,x")], ROWS, {"w": array(6)}),
    "mean": layers([node("Mean", "x,w")], ROWS, {"w": array(6)}),
    "where": layers(
        [node("Greater", "x,t", "c"), node("Where", "c,x,w")], ROWS, {"t": np.float32(0), "w": array(3, 1)}
    ),
    "concat": layers([node("Sigmoid", "x", "s"), node("Concat", "x,s,w", axis=1)], ROWS, {"w": array(3, 2)}),
    "slice": layers(
        [node("Slice", "x,s,e,a,t")], IMAGE, {"s": ints(-1, 1), "e": ints(-99, 100), "a": ints(2, 3), "t": ints(-2, 2)}
    ),
    "slice_old": layers([node("Slice", starts=[1], ends=[-1], axes=[2])], IMAGE, opset=9),
    "pad": layers([node("Pad", "x,p,v")], ROWS, {"p": ints(1, 0, 0, 2), "v": np.float32(0.5)}),
    "pad_reflect_crop": layers([node("Pad", "x,p", mode="reflect")], ROWS, {"p": ints(0, 2, -1, 1)}),
    "reshape": layers([node("Reshape", "x,s")], IMAGE, {"s": ints(0, -1, 7)}),
    "flatten": layers([node("Flatten", axis=2)], IMAGE),
    "squeeze": layers([node("Unsqueeze", "x,a", "u"), node("Squeeze", "u,a")], ROWS, {"a": ints(0, -1)}),
    "transpose": layers([node("Transpose", perm=[0, 2, 3, 1])], IMAGE),
    "gather": layers([node("Gather", "x,i", axis=1)], IMAGE, {"i": ints(3, 0, -2)}),
    "gather_scalar": layers([node("Gather", "x,i", axis=1)], IMAGE, {"i": np.asarray(-1)}),
    "reduce_mean": layers([node("ReduceMean", axes=[2, 3], keepdims=0)], IMAGE),
    "reduce_sum": layers([node("ReduceSum", "x,a")], IMAGE, {"a": ints(-1)}),
    "reduce_l2": layers([node("ReduceL2", "x,a", keepdims=0)], ROWS, {"a": ints(1)}, opset=18),
    "reduce_log_sum_exp": layers([node("ReduceLogSumExp", keepdims=0)], ROWS),
    "resize_nearest": layers(
        [node("Resize", "x,,s", coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
        IMAGE,
        {"s": np.asarray([1, 1, 2, 3], np.float32)},
    ),
    "resize_linear": layers(
        [node("Resize", "x,,,n", mode="linear", coordinate_transformation_mode="align_corners")],
        IMAGE,
        {"n": ints(1, 4, 5, 14)},
    ),
    "upsample": layers([node("Upsample", "x,s")], IMAGE, {"s": np.asarray([1, 1, 2, 2], np.float32)}, opset=9),
    "expand": layers([node("Expand", "x,s")], {"x": (3, 1)}, {"s": ints(2, 1, 4)}),
    "tile": layers([node("Tile", "x,r")], ROWS, {"r": ints(1, 2)}),
    "space_to_depth": layers([node("SpaceToDepth", blocksize=2)], {"x": (1, 3, 4, 6)}),
    "depth_to_space": layers([node("DepthToSpace", blocksize=2, mode="CRD")], {"x": (1, 8, 3, 2)}),
    "layer_norm": layers(
        [node("LayerNormalization", "x,s,b")], {"x": (2, 3, 6)}, {"s": array(6), "b": array(6)}, opset=17
    ),
    "instance_norm": layers([node("InstanceNormalization", "x,s,b")], IMAGE, {"s": array(4), "b": array(4)}),
    "group_norm": layers(
        [node("GroupNormalization", "x,s,b", num_groups=2)], IMAGE, {"s": array(4), "b": array(4)}, opset=21
    ),
    "shape_arithmetic": layers(
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape,zero", "batch"),
            node("Unsqueeze", "batch,axis", "first"),
            node("Concat", "first,rest", "target", axis=0),
            node("Reshape", "x,target"),
        ],
        IMAGE,
        {"zero": np.asarray(0), "axis": ints(0), "rest": ints(-1)},
    ),
} | {
    f"unary_{kind}": layers([node(kind)], ROWS, opset=18)
    for kind in [
        "Relu",
        "Sigmoid",
        "Tanh",
        "Elu",
        "Selu",
        "Celu",
        "LeakyRelu",
        "HardSigmoid",
        "HardSwish",
        "Softplus",
        "Softsign",
        "Mish",
        "ThresholdedRelu",
        "Abs",
        "Neg",
        "Exp",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Erf",
        "Sin",
        "Cos",
        "Atan",
        "Identity",
        "Dropout",
    ]
}


@pytest.mark.parametrize("name", CASES)
def test_layer_equals_onnxruntime(name, rng):
    model = CASES[name](rng)
    feeds = feeds_for(model)
    expected = onnx_outputs(model, feeds)
    found = outputs(load(model), feeds)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].shape == value.shape
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


def test_broadcasting_by_axis_of_old_models(rng):
    weight = array(4).draw(rng)
    model = model_of([node("Add", "x,w", axis=1, broadcast=1)], IMAGE, {"w": weight}, opset=6)
    feeds = feeds_for(model)
    np.testing.assert_allclose(outputs(load(model), feeds)["y"], feeds["x"] + weight.reshape(4, 1, 1))


@pytest.mark.parametrize("kind", ["HardSwish", "Celu", "ReduceL2", "Shrink"])
def test_unknown_composites_are_what_onnx_defines(kind, monkeypatch):
    monkeypatch.delitem(HANDLERS, kind)
    model = model_of([node(kind)], ROWS, opset=18)
    feeds = feeds_for(model)
    np.testing.assert_allclose(outputs(load(model), feeds)["y"], onnx_outputs(model, feeds)["y"], atol=1e-6)


def test_split_has_many_outputs():
    model = model_of([node("Split", "x,n", "y,z", axis=1)], ROWS, {"n": ints(2, 4)}, outputs=("y", "z"))
    feeds = feeds_for(model)
    found, expected = outputs(load(model), feeds), onnx_outputs(model, feeds)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_local_functions_are_inlined():
    function = helper.make_function(
        "mine", "twice", ["a"], ["c"], [helper.make_node("Add", ["a", "a"], ["c"])], [helper.make_opsetid("", 17)]
    )
    model = model_of([helper.make_node("twice", ["x"], ["y"], domain="mine")], ROWS)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.functions.append(function)
    feeds = feeds_for(model)
    np.testing.assert_allclose(outputs(load(model), feeds)["y"], 2 * feeds["x"])


def test_weights_and_outputs_keep_their_names(rng):
    graph = load(CASES["conv"](rng))
    assert {"x", "y", "w", "b"} <= set(graph.tensors)
    assert graph.outputs == ("y",)


def test_odd_names_are_kept():
    model = model_of([helper.make_node("Relu", ["x"], ["int\nmain"])], ROWS, outputs=("int\nmain",))
    assert load(model).outputs == ("int\nmain",)


def test_open_batch_becomes_one():
    assert load(model_of([node("Relu")], {"x": ("N", 6)})).tensors["x"].type.shape == (1, 6)
    assert load(model_of([node("Relu")], {"x": (0, 6)})).tensors["x"].type.shape == (1, 6)


def test_open_dimension_asks_for_a_shape():
    model = model_of([node("Relu")], {"x": ("N", "T")})
    with pytest.raises(InputError, match=r"net: x: .*--input-shape x=1,T"):
        load(model)
    assert load(model, input_shape=(("x", (2, 5)),)).tensors["x"].type.shape == (2, 5)
    assert load(model, input_shape=(("", (2, 5)),)).tensors["x"].type.shape == (2, 5)
    with pytest.raises(InputError, match="expected one of x"):
        load(model, input_shape=(("q", (2, 5)),))
    with pytest.raises(InputError, match="expected a shape like"):
        load(model, input_shape=(("x", (2, 5, 5)),))


def test_all_unsupported_layers_are_named():
    nodes = [node("Hardmax", "x", "a"), node("Relu", "a", "b"), node("NotAnOperator", "b", "y")]
    with pytest.raises(UnsupportedError) as caught:
        load(model_of(nodes, ROWS))
    assert len(caught.value.problems) == 2
    assert "the_Hardmax: Hardmax" in caught.value.problems[0]
    assert "NotAnOperator" in caught.value.problems[1]


def nan_weights(rng):
    weight = array(6, 5).draw(rng)
    weight[1, 2] = np.nan
    return model_of([node("MatMul", "x,w")], ROWS, {"w": weight})


BROKEN = {
    "contradiction": (layers([node("MatMul", "x,w")], ROWS, {"w": array(7, 5)}), "the_MatMul"),
    "wrong_kernel": (layers([node("Conv", "x,w", kernel_shape=[5, 5])], IMAGE, W33), "kernel_shape"),
    "wrong_bias": (layers([node("Conv", "x,w,b")], IMAGE, {"w": array(6, 4, 3, 3), "b": array(5)}), "bias"),
    "kernel_too_large": (layers([node("Conv", "x,w")], {"x": (1, 4, 2, 2)}, W33), "the_Conv"),
    "broadcast": (layers([node("Add", "x,w")], ROWS, {"w": array(5)}), "the_Add"),
    "cycle": (layers([node("Add", "x,y", "a"), node("Relu", "a", "y")], ROWS), "cycles"),
    "nobody": (layers([node("Add", "x,ghost")], ROWS), "ghost"),
    "huge": (layers([node("Relu")], {"x": (1, 2**40)}), "elements"),
    "huge_constant": (
        layers([node("ConstantOfShape", "s", "c"), node("Add", "x,c")], ROWS, {"s": ints(2**40)}),
        "elements",
    ),
    "nan": (nan_weights, "w: .*NaN"),
    "no_output": (layers([node("Relu", "x", "z")], ROWS), "y"),
    "bad_axis": (layers([node("Concat", "x,x", axis=5)], ROWS), "axis"),
    "bad_permutation": (layers([node("Transpose", perm=[0, 0])], ROWS), "perm"),
    "bad_reshape": (layers([node("Reshape", "x,s")], ROWS, {"s": ints(4, -1)}), "18 elements"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_model_is_one_line(name, rng):
    build, pattern = BROKEN[name]
    model = build(rng)
    with pytest.raises(InputError, match=pattern) as caught:
        load(model)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_models(tmp_path, rng):
    good = CASES["gemm"](rng).SerializeToString()
    for name, content in {
        "empty.onnx": b"",
        "random.onnx": rng.bytes(1000),
        "truncated.onnx": good[: len(good) // 2],
        "text.onnx": b"hello, this is no model\n",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_paths_that_are_no_models(tmp_path):
    (tmp_path / "net.bmp").write_bytes(b"BM")
    with pytest.raises(InputError, match="suffix"):
        load(tmp_path / "net.bmp")
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "gone.onnx")
    with pytest.raises(InputError, match="folder"):
        load(tmp_path)
    with pytest.raises(InputError, match="not a model"):
        load(42)


def test_absent_external_data(tmp_path, rng):
    path = tmp_path / "net.onnx"
    onnx.save_model(
        CASES["gemm"](rng),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    load(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match="another file") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_random_damage_is_never_a_traceback(tmp_path, rng):
    good = bytearray(CASES["conv"](rng).SerializeToString())
    path = tmp_path / "net.onnx"
    for _ in range(150):
        damaged = bytearray(good)
        for at in rng.integers(0, len(good), 3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            load(path)
        except (InputError, UnsupportedError) as error:
            assert str(error).startswith(str(path))  # noqa: PT017


def test_if_with_a_known_condition_is_its_branch():
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(kind, ["x"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, kind in (("then", "Relu"), ("else", "Neg"))
    }
    model = model_of([helper.make_node("If", ["c"], ["y"], **branches)], ROWS, {"c": np.asarray(False)})
    feeds = feeds_for(model)
    np.testing.assert_array_equal(outputs(load(model), feeds)["y"], -feeds["x"])

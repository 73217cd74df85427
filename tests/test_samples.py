"""Sample files: what is taken, what is refused and in which words, and the way into the C's layout."""

import numpy as np
import pytest

from toolchain.errors import InputError
from toolchain.ir.graph import Graph, Port, Tensor
from toolchain.ir.types import DType, QuantParams, TensorType
from toolchain.samples import feeds, framework_shape, labels, read_samples, synthetic, to_framework


def image_graph(dtype=DType.FLOAT32, quant=None, batch=1):
    tensors = {"in": Tensor("in", TensorType((batch, 4, 5, 3), dtype, quant))}
    return Graph((), tensors, ("in",), (), {"in": Port("image", (0, 2, 3, 1))})


def test_layout_follows_the_permutation():
    graph = image_graph()
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    assert framework_shape(graph, "in") == (1, 3, 4, 5)
    ready = feeds(graph, read_samples(x, "calibration"))["in"]
    assert ready.shape == (2, 1, 4, 5, 3)
    np.testing.assert_array_equal(ready[1, 0], x[1].transpose(1, 2, 0))
    np.testing.assert_array_equal(to_framework(graph, "in", ready)[:, 0], x)


@pytest.mark.parametrize("key", ["image", "in", "x", "anything"])
def test_a_single_input_takes_any_single_array(tmp_path, key):
    np.savez(tmp_path / "c.npz", **{key: np.zeros((2, 3, 4, 5), np.float32)}, y=np.array([0, 1]))
    samples = read_samples(tmp_path / "c.npz", "--calibration")
    assert feeds(image_graph(), samples)["in"].shape[0] == 2
    assert labels(samples).tolist() == [0, 1]


def test_npy(tmp_path):
    np.save(tmp_path / "c.npy", np.zeros((2, 3, 4, 5)))
    assert feeds(image_graph(), read_samples(str(tmp_path / "c.npy"), "--calibration"))["in"].dtype == np.float32


def test_a_batch_model_takes_its_batches():
    assert feeds(image_graph(batch=2), read_samples(np.zeros((6, 3, 4, 5)), "x"))["in"].shape == (3, 2, 4, 5, 3)


def test_floats_are_quantized_and_integers_kept():
    graph = image_graph(DType.INT8, QuantParams((0.5,), 1))
    x = np.full((1, 3, 4, 5), 0.75, np.float32)
    assert feeds(graph, read_samples(x, "x"))["in"].ravel()[0] == 3
    assert feeds(graph, read_samples(x * 1e9, "x"))["in"].ravel()[0] == 127
    assert feeds(graph, read_samples(np.full((1, 3, 4, 5), -7, np.int8), "x"))["in"].ravel()[0] == -7


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": np.zeros((2, 4, 5, 3))}, r"image: found shape \(2, 4, 5, 3\), expected \(samples, 3, 4, 5\)"),
        ({"image": np.zeros((0, 3, 4, 5))}, "no samples"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, r"found arrays \['a', 'b'\], expected one per model input: image"),
        ({"image": np.full((1, 3, 4, 5), np.nan)}, "NaN"),
        ({"image": np.float32(3)}, "found shape"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, words):
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(InputError, match=words) as caught:
        feeds(image_graph(), read_samples(tmp_path / "c.npz", "--calibration"))
    assert "\n" not in str(caught.value)


def test_values_outside_the_integer_type():
    with pytest.raises(InputError, match="do not fit int8"):
        feeds(image_graph(DType.INT8), read_samples(np.full((1, 3, 4, 5), 300), "x"))


def test_wrong_files(tmp_path):
    for name, content in (("a.npz", b""), ("b.npz", b"hello"), ("c.npz", b"PK\x03\x04")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"empty|not a .npz"):
            read_samples(tmp_path / name, "--calibration")
    with pytest.raises(InputError, match="not there"):
        read_samples(tmp_path / "none.npz", "--calibration")


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "c.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"not a .npz"):
        read_samples(tmp_path / "c.npz", "--calibration")


def test_noise_is_seeded_and_reaches_the_corners():
    graph = image_graph(DType.INT8, QuantParams((0.5,), 1))
    first, second = synthetic(graph)["in"], synthetic(graph)["in"]
    np.testing.assert_array_equal(first, second)
    assert (first.min(), first.max()) == (-128, 127)

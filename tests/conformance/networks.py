"""Small random networks from TensorFlow's converter, in int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.conformance.family import Draw, family
from tests.importers import lite
from toolchain.config import Rounding

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolchain.ir.types import Array


class Layers:
    """Layers with random weights, whose output channels differ in size by three decades."""

    def __init__(self, draw: Draw) -> None:
        import tensorflow as tf

        self.draw, self.tf = draw, tf

    def weights(self, *shape: int) -> Array:
        sizes = 10 ** self.draw.rng.uniform(-3.0, 0.0, shape[-1])
        return (self.draw.rng.normal(0, 0.4, shape) * sizes / sizes.max()).astype(np.float32)

    def conv(self, x: Any) -> Any:
        kernel = self.weights(*self.draw.pick((1, 1), (3, 3), (2, 3)), x.shape[-1], self.draw.integer(1, 8))
        dilation, stride = self.draw.pick((1, 1), (1, 2), (2, 1))
        y = self.tf.nn.conv2d(x, kernel, stride, self.draw.pick("SAME", "VALID"), dilations=dilation)
        return self.activated(y + self.weights(kernel.shape[-1]))

    def depthwise(self, x: Any) -> Any:
        kernel = self.weights(1, 1, x.shape[-1] * self.draw.pick(1, 1, 2))
        size = self.draw.pick(2, 3)
        kernel = np.broadcast_to(kernel.reshape(x.shape[-1], -1), (size, size, x.shape[-1], kernel.size // x.shape[-1]))
        noise = self.draw.rng.normal(1, 0.5, kernel.shape).astype(np.float32)
        stride = self.draw.pick(1, 2)
        return self.activated(self.tf.nn.depthwise_conv2d(x, kernel * noise, (1, stride, stride, 1), "SAME"))

    def activated(self, x: Any) -> Any:
        nn = self.tf.nn
        functions = (lambda v: v, nn.relu, nn.relu6, nn.leaky_relu, nn.sigmoid, nn.tanh, nn.gelu)
        return self.draw.pick(*functions)(x)

    def residual(self, x: Any) -> Any:
        kernel = self.weights(3, 3, x.shape[-1], x.shape[-1])
        return self.draw.pick(self.tf.add, self.tf.subtract, self.tf.multiply)(
            x, self.activated(self.tf.nn.conv2d(x, kernel, 1, "SAME"))
        )

    def pooled(self, x: Any) -> Any:
        pool = self.draw.pick(self.tf.nn.max_pool2d, self.tf.nn.avg_pool2d)
        return pool(x, 2, self.draw.pick(1, 2), "SAME")

    def branches(self, x: Any) -> Any:
        return self.tf.concat((self.activated(x), self.pooled_same(x)), 3)

    def pooled_same(self, x: Any) -> Any:
        return self.tf.nn.avg_pool2d(x, 3, 1, "SAME")

    def moved(self, x: Any) -> Any:
        tf = self.tf
        return self.draw.pick(
            lambda v: tf.pad(v, ((0, 0), (1, 0), (0, 2), (0, 0))),
            lambda v: tf.image.resize(v, (7, 6)),
            lambda v: tf.image.resize(v, (9, 5), "nearest"),
            lambda v: tf.transpose(v, (0, 2, 1, 3)),
            lambda v: v[:, :-1, ::2],
            lambda v: tf.reverse(v, (1,)),
        )(x)

    def body(self, x: Any, length: int) -> Any:
        """Layers at random; a picture goes in and out."""
        for _ in range(length):
            step = self.draw.pick(
                self.conv, self.conv, self.depthwise, self.residual, self.pooled, self.branches, self.moved
            )
            if min(x.shape[1:3]) < 3:
                break
            x = step(x)
        return x


def network(draw: Draw, end: Callable[[Layers, Any], Any]) -> bytes:
    """A network of up to five layers and an end, traced, calibrated and converted."""
    layers = Layers(draw)
    length = draw.integer(2, 5)
    state = draw.rng.bit_generator.state

    def function(x: Any) -> Any:
        draw.rng.bit_generator.state = state  # traced more than once, always the same
        return end(layers, layers.body(x, length))

    shape = (1, draw.integer(6, 9), draw.integer(6, 9), draw.integer(1, 5))
    state = draw.rng.bit_generator.state
    return lite.int8_model(function, [shape], np.random.default_rng(draw.index))


@family(30)
def networks(draw: Draw) -> bytes:
    """Convolutional networks, with a softmax over channels or none at their end."""
    return network(draw, draw.turn(lambda _, x: x, lambda layers, x: layers.tf.nn.softmax(x)))


def classified(layers: Layers, x: Any) -> Any:
    tf = layers.tf
    x = tf.reduce_mean(x, (1, 2))
    y = tf.matmul(x, layers.weights(x.shape[-1], 5) * 0.3) + layers.weights(5) * 0.1
    return layers.draw.pick(tf.nn.softmax, tf.nn.log_softmax, lambda v: v)(y)


@family(20, rounding=Rounding.LITERT)
def classifiers(draw: Draw) -> bytes:
    """With a fully connected layer, which the reference kernels round once and the default policy twice."""
    return network(draw, classified)

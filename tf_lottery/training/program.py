"""This module knows the compiled programs that train and evaluate a network.

Many steps run inside one compiled function over data that lies on the device.
XLA compiles it, except where convolutions run on a CPU: inside loops XLA's are
slower by orders of magnitude there than oneDNN's, which the plain graph uses.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_lottery.training import measure

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def compiles_with_xla(model: keras.Model) -> bool:
    """Returns whether XLA is the faster choice for this model here."""
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    return on_gpu or not any(
        isinstance(layer, _CONVOLUTIONS)
        for layer in model._flatten_layers(include_self=False)
    )


def training_steps(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: keras.losses.Loss,
) -> Callable[..., tf.Tensor]:
    """Returns a compiled function that takes many training steps.

    It takes `x` and `y` (all training examples), `order` (int32 `[steps,
    batch]`, which examples make up each batch), `start` and `stop` (int32,
    rows of `order`), updates the variables of model and optimizer in place,
    and returns the mean loss of the steps, regularisation included.
    """
    variables = model.trainable_variables

    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
            value = tf.add_n([value, *model.losses])
            scaled = optimizer.scale_loss(value)
        gradients = tape.gradient(scaled, [v.value for v in variables])
        optimizer.apply(gradients, variables)
        return tf.cast(value, tf.float32)

    # AutoGraph needs the source; an explicit loop does not.
    @tf.function(jit_compile=compiles_with_xla(model), autograph=False)
    def run(
        x: tf.Tensor,
        y: tf.Tensor,
        order: tf.Tensor,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> tf.Tensor:
        def body(i: tf.Tensor, total: tf.Tensor) -> tuple[Any, Any]:
            batch = order[i]
            return i + 1, total + step(tf.gather(x, batch), tf.gather(y, batch))

        _, total = tf.while_loop(
            lambda i, _: i < stop, body, (start, tf.constant(0.0))
        )
        return total / tf.cast(stop - start, tf.float32)

    return run


def evaluation(
    model: keras.Model,
    measures: measure.Measures,
    batch_size: int,
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Returns a compiled function that evaluates the model on examples.

    It takes `x` and `y` (all examples of a split) and returns the loss of
    every example, float32, and whether it was classified right, bool, both
    `[examples]`; metrics that are not functions of single examples gather
    their state in `measures.metrics`.
    """

    @tf.function(jit_compile=compiles_with_xla(model), autograph=False)
    def run(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        examples = x.shape[0]
        size = min(batch_size, examples)
        count = -(-examples // size)

        def body(i: tf.Tensor, losses: Any, rights: Any) -> tuple[Any, ...]:
            # The last batch reaches back, so that all have one shape.
            start = tf.minimum(i * size, examples - size)
            seen_before = tf.range(size) < i * size - start
            batch_x, batch_y = _slice(x, start, size), _slice(y, start, size)
            outputs = model(batch_x, training=False)
            new = tf.cast(~seen_before, tf.float32)
            for metric in measures.metrics:
                metric.update_state(batch_y, outputs, sample_weight=new)
            return (
                i + 1,
                losses.write(i, measures.losses(batch_y, outputs)),
                rights.write(i, measures.correct(batch_y, outputs)),
            )

        arrays = (
            tf.TensorArray(tf.float32, count, element_shape=(size,)),
            tf.TensorArray(tf.bool, count, element_shape=(size,)),
        )
        _, losses, rights = tf.while_loop(
            lambda i, *_: i < count, body, (tf.constant(0), *arrays)
        )
        return tuple(
            _joined(array.stack(), examples) for array in (losses, rights)
        )

    return run


def _slice(array: tf.Tensor, start: tf.Tensor, size: int) -> tf.Tensor:
    rest = array.shape[1:].as_list()
    begin = tf.stack([start, *([0] * len(rest))])
    return tf.slice(array, begin, [size, *rest])


def _joined(rows: tf.Tensor, examples: int) -> tf.Tensor:
    """Joins `[batches, size]`, whose last row reaches back, to `[examples]`."""
    count, size = rows.shape
    head = tf.reshape(rows[:-1], [-1])
    return tf.concat([head, rows[-1, count * size - examples :]], axis=0)

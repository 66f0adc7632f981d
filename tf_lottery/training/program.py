"""This module knows the compiled programs that train and evaluate networks.

Many steps run inside one compiled function over data that lies on the device.
XLA compiles it, except where convolutions run on a CPU: inside loops XLA's are
slower by orders of magnitude there than oneDNN's, which the plain graph uses.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_lottery.training.arrangement import Arrangement
from tf_lottery.training.measure import Measures
from tf_lottery.training.network import Augment, Network, Values

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3D,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
# XLA refuses the gradients of Keras' loops over time inside a loop of ours.
_RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)
# It does not find the size of Keras' counts inside a loop either.
_COUNTING = ("multi_hot", "count")


def compiles_with_xla(model: keras.Model) -> bool:
    """Returns whether XLA can compile this model, and is the faster choice."""
    layers = list(model._flatten_layers())
    if not all(layer.supports_jit for layer in layers):
        return False
    if any(getattr(layer, "output_mode", "") in _COUNTING for layer in layers):
        return False
    if any(isinstance(layer, _RECURRENT) for layer in layers):
        return False
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    return on_gpu or not any(
        isinstance(layer, _CONVOLUTIONS) for layer in layers
    )


def training_steps(
    network: Network,
    arrangement: Arrangement,
    augment: Augment | None = None,
) -> Callable[..., tuple[Any, Any]]:
    """Returns a compiled function that takes many training steps.

    It takes, packed as the arrangement does, each network's values, masks, key
    of augmentation (int32 scalar) and order (int32 `[steps, batch]`, which
    examples make up each batch); then `x` and `y` (all examples at hand),
    `first` (the step that row 0 of `order` belongs to), `start` and `stop`
    (rows of `order`). It returns the new values and the sum of the losses of
    the steps, regularisation included, both packed.
    """

    # AutoGraph needs the source; an explicit loop does not.
    @tf.function(jit_compile=compiles_with_xla(network.model), autograph=False)
    def run(
        values: Any,
        masks: Any,
        keys: Any,
        orders: Any,
        x: tf.Tensor,
        y: tf.Tensor,
        first: tf.Tensor,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> tuple[Any, Any]:
        def body(i: tf.Tensor, values: Any, totals: Any) -> tuple[Any, ...]:
            def one(
                values: Values, masks: Any, key: Any, order: Any, total: Any
            ) -> tuple[Values, tf.Tensor]:
                batch = order[i]
                inputs = tf.gather(x, batch)
                if augment is not None:
                    inputs = augment(inputs, tf.stack([key, first + i]))
                values, loss = network.step(
                    values, masks, inputs, tf.gather(y, batch)
                )
                return values, total + loss

            return i + 1, *arrangement.map(
                one, values, masks, keys, orders, totals
            )

        totals = arrangement.map(lambda key: tf.cast(key * 0, tf.float32), keys)
        _, values, totals = tf.while_loop(
            lambda i, *_: i < stop, body, (start, values, totals)
        )
        return values, totals

    return run


def evaluation(
    network: Network, arrangement: Arrangement, measures: Measures
) -> Callable[..., tuple[Any, Any, Any]]:
    """Returns a compiled function that evaluates networks on one batch.

    It takes, packed, each network's values and the state of each metric of
    `measures.metrics`; then `x`, `y` and `counts`, each example's weight in
    the metrics. It returns, packed, the loss of every example, float32,
    whether it was classified right, bool, and the state of the metrics.
    """

    @tf.function(jit_compile=compiles_with_xla(network.model), autograph=False)
    def run(
        values: Any, totals: Any, x: tf.Tensor, y: tf.Tensor, counts: tf.Tensor
    ) -> tuple[Any, Any, Any]:
        outputs = arrangement.map(lambda v: network.outputs(v, x), values)
        totals = [
            measures.counted(total, y, each, counts)
            for total, each in zip(
                arrangement.unpack(totals),
                arrangement.unpack(outputs),
                strict=True,
            )
        ]
        return (
            arrangement.examples(measures.losses, y, outputs),
            arrangement.examples(measures.correct, y, outputs),
            arrangement.pack(totals),
        )

    return run

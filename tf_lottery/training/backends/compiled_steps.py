"""The compiled programs that train and evaluate networks.

Many steps run inside one compiled function over data that lies on the device.
XLA compiles it, except where convolutions run on a CPU: inside loops XLA's are
slower by orders of magnitude there than oneDNN's, which the plain graph uses.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_lottery.training.backends.functional_model import (
    Augment,
    FunctionalModel,
    Values,
)
from tf_lottery.training.backends.stacking import Stacking
from tf_lottery.training.input_pipeline import Examples, gathered

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
    network: FunctionalModel,
    stacking: Stacking,
    augment: Augment | None = None,
    jit_compile: bool = False,
) -> Callable[..., tuple[Any, Any]]:
    """Returns a compiled function that takes many training steps.

    It takes, packed as the arrangement does, each network's values, what its
    metrics have counted, masks, key of augmentation (int32 scalar) and order
    (int32 `[steps, batch]`, which examples make up each batch); then
    `examples` (all at hand), `first` (the step that row 0 of `order` belongs
    to), `start` and `stop` (rows of `order`). It returns the new values and
    counts, both packed.
    """

    # AutoGraph needs the source; an explicit loop does not.
    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(
        values: Any,
        totals: Any,
        masks: Any,
        keys: Any,
        orders: Any,
        examples: Examples,
        first: tf.Tensor,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> tuple[Any, Any]:
        def body(i: tf.Tensor, values: Any, totals: Any) -> tuple[Any, ...]:
            def one(
                values: Values, totals: Any, masks: Any, key: Any, order: Any
            ) -> tuple[Values, Any]:
                batch = gathered(examples, order[i])
                if augment is not None:
                    seed = tf.stack([key, first + i])
                    batch = batch._replace(x=augment(batch.x, seed))
                return network.step(values, totals, masks, batch)

            return i + 1, *stacking.map(
                one, values, totals, masks, keys, orders
            )

        _, values, totals = tf.while_loop(
            lambda i, *_: i < stop, body, (start, values, totals)
        )
        return values, totals

    return run


def evaluation(
    network: FunctionalModel, stacking: Stacking, jit_compile: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Returns a compiled function that evaluates networks on one batch.

    It takes, packed, each network's values and what its metrics have counted,
    and the examples. It returns, packed, the values for the next batch and
    the new counts.
    """

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(values: Any, totals: Any, examples: Examples) -> tuple[Any, Any]:
        after, totals = stacking.map(
            lambda v, t: network.evaluated(v, t, examples), values, totals
        )
        # Without states to pass on, not all weights need come out again.
        return (after if network.has_states else None), totals

    return run


def per_example(
    network: FunctionalModel, stacking: Stacking, jit_compile: bool = False
) -> Callable[..., Any]:
    """Returns a compiled function that evaluates each example alone.

    It takes, packed, each network's values, and the examples. It returns,
    packed, the deciding metric of every example, float32 `[examples]`.
    """

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(values: Any, examples: Examples) -> Any:
        return stacking.map(lambda v: network.per_example(v, examples), values)

    return run

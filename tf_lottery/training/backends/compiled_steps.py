"""The compiled functions that train and evaluate networks.

Many steps run inside one compiled function, over examples on the device. XLA
compiles it, except for convolutions on a CPU: inside loops XLA's convolutions
are slower there by orders of magnitude than oneDNN's, which the plain graph
uses.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_lottery.training import devices
from tf_lottery.training.backends.functional_model import (
    Augment,
    FunctionalModel,
    Values,
)
from tf_lottery.training.backends.stacking import Stacking
from tf_lottery.training.input_pipeline import Examples, gather

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
# XLA refuses gradients of a loop (over time) inside the loop over steps.
_RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)
# XLA cannot infer the output size of these preprocessing modes in a loop.
_COUNT_MODES = ("multi_hot", "count")


def compiles_with_xla(model: keras.Model) -> bool:
    """Returns whether XLA can compile a model and is the faster choice.

    Args:
        model: A built Keras model.
    """
    layers = list(model._flatten_layers())
    if not all(layer.supports_jit for layer in layers):
        return False
    modes = [getattr(layer, "output_mode", "") for layer in layers]
    if any(mode in _COUNT_MODES for mode in modes):
        return False
    if any(isinstance(layer, _RECURRENT) for layer in layers):
        return False
    on_gpu = devices.has_gpu()
    return on_gpu or not any(
        isinstance(layer, _CONVOLUTIONS) for layer in layers
    )


class StepInputs(NamedTuple):
    """What training steps read and do not change.

    Masks, keys and orders are packed by a `Stacking`, one per network.

    Attributes:
        masks: Per network, a list of bool tensors, one per masked kernel.
        keys: Per network, the key of its augmentation, int32 scalar.
        orders: Per network, the examples of each batch, int32
            `[steps, batch]`.
        examples: The examples that `orders` indexes.
        first: The training step of row 0 of `orders`, int32 scalar.
    """

    masks: Any
    keys: Any
    orders: Any
    examples: Examples
    first: tf.Tensor


def training_steps(
    network: FunctionalModel,
    stacking: Stacking,
    augment: Augment | None = None,
    jit_compile: bool = False,
) -> Callable[..., tuple[Any, Any]]:
    """Returns a compiled function that takes many training steps.

    Args:
        network: The architecture, its optimizer and its objective.
        stacking: How networks are packed.
        augment: Augmentation of training inputs, or None.
        jit_compile: Whether XLA compiles the function.

    Returns:
        A function of `values` and `totals` (packed: each network's `Values`
        and metrics variables), `inputs` (`StepInputs`), `start` and `stop`
        (int32 scalars: rows of `inputs.orders`). It returns new `values` and
        `totals`.
    """

    # AutoGraph needs the source; an explicit loop does not.
    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(
        values: Any,
        totals: Any,
        inputs: StepInputs,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> tuple[Any, Any]:
        def body(i: tf.Tensor, values: Any, totals: Any) -> tuple[Any, ...]:
            def one(
                values: Values, totals: Any, masks: Any, key: Any, order: Any
            ) -> tuple[Values, Any]:
                batch = gather(inputs.examples, order[i])
                if augment is not None:
                    seed = tf.stack([key, inputs.first + i])
                    batch = batch._replace(x=augment(batch.x, seed))
                return network.step(values, totals, masks, batch)

            return i + 1, *stacking.map(
                one, values, totals, inputs.masks, inputs.keys, inputs.orders
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

    Args:
        network: The architecture and its objective.
        stacking: How networks are packed.
        jit_compile: Whether XLA compiles the function.

    Returns:
        A function of `values`, `totals` (both packed) and `examples`. It
        returns the values for the next batch, None if they do not change,
        and the new totals.
    """

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(values: Any, totals: Any, examples: Examples) -> tuple[Any, Any]:
        after, totals = stacking.map(
            lambda v, t: network.evaluated(v, t, examples), values, totals
        )
        # Returning all weights would copy them for nothing.
        return (after if network.has_states else None), totals

    return run


def per_example(
    network: FunctionalModel, stacking: Stacking, jit_compile: bool = False
) -> Callable[..., Any]:
    """Returns a compiled function that evaluates each example separately.

    Args:
        network: The architecture and its objective.
        stacking: How networks are packed.
        jit_compile: Whether XLA compiles the function.

    Returns:
        A function of packed `values` and `examples`. It returns, packed, the
        deciding metric of every example, float32 `[examples]`.
    """

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(values: Any, examples: Examples) -> Any:
        return stacking.map(lambda v: network.per_example(v, examples), values)

    return run

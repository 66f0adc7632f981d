"""This module knows kernels whose gradients replicas exchange as factors.

The gradient of a dense kernel is a product: of what came into the layer,
`[batch, inputs]`, and of the gradient of what it made of it, `[batch,
outputs]`. Where both together are smaller than the kernel, replicas gather
them and multiply for the whole batch, in place of a sum of `[inputs, outputs]`
over replicas: sufficient factor broadcasting (Xie et al. 2015,
arXiv:1511.08486). It is the product that one device computes.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

# Public by its instances only.
from keras.src.models.functional import Functional

from tf_lottery.training.distribution import replica_context


class Product(NamedTuple):
    """A matrix product with a kernel, which lets no gradient to the kernel.

    Attributes:
        kernel: The kernel's variable.
        inputs: This replica's part, `[examples, inputs]`.
        outputs: Of the product, `[examples, outputs]`.
    """

    kernel: keras.Variable
    inputs: tf.Tensor
    outputs: tf.Tensor


_SCOPE: contextvars.ContextVar[tuple[tf.GradientTape, list[Product]] | None]
_SCOPE = contextvars.ContextVar("_SCOPE", default=None)


def prepare(
    model: keras.Model, batch_size: int, strategy: tf.distribute.Strategy
) -> None:
    """Has a model's dense layers hand over their products, where it pays.

    On GPUs sums are fast. Nor does it pay where replicas come to other bits,
    on CPUs of several kinds: weights would drift apart.

    Args:
        model: As `replicas.prepared` makes it.
        batch_size: Examples of a whole batch.
        strategy: Whose replicas train it.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    on_cpus = all("CPU" in d for d in strategy.extended.worker_devices)
    layers = [
        layer
        for layer in _dense_layers(model)
        if _pays(batch_size, layer.kernel.shape)
    ]
    if not (layers and on_cpus):
        return
    if _agree([layer.kernel.shape for layer in layers], batch_size, strategy):
        for layer in layers:
            layer.call = _handing_over(layer)


@contextlib.contextmanager
def handed_over(tape: tf.GradientTape) -> Iterator[list[Product]]:
    """Collects the products of a model that is called within."""
    products: list[Product] = []
    token = _SCOPE.set((tape, products))
    try:
        yield products
    finally:
        _SCOPE.reset(token)


def gradients(
    tape: tf.GradientTape,
    loss: tf.Tensor,
    weights: Sequence[tf.Tensor],
    products: Sequence[Product],
    places: dict[int, int],
) -> list[Any]:
    """Returns gradients of the loss of the whole batch, on every replica.

    Args:
        tape: What recorded the loss of this replica's part.
        loss: This replica's, scalar; those of all sum to the batch's.
        weights: What to differentiate by.
        products: What was handed over on the way to the loss.
        places: The id of each weight's variable to its index in `weights`.

    Returns:
        The gradient of each weight; None if nothing depends on it.
    """
    sources = [*weights, *(product.outputs for product in products)]
    found = [
        None if each is None else tf.convert_to_tensor(each)
        for each in tape.gradient(loss, sources)
    ]
    pairs = zip(products, found[len(weights) :], strict=True)
    known = [(product, back) for product, back in pairs if back is not None]
    sums, factors = replica_context.exchanged(
        found[: len(weights)],
        [
            factor
            for product, back in known
            for factor in (product.inputs, back)
        ],
    )
    for (product, _), inputs, back in zip(
        known, factors[::2], factors[1::2], strict=True
    ):
        i = places[id(product.kernel)]
        whole = tf.matmul(inputs, back, transpose_a=True)
        whole = tf.cast(whole, weights[i].dtype)
        sums[i] = whole if sums[i] is None else sums[i] + whole
    return sums


def _dense_layers(model: keras.Model) -> Iterator[keras.layers.Dense]:
    """Yields those a model calls itself: not in a loop, nor by a wrapper."""
    calls = (Functional.call, keras.Sequential.call)
    if type(model).call not in calls or model._remat_mode:
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _dense_layers(layer)
        elif type(layer) is keras.layers.Dense and not (
            layer.lora_enabled
            or layer.quantization_mode
            or layer._remat_mode
            # Whose gradient is as large as the kernel, and summed anyway.
            or layer.kernel_regularizer
        ):
            yield layer


def _pays(batch_size: int, kernel: tuple[int, int]) -> bool:
    """Returns whether factors of a whole batch are less than the kernel."""
    height, width = kernel
    return batch_size * (height + width) < height * width


def _agree(
    kernels: Sequence[tuple[int, int]],
    batch_size: int,
    strategy: tf.distribute.Strategy,
) -> bool:
    """Returns whether replicas come to the same bits of such products."""

    def drawn(*shape: int) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, (0, 0)) - 0.5

    def one() -> tf.Tensor:
        products = [
            tf.matmul(
                drawn(batch_size, height),
                drawn(batch_size, width),
                transpose_a=True,
            )
            for height, width in kernels
        ]
        return tf.reduce_all(replica_context.agree(products))

    @tf.function(autograph=False)
    def run() -> tuple[tf.Tensor, ...]:
        return strategy.experimental_local_results(strategy.run(one))

    return all(bool(same) for same in run())


def _handing_over(layer: keras.layers.Dense) -> Callable[..., tf.Tensor]:
    """Returns what a dense layer computes, its product handed over."""
    call = layer.call

    def wrapped(inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        scope = _SCOPE.get()
        # In a sequence, each example has many rows.
        if scope is None or inputs.shape.rank != 2:
            return call(inputs, training=training)
        tape, products = scope
        kernel = tf.stop_gradient(keras.ops.convert_to_tensor(layer.kernel))
        outputs = tf.matmul(inputs, kernel)
        # Before the first weight that has a gradient, nothing else is watched.
        tape.watch(outputs)
        products.append(Product(layer.kernel, inputs, outputs))
        if layer.bias is not None:
            outputs = keras.ops.add(outputs, layer.bias)
        if layer.activation is not None:
            outputs = layer.activation(outputs)
        return outputs

    return wrapped

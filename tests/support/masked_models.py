"""Models, optimizers and comparisons for tests of masking."""

import keras
import numpy as np

from tf_lottery.core.masks import Masks
from tf_lottery.masking import (
    kernels,
    mask_model,
    masked_optimizer,
    set_masks,
    variables_by_path,
)
from tf_lottery.masking.paths import layers_by_path

L = keras.layers


def values(model):
    return {p: v.numpy() for p, v in variables_by_path(model).items()}


def stored(model):
    """What TensorFlow holds, past what masked variables give out."""
    return {p: v.value.numpy() for p, v in variables_by_path(model).items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(value, other[path]) for path, value in one.items()
    )


def classes(model):
    return {
        path: type(layer)
        for path, layer in layers_by_path(model).items()
        # Keras gives unnamed inputs of a clone names by counting.
        if not isinstance(layer, L.InputLayer)
    }


class Composite(L.Layer):
    """A layer with layers of its own: attributes, a list and a mapping."""

    dense = L.Dense

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = self.dense(4)
        self.rest = [self.dense(4), self.dense(4, name="mine")]
        self.named = {"a": self.dense(4)}
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def build(self, shape):
        for layer in (self.first, *self.rest, self.named["a"]):
            layer.build((None, 4))

    def call(self, x):
        for layer in (self.first, *self.rest, self.named["a"]):
            x = layer(x)
        return x * self.scale


class Subclassed(keras.Model):
    """A model that is no graph of layers."""

    def __init__(self):
        super().__init__()
        self.hidden = L.Dense(4, activation="tanh")
        self.top = L.Dense(3)
        self.build((None, 5))

    def build(self, shape):
        self.hidden.build((None, 5))
        self.top.build((None, 4))
        self.built = True

    def call(self, x):
        return self.top(self.hidden(x))


PATHS = {
    "sequential": "conv2d/kernel conv2d/bias batch_normalization/gamma "
    "batch_normalization/beta batch_normalization/moving_mean "
    "batch_normalization/moving_variance dense/kernel dense/bias "
    "dense_1/kernel dense_1/bias",
    "functional": "conv2d/kernel conv2d/bias shortcut/kernel shortcut/bias "
    "dropout/seed_generator_state head/kernel head/bias",
    "nested": "encoder/conv2d/kernel encoder/conv2d/bias encoder/dense/kernel "
    "encoder/dense/bias dense/kernel dense/bias dense_1/kernel dense_1/bias",
    "shared": "dense/kernel dense/bias tied/kernel tied/bias dense_1/kernel "
    "dense_1/bias",
}


def holding(layer):
    inputs = keras.Input((2, 4))
    return keras.Model(inputs, L.Dense(2, name="head")(layer(inputs)))


K = keras.optimizers
OPTIMIZERS = {
    "sgd": lambda: K.SGD(0.1),
    "momentum_nesterov": lambda: K.SGD(0.1, momentum=0.9, nesterov=True),
    "sgd_weight_decay": lambda: K.SGD(0.1, weight_decay=0.1),
    "sgd_accumulating": lambda: K.SGD(
        0.1, momentum=0.9, gradient_accumulation_steps=2
    ),
    "sgd_ema": lambda: K.SGD(0.1, momentum=0.9, use_ema=True),
    "adam": lambda: K.Adam(0.1),
    "adam_amsgrad": lambda: K.Adam(0.1, amsgrad=True),
    "adam_clipvalue": lambda: K.Adam(0.1, clipvalue=0.01),
    "adam_clipnorm": lambda: K.Adam(0.1, clipnorm=0.01),
    "adam_global_clipnorm": lambda: K.Adam(0.1, global_clipnorm=0.01),
    "adam_accumulating": lambda: K.Adam(0.1, gradient_accumulation_steps=2),
    "adam_loss_scaled": lambda: K.LossScaleOptimizer(K.Adam(0.1)),
    "adamw": lambda: K.AdamW(0.1, weight_decay=0.1),
    "adamw_ema_overwriting": lambda: K.AdamW(
        0.1, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=2
    ),
    "adadelta": lambda: K.Adadelta(1.0),
    "adafactor": lambda: K.Adafactor(0.1),
    "adagrad": lambda: K.Adagrad(0.1),
    "adamax": lambda: K.Adamax(0.1),
    "ftrl": lambda: K.Ftrl(0.1, l1_regularization_strength=1e-3),
    "lamb": lambda: K.Lamb(0.1),
    "lion": lambda: K.Lion(0.1),
    "muon": lambda: K.Muon(0.1),
    "muon_ema": lambda: K.Muon(0.1, use_ema=True),
    "nadam": lambda: K.Nadam(0.1),
    "rmsprop": lambda: K.RMSprop(0.1, momentum=0.9, centered=True),
}
if hasattr(K, "ScheduleFreeAdamW"):  # Keras 3.14 or later
    OPTIMIZERS["schedule_free"] = lambda: K.ScheduleFreeAdamW(
        0.1, warmup_steps=0
    )
if hasattr(K, "MultiOptimizer"):  # Keras 3.15 or later
    OPTIMIZERS["multi"] = lambda: K.MultiOptimizer(
        K.OptimizerMap(K.Adam(0.1), {".*bias": K.SGD(0.1)})
    )


X = np.random.default_rng(3).normal(size=(8, 5)).astype("float32")
Y = np.random.default_rng(4).normal(size=(8, 3)).astype("float32")


def pruned_training(name):
    """A subclassed net, its masks, and an optimizer masked and built."""
    keras.utils.set_random_seed(2)
    model = Subclassed()
    rng = np.random.default_rng(6)
    masks = Masks(
        {
            p: rng.random(k.variable.shape) < 0.5
            for p, k in kernels(model).items()
        }
    )
    optimizer = masked_optimizer(OPTIMIZERS[name](), masks, model)
    optimizer.build(model.trainable_variables)
    return model, masks, optimizer


def masked_layers(name):
    """A subclassed net with masked layers, its masks, a plain optimizer."""
    model, masks, _ = pruned_training("sgd")
    masked = mask_model(model)
    set_masks(masked, masks)
    optimizer = OPTIMIZERS[name]()
    optimizer.build(masked.trainable_variables)
    return masked, masks, optimizer


def stack(units=4):
    return keras.Sequential([keras.Input((4,)), L.Dense(units), L.Dense(units)])

"""This module knows LeNet-300-100, the paper's network for MNIST."""

import keras

from tf_lottery import seeds


def lenet_300_100(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    seed: int = 0,
) -> keras.Model:
    """Returns LeNet-300-100 (LeCun et al. 1998), not trained.

    Two hidden layers of 300 and 100 units and an output of logits: 266,200
    weights at the default shape, in Gaussian Glorot initialisation (Frankle &
    Carbin 2019, Fig. 2). ReLU, which the paper does not state, is that of its
    code. Keras' `GlorotNormal` is a truncated normal, as that code's.

    Args:
        input_shape: Shape of one example; flattened.
        classes: Number of logits.
        seed: Seed of the initialisation, >= 0.
    """
    model = keras.Sequential(
        [keras.Input(input_shape), keras.layers.Flatten(name="flatten")],
        name="lenet_300_100",
    )
    for name, units, activation in (
        ("fc1", 300, "relu"),
        ("fc2", 100, "relu"),
        ("output", classes, None),
    ):
        model.add(
            keras.layers.Dense(
                units,
                activation=activation,
                kernel_initializer=keras.initializers.GlorotNormal(
                    seed=seeds.integer(seed, "initialisation", name)
                ),
                name=name,
            )
        )
    return model

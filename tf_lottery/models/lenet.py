"""LeNet-300-100, the paper's network for MNIST."""

from collections.abc import Sequence

import keras

from tf_lottery.models import initializers, inputs


def lenet_300_100(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    seed: int = 0,
    units: Sequence[int] = (300, 100),
    sigma: float | None = None,
) -> keras.Model:
    """Returns LeNet-300-100 (LeCun et al. 1998), untrained.

    Two hidden layers of 300 and 100 units and an output of logits: 266,200
    weights at the default shape, initialized by Gaussian Glorot (Frankle &
    Carbin 2019, Fig. 2). The paper does not state ReLU; its code uses it.
    Keras' `GlorotNormal` is a truncated normal, as in that code.

    Args:
        input_shape: Shape of one example; the network flattens it.
        classes: Number of logits.
        seed: Seed of the initial weights, >= 0.
        units: Units of the hidden layers, from (25, 9) to (900, 300) in the
            paper (App. G.6). They appear in the model's name.
        sigma: Standard deviation, > 0, of Gaussian initial weights, from
            0.0125 to 0.4 in the paper (App. G.5). `None` uses Glorot.

    Raises:
        UserError: `input_shape` is not a shape, or `sigma` is not above 0.
    """
    inputs.require("lenet_300_100", input_shape)
    model = keras.Sequential(
        [keras.Input(input_shape), keras.layers.Flatten(name="flatten")],
        name="_".join(["lenet", *map(str, units)]),
    )
    hidden = [(f"fc{i}", size, "relu") for i, size in enumerate(units, 1)]
    for name, size, activation in (*hidden, ("output", classes, None)):
        model.add(
            keras.layers.Dense(
                size,
                activation=activation,
                kernel_initializer=initializers.gaussian(seed, name, sigma),
                name=name,
            )
        )
    return model

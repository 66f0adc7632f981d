"""Conv-2, Conv-4 and Conv-6: small relatives of VGG."""

import keras

from tf_lottery.core import seeds
from tf_lottery.core.errors import UserError
from tf_lottery.models import initializers, inputs


def conv_2(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int = 0,
    dropout: float = 0.0,
) -> keras.Model:
    """Returns Conv-2 of Frankle & Carbin 2019 (Fig. 2), untrained.

    Two 3x3 convolutions of 64 filters, max-pooling, dense layers of 256, 256
    and `classes` units: 4,300,992 weights at the default shape, 38,592 of
    them in convolutions. The paper prunes convolutions at 10 % a round, dense
    layers at 20 % and the output at 10 %.

    The paper states widths, poolings (App. H.1) and Gaussian Glorot; padding
    ("same") follows from its weight counts. It states neither ReLU nor zero
    initial biases: these are from the reimplementation of Zhou et al. 2019
    (arXiv:1905.01067).

    Args:
        input_shape: (rows, columns, channels), rows and columns >= 2.
        classes: Number of logits.
        seed: Seed of the initial weights and of dropout, >= 0.
        dropout: Rate, in [0, 1), at which the outputs of the two hidden dense
            layers are dropped in training; 0.5 in the paper (Sec. 3, Fig. 6).
            The paper does not say after which layers; VGG, a network of the
            same family, drops after these (Simonyan & Zisserman 2015,
            arXiv:1409.1556, Sec. 3.1). 0 adds no dropout layers.

    Raises:
        UserError: `input_shape` is not an image of that size, or `dropout` is
            out of range.
    """
    return _conv("conv_2", (64,), input_shape, classes, seed, dropout)


def conv_4(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int = 0,
    dropout: float = 0.0,
) -> keras.Model:
    """Returns Conv-4 of Frankle & Carbin 2019 (Fig. 2), untrained.

    As `conv_2`, with two more convolutions of 128 filters and a pooling:
    2,425,024 weights at the default shape, 259,776 of them in convolutions.

    Args:
        input_shape: (rows, columns, channels), rows and columns >= 4.
        classes: Number of logits.
        seed: Seed of the initial weights and of dropout, >= 0.
        dropout: Rate of dropout after the two hidden dense layers, in [0, 1).

    Raises:
        UserError: `input_shape` is not an image of that size, or `dropout` is
            out of range.
    """
    return _conv("conv_4", (64, 128), input_shape, classes, seed, dropout)


def conv_6(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int = 0,
    dropout: float = 0.0,
) -> keras.Model:
    """Returns Conv-6 of Frankle & Carbin 2019 (Fig. 2), untrained.

    As `conv_4`, with two more convolutions of 256 filters and a pooling:
    2,261,184 weights at the default shape, 1,144,512 of them in convolutions,
    which the paper prunes at 15 % a round.

    The paper prints 1.7 million weights, two thirds of them in convolutions.
    This contradicts its own table: three poolings leave 4 x 4 x 256 inputs to
    the first dense layer, and Zhou et al. 2019 build it like this. Levels are
    therefore slightly denser than on the paper's axes (level 7: 26.6 % instead
    of 26.4 %); compare by level.

    Args:
        input_shape: (rows, columns, channels), rows and columns >= 8.
        classes: Number of logits.
        seed: Seed of the initial weights and of dropout, >= 0.
        dropout: Rate of dropout after the two hidden dense layers, in [0, 1).

    Raises:
        UserError: `input_shape` is not an image of that size, or `dropout` is
            out of range.
    """
    return _conv("conv_6", (64, 128, 256), input_shape, classes, seed, dropout)


def _conv(
    name: str,
    modules: tuple[int, ...],
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    dropout: float,
) -> keras.Model:
    """Returns two convolutions and a pooling per module, then dense layers."""
    inputs.require_image(name, input_shape, halvings=len(modules))
    if not 0 <= dropout < 1:
        raise UserError(
            f"`dropout` must be in [0, 1); got {dropout}. It is the fraction "
            "of units that a training step leaves out, such as 0.5."
        )
    image = keras.Input(input_shape, name="image")
    model = keras.Sequential([image], name=name)
    for index, filters in enumerate(modules, 1):
        for conv in (f"conv{2 * index - 1}", f"conv{2 * index}"):
            model.add(
                keras.layers.Conv2D(
                    filters,
                    3,
                    padding="same",
                    activation="relu",
                    kernel_initializer=initializers.gaussian(seed, conv),
                    name=conv,
                )
            )
        model.add(keras.layers.MaxPooling2D(name=f"pool{index}"))
    model.add(keras.layers.Flatten(name="flatten"))
    for fc in ("fc1", "fc2"):
        model.add(_dense(256, "relu", seed, fc))
        if dropout:
            key = seeds.integer(seed, "dropout", fc)
            model.add(
                keras.layers.Dropout(dropout, seed=key, name=f"{fc}_dropout")
            )
    model.add(_dense(classes, None, seed, "output"))
    return model


def _dense(
    units: int, activation: str | None, seed: int, name: str
) -> keras.layers.Dense:
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=initializers.gaussian(seed, name),
        name=name,
    )

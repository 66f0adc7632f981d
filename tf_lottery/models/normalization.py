"""This module knows a convolution that batch normalisation follows."""

import keras

from tf_lottery.models import initializers


def convolution(
    x: keras.KerasTensor,
    filters: int,
    seed: int,
    name: str,
    *,
    size: int = 3,
    strides: int = 1,
) -> keras.KerasTensor:
    """Returns a convolution of an image, normalised, before its activation.

    Frankle & Carbin 2019 state batch normalisation (App. I.2, I.3) and no
    more of it. It stands between convolution and activation, with decay and
    epsilon of Frankle's open_lth (PyTorch's defaults: 0.1 of each batch goes
    into the moving statistics, epsilon 1e-5; Keras' own are 0.01 and 1e-3).
    The convolution has no bias, which normalisation would take away again
    (open_lth's VGG has one all the same).

    Differs from open_lth: scales start at 1, Keras' default, and not uniform
    in [0, 1], because the paper names no such thing; kernels start from
    Gaussian Glorot, because the paper says so, and not from He et al.'s;
    Keras' moving variance takes in that of the batch, PyTorch's the unbiased.

    Args:
        x: Images, (batch, rows, columns, channels).
        filters: Number of filters.
        seed: Seed of the network's initialisation, >= 0.
        name: The layer's name; that of the normalisation is `<name>_norm`.
        size: Rows and columns of the kernel, 1 or 3. Padding is 1 on every
            side for 3, none for 1, as PyTorch's.
        strides: Step between outputs. Keras' "same" would pad a strided
            convolution at the end only, off the centre of its shortcut.
    """
    padding = "same"
    if size == 3 and strides > 1:
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        padding = "valid"
    x = keras.layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer=initializers.gaussian(seed, name),
        name=name,
    )(x)
    return keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, name=f"{name}_norm"
    )(x)

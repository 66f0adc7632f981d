"""A convolution followed by batch normalization."""

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
    """Returns a normalized convolution of images, before the activation.

    Frankle & Carbin 2019 state batch normalization (App. I.2, I.3) without
    details. It follows the convolution, with decay and epsilon of Frankle's
    open_lth (PyTorch's defaults: moving statistics take 0.1 of each batch,
    epsilon 1e-5; Keras' defaults are 0.01 and 1e-3). The convolution has no
    bias, because normalization would subtract it (open_lth's VGG has one).

    Differs from open_lth: scales start at 1, Keras' default, instead of uniform
    in [0, 1], because the paper does not mention it; kernels start from
    Gaussian Glorot, as in the paper, instead of He et al.'s initializer; the
    moving variance uses the biased variance of the batch, PyTorch's the
    unbiased.

    Args:
        x: Images, (batch, rows, columns, channels).
        filters: Number of filters.
        seed: Seed of the network's initial weights, >= 0.
        name: The layer's name; the normalization is called `<name>_norm`.
        size: Rows and columns of the kernel, 1 or 3. Padding is 1 on every
            side for 3, none for 1, as in PyTorch.
        strides: Step between outputs. Keras' "same" would pad a strided
            convolution at the end only, not centered on its shortcut.
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

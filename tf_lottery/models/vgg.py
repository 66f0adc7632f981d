"""This module knows VGG-19 as it is adapted to CIFAR-10."""

import keras

from tf_lottery.models import initializers, inputs, normalization

GROUPS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Filters and number of the convolutions of each group."""


def vgg_19(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int = 0,
) -> keras.Model:
    """Returns VGG-19 for CIFAR-10 (Liu et al. 2019), not trained.

    Sixteen 3x3 convolutions in five groups, max-pooling between the groups,
    the mean over the image, an output of logits (Frankle & Carbin 2019, Fig.
    2 and App. I.2, after Liu et al., arXiv:1810.05270): 20,024,000 weights,
    20,018,880 of them in convolutions. The paper prunes these only, together:
    `allocation="global", rates={"output": 0}`.

    Every convolution is followed by batch normalisation, see
    `normalised.convolution` for it and its departures, and a ReLU. The mean is
    over all that is left, which for 32 x 32 images is the 2 x 2 of Liu et al.
    and of Frankle's open_lth.

    Args:
        input_shape: (rows, columns, channels), rows and columns >= 16.
        classes: Number of logits.
        seed: Seed of the initialisation, >= 0.

    Raises:
        ValueError: `input_shape` is no image of that size.
    """
    inputs.require_image("vgg_19", input_shape, halvings=len(GROUPS) - 1)
    x = image = keras.Input(input_shape, name="image")
    done = 0
    for group, (filters, count) in enumerate(GROUPS, 1):
        for index in range(done + 1, done + count + 1):
            x = normalization.convolution(x, filters, seed, f"conv{index}")
            x = keras.layers.ReLU(name=f"conv{index}_relu")(x)
        done += count
        if group < len(GROUPS):
            x = keras.layers.MaxPooling2D(name=f"pool{group}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    logits = keras.layers.Dense(
        classes,
        kernel_initializer=initializers.gaussian(seed, "output"),
        name="output",
    )(x)
    return keras.Model(image, logits, name="vgg_19")

"""VGG-19, adapted to CIFAR-10."""

import keras

from tf_lottery.models import initializers, inputs, normalization

GROUPS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Filters and number of the convolutions of each group."""


def vgg_19(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int = 0,
) -> keras.Model:
    """Returns VGG-19 for CIFAR-10 (Liu et al. 2019), untrained.

    Sixteen 3x3 convolutions in five groups, max-pooling between the groups,
    the mean over the image, an output of logits (Frankle & Carbin 2019, Fig.
    2 and App. I.2, after Liu et al., arXiv:1810.05270): 20,024,000 weights,
    20,018,880 of them in convolutions. The paper prunes only these:
    `allocation="global", rates={"output": 0}`.

    Every convolution is followed by batch normalization and a ReLU;
    `normalization.convolution` lists the differences from open_lth. The mean
    is over all remaining pixels, for 32 x 32 images 2 x 2, as in Liu et al.
    and Frankle's open_lth.

    Args:
        input_shape: (rows, columns, channels), rows and columns >= 16.
        classes: Number of logits.
        seed: Seed of the initial weights, >= 0.

    Raises:
        UserError: `input_shape` is not an image of that size.
    """
    inputs.require_image("vgg_19", input_shape, halvings=len(GROUPS) - 1)
    x = image = keras.Input(input_shape, name="image")
    built = 0
    for group, (filters, count) in enumerate(GROUPS, 1):
        for index in range(built + 1, built + count + 1):
            x = normalization.convolution(x, filters, seed, f"conv{index}")
            x = keras.layers.ReLU(name=f"conv{index}_relu")(x)
        built += count
        if group < len(GROUPS):
            x = keras.layers.MaxPooling2D(name=f"pool{group}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    logits = keras.layers.Dense(
        classes,
        kernel_initializer=initializers.gaussian(seed, "output"),
        name="output",
    )(x)
    return keras.Model(image, logits, name="vgg_19")

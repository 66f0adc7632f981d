"""The paper's "Resnet-18": a ResNet-20 for CIFAR-10."""

import keras

from tf_lottery.models import initializers, inputs, normalization


def resnet_18(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int = 0,
) -> keras.Model:
    """Returns the network that the paper calls Resnet-18, untrained.

    It has 20 layers (He et al. 2016, arXiv:1512.03385, Sec. 4.2): a 3x3
    convolution, three stages of three blocks of two, with 16, 32 and 64
    filters, the mean over the image, an output of logits (Frankle & Carbin
    2019, Sec. 4 and App. I.3). 270,896 weights: 267,696 in 3x3 convolutions,
    2,560 in shortcuts, 640 in the output. The paper prunes only the 3x3
    convolutions: `allocation="global", rates={"*shortcut*": 0, "output": 0}`.

    The paper's total of 271,000 (Sec. 4) counts weights; 274,000 (Fig. 2)
    counts all variables, 274,042 with normalized shortcuts and moving
    statistics.

    Where a stage halves the image, its shortcut is a normalized 1x1
    convolution, as in Frankle's open_lth and as the 2,560 weights imply; He et
    al. pad the shortcut for CIFAR-10, without weights. Convolutions are
    normalized by `normalization.convolution`, which lists the differences from
    open_lth. A ReLU follows the first convolution of a block, and the sum.

    Args:
        input_shape: (rows, columns, channels).
        classes: Number of logits.
        seed: Seed of the initial weights, >= 0.

    Raises:
        UserError: `input_shape` is not an image.
    """
    inputs.require_image("resnet_18", input_shape)
    image = keras.Input(input_shape, name="image")
    x = normalization.convolution(image, 16, seed, "conv1")
    x = keras.layers.ReLU(name="conv1_relu")(x)
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in (1, 2, 3):
            x = _block(x, filters, seed, f"stage{stage}_block{block}")
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    logits = keras.layers.Dense(
        classes,
        kernel_initializer=initializers.gaussian(seed, "output"),
        name="output",
    )(x)
    return keras.Model(image, logits, name="resnet_18")


def _block(
    x: keras.KerasTensor, filters: int, seed: int, name: str
) -> keras.KerasTensor:
    """Returns a residual block; it halves the image if filters increase."""
    strides = 1 if x.shape[-1] == filters else 2
    y = normalization.convolution(
        x, filters, seed, f"{name}_conv1", strides=strides
    )
    y = keras.layers.ReLU(name=f"{name}_conv1_relu")(y)
    y = normalization.convolution(y, filters, seed, f"{name}_conv2")
    if strides > 1:
        x = normalization.convolution(
            x, filters, seed, f"{name}_shortcut", size=1, strides=strides
        )
    return keras.layers.ReLU(name=f"{name}_relu")(
        keras.layers.Add(name=f"{name}_add")([x, y])
    )

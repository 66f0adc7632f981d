"""Random augmentation of training images."""

import dataclasses

import tensorflow as tf

from tf_lottery.core import registry
from tf_lottery.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image, redrawn at every step.

    Attributes:
        flip: Whether to mirror it left to right, with probability 1/2.
        pad: Pixels of zero padding on every side, >= 0, before a crop of the
            original size at a random position. 0 does not crop.

    Raises:
        UserError: `pad` is not a whole number of 0 or more.
    """

    flip: bool = False
    pad: int = 0

    def __post_init__(self) -> None:
        whole = isinstance(self.pad, int) and not isinstance(self.pad, bool)
        if not whole or self.pad < 0:
            raise UserError(
                "`pad` must be a whole number of pixels, 0 or more; got "
                f"{self.pad!r}."
            )


AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "flip": Augmentation(flip=True),
    "flip_crop": Augmentation(flip=True, pad=4),
}
"""Every augmentation by name.

Frankle & Carbin 2019 train ResNet-18 and VGG-19 on CIFAR-10 with
`"flip_crop"` (I.2, I.3; the setting of He et al. 2016, arXiv:1512.03385, Sec.
4.2), and state none for LeNet and Conv-2, -4 and -6.
"""


def get(name: str) -> Augmentation | None:
    """Returns an augmentation by name; `"none"` returns `None`.

    Args:
        name: A name of `AUGMENTATIONS`.

    Raises:
        UserError: The name is unknown; the message lists the known ones.
    """
    return registry.get(AUGMENTATIONS, name, "augmentation")


def augment(
    images: tf.Tensor,
    seed: tf.Tensor,
    augmentation: Augmentation | None,
    part: int | tf.Tensor = 0,
    parts: int = 1,
) -> tf.Tensor:
    """Returns a batch of images, each flipped and cropped at random.

    A pure function of its arguments: results are equal with and without XLA, on
    every device, and in `tf.vectorized_map` over seeds (TensorFlow cannot
    vectorize its generator: it draws one seed after the other and prints a
    warning). An image's draw depends only on the seed and on its position in
    the batch, not on the size of the batch. Flips are the same with and without
    a crop.

    Padding is zero in the units of `images`: the mean color if they are
    standardized, as in He et al. 2016. open_lth pads with black, before it
    standardizes.

    Args:
        images: `[batch, height, width, channels]`, of any type, every
            dimension static.
        seed: int32 `[2]`, such as the run's seed and the step.
        augmentation: The changes to apply. `None` returns the images.
        part: Index of these images among the parts of a larger batch, >= 0.
        parts: Number of parts of that batch, all of the same size, >= 1.

    Returns:
        Images of the same shape and type.
    """
    if augmentation is None:
        return images
    batch, height, width, channels = images.shape
    pad = augmentation.pad
    # Philox by name: TensorFlow's default depends on the device. Integers, not
    # floats: XLA draws different floats (TensorFlow 2.21).
    bits = tf.random.stateless_uniform(
        [parts, batch, 3], seed, None, None, tf.uint32, alg="philox"
    )[part]
    # Biased by up to 1 in 10**7: 2**32 is no multiple of 2 * pad + 1.
    offsets = tf.cast(bits[:, :2] % (2 * pad + 1), tf.int32)
    rows = offsets[:, :1] + tf.range(height)  # [batch, height]
    columns = tf.range(width)[tf.newaxis]
    if augmentation.flip:
        mirrored = bits[:, 2:] % 2 == 1  # [batch, 1]
        columns = tf.where(mirrored, width - 1 - columns, columns)
    columns = offsets[:, 1:2] + columns  # [batch, width]
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    pixels = tf.reshape(padded, [batch, -1, channels])
    indices = (
        rows[:, :, tf.newaxis] * (width + 2 * pad) + columns[:, tf.newaxis]
    )
    return tf.gather(pixels, indices, batch_dims=1)

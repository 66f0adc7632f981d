"""This module knows how training images are varied at random."""

import dataclasses

import tensorflow as tf

from tf_lottery.core import registry
from tf_lottery.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to each training image, anew every time it is seen.

    Attributes:
        flip: Mirror it left to right, with probability 1/2.
        pad: Pixels of zeros around it, >= 0, before a crop of the image's own
            size is cut at a random place. 0: no crop.

    Raises:
        ValueError: `pad` is no whole number of 0 or more.
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
    """Returns an augmentation by name; `"none"` is None.

    Args:
        name: A name of `AUGMENTATIONS`.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.
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

    A pure function of its arguments: the same numbers with and without XLA,
    on every device, and in `tf.vectorized_map` over seeds (which draws for
    one seed after the other, as TensorFlow cannot vectorise its generator,
    and says so in a warning). An image's draw depends on the seed and on its
    place in the batch alone, not on the size of the batch; a flip is drawn
    alike with and without a crop.

    The zeros around an image are zeros of `images`: the mean colour if these
    are standardised, as He et al. 2016 have it. open_lth pads before it
    standardises, with black.

    Args:
        images: `[batch, height, width, channels]`, of any type, every
            dimension static.
        seed: int32 `[2]`, such as the run's seed and the step.
        augmentation: What to do. None: nothing.
        part: Which part of a larger batch the images are, >= 0.
        parts: How many such parts, of the same size, make up that batch.

    Returns:
        Images of the same shape and type.
    """
    if augmentation is None:
        return images
    batch, height, width, channels = images.shape
    pad = augmentation.pad
    # Philox by name: TensorFlow's own choice depends on the device. Bits, not
    # fractions: of the latter XLA draws others (TensorFlow 2.21).
    bits = tf.random.stateless_uniform(
        [parts, batch, 3], seed, None, None, tf.uint32, alg="philox"
    )[part]
    # Even to 1 in 10**7, as 2**32 is no multiple of the number of places.
    places = tf.cast(bits[:, :2] % (2 * pad + 1), tf.int32)
    rows = places[:, :1] + tf.range(height)  # [batch, height]
    columns = tf.range(width)[tf.newaxis]
    if augmentation.flip:
        mirrored = bits[:, 2:] % 2 == 1  # [batch, 1]
        columns = tf.where(mirrored, width - 1 - columns, columns)
    columns = places[:, 1:2] + columns  # [batch, width]
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    pixels = tf.reshape(padded, [batch, -1, channels])
    wanted = rows[:, :, tf.newaxis] * (width + 2 * pad) + columns[:, tf.newaxis]
    return tf.gather(pixels, wanted, batch_dims=1)

"""Checks of input shapes."""

from typing import Any

import numpy as np

from tf_lottery.core.errors import UserError


def require(name: str, shape: Any) -> None:
    """Raises an error unless `shape` is the shape of one example.

    Args:
        name: The network's name, for the message.
        shape: One whole number per axis, each 1 or more.

    Raises:
        UserError: It is anything else.
    """
    if not _is_shape(shape):
        raise UserError(
            f"`input_shape` of {name} must be whole numbers of 1 or more, one "
            f"per axis of an example; got {shape!r}. Leave out the batch axis, "
            "such as (28, 28, 1)."
        )


def require_image(name: str, shape: Any, halvings: int = 0) -> None:
    """Raises an error unless `shape` is that of a large enough image.

    Args:
        name: The network's name, for the message.
        shape: (rows, columns, channels).
        halvings: Number of poolings that halve rows and columns, >= 0.

    Raises:
        UserError: It is not an image, or a pooling would leave no pixel.
    """
    if not _is_shape(shape) or len(shape) != 3:
        raise UserError(
            f"`input_shape` of {name} must be (rows, columns, channels), whole "
            f"numbers of 1 or more; got {shape!r}. Grey images have a channel "
            "too: (28, 28, 1). For examples that are not images, use "
            "lenet_300_100."
        )
    least = 2**halvings
    if min(shape[:2]) < least:
        raise UserError(
            f"`input_shape` of {name} must have {least} rows and {least} "
            f"columns or more, or its poolings leave nothing; got {shape!r}. "
            "Pad or resize the images, or take a network with fewer poolings."
        )


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple | list) and all(
        isinstance(size, int | np.integer) and size >= 1 for size in shape
    )

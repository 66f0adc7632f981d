"""This module knows which plain Keras model an export is made of."""

from typing import TypeAlias

import keras

from tf_lottery import masking
from tf_lottery.tickets import Ticket

Source: TypeAlias = Ticket | keras.Model


def plain(source: Source, rewound: bool = False) -> keras.Model:
    """Returns a new model of stock layers, pruned weights at zero.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        rewound: Of a ticket, take the weights it restarts from, mask ⊙ θk,
            and not the trained ones.

    Raises:
        ValueError: The ticket holds no trained weights, or the model is
            subclassed: it has no graph of layers to read.
    """
    if isinstance(source, Ticket):
        source = source.build(trained=not rewound)
    model = masking.strip_masks(source)
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"Model {model.name!r} is subclassed ({type(model).__qualname__}) "
            "and has no graph to export. Call it on a keras.Input, and give "
            "keras.Model(inputs, outputs)."
        )
    return model

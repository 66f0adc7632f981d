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
        ValueError: The ticket holds no trained weights.
    """
    if isinstance(source, Ticket):
        source = source.model(at="start" if rewound else "early_stop")
    return masking.strip_masks(source)


def graph(source: Source, rewound: bool = False) -> keras.Model:
    """Returns what `plain` does, if it has a graph of layers to read.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        rewound: As for `plain`.

    Raises:
        ValueError: As `plain`, or the model is subclassed.
    """
    model = plain(source, rewound)
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"Model {model.name!r} is subclassed ({type(model).__qualname__}) "
            "and has no graph to export. Call it on a keras.Input, and give "
            "keras.Model(inputs, outputs)."
        )
    return model

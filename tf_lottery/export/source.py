"""Which Keras model an export is made of, and how it is called."""

import dataclasses
from typing import Any, TypeAlias

import keras

from tf_lottery import masking
from tf_lottery.core.errors import UserError
from tf_lottery.export import signatures
from tf_lottery.lottery.ticket import Ticket

Source: TypeAlias = Ticket | keras.Model


@dataclasses.dataclass(frozen=True)
class Network:
    """A model to write, and the one that its file is compared with.

    Attributes:
        original: The model as it was given, with masked layers or without.
        model: The one that is written: a copy of stock layers, pruned weights
            at zero; `original` itself where it has no masked layer, or where
            Keras cannot copy it.
        signature: The names of its inputs and outputs.
        x: Examples to compare on, if the caller gave some.
    """

    original: keras.Model
    model: keras.Model
    signature: signatures.Signature
    x: Any = None


def network(source: Source, rewound: bool = False, x: Any = None) -> Network:
    """Returns the model to write, with the names of its inputs and outputs.

    A model that Keras cannot copy (subclassed without `get_config`, with a
    `Lambda`) is written as it is.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        rewound: Of a ticket, take the weights it restarts from, mask ⊙ θk,
            and not the trained ones.
        x: Examples to compare on, as the model takes them.

    Raises:
        ValueError: The ticket holds no trained weights, or is of a subclassed
            model, or it is not known what a subclassed model takes.
    """
    original = model_of(source, rewound)
    model = original
    if masking.is_masked(original):
        try:
            model = masking.strip_masks(original)
        except ValueError:
            model = original
    return Network(original, model, signatures.signature_of(original, x), x)


def model_of(source: Source, rewound: bool = False) -> keras.Model:
    """Returns the model itself; of a ticket, the trained one."""
    if not isinstance(source, Ticket):
        return source
    if source.architecture is None and source.source is None:
        raise UserError(
            "This ticket's model cannot be rebuilt from the ticket: it is "
            "subclassed, or has a Lambda or another layer that Keras does not "
            "make again. Give it, built: "
            "tfl.export.saved_model(ticket.model(model), path)."
        )
    return source.model(at="start" if rewound else "early_stop")


def plain(source: Source, rewound: bool = False) -> keras.Model:
    """Returns a new model of stock layers, pruned weights at zero.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        rewound: Of a ticket, take the weights it restarts from, mask ⊙ θk,
            and not the trained ones.

    Raises:
        ValueError: The ticket holds no trained weights, or is of a subclassed
            model; or Keras cannot copy the model.
    """
    return masking.strip_masks(model_of(source, rewound))

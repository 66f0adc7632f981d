"""The Keras model that an export writes, and its signature."""

import dataclasses
from typing import Any, TypeAlias

import keras

from tf_lottery import masking
from tf_lottery.core.errors import UserError
from tf_lottery.export import signatures
from tf_lottery.lottery.ticket import Ticket

TicketOrModel: TypeAlias = Ticket | keras.Model


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """A model to write, and the model to compare its file with.

    Attributes:
        original: The model that the file is compared with.
        model: The model that is written: stock layers, pruned weights at
            zero. `original` itself if it has no masked layer, or if Keras
            cannot copy it.
        signature: The names of its inputs and outputs.
        x: Examples to compare on, from the caller; None for random ones.
    """

    original: keras.Model
    model: keras.Model
    signature: signatures.Signature
    x: Any = None

    @classmethod
    def of(
        cls, source: TicketOrModel, rewound: bool = False, x: Any = None
    ) -> "ExportedModel":
        """Returns the model to write.

        A model that Keras cannot copy (subclassed without `get_config`, with
        a `Lambda`) is written as it is.

        Args:
            source: A ticket, or a Keras model with masked layers or without.
            rewound: Whether to export the weights that a ticket restarts
                from, mask ⊙ θk, instead of the trained ones.
            x: Examples to compare on, in the structure of the model's inputs.

        Raises:
            UserError: The ticket has no trained weights, or its model cannot
                be rebuilt, or the inputs of a subclassed model are not known.
        """
        if isinstance(source, Ticket):
            original = model = plain(source, rewound)
        else:
            original = model = source
            if masking.is_masked(original):
                try:
                    model = masking.strip_masks(original)
                except UserError:
                    model = original
        signature = signatures.signature_of(original, x)
        return cls(original, model, signature, x)


def plain(source: TicketOrModel, rewound: bool = False) -> keras.Model:
    """Returns a new model of stock layers, pruned weights at zero.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        rewound: Whether to take the weights that a ticket restarts from,
            mask ⊙ θk, instead of the trained ones.

    Raises:
        UserError: The ticket has no trained weights, or Keras cannot rebuild
            or copy the model.
    """
    if not isinstance(source, Ticket):
        return masking.strip_masks(source)
    if source.architecture is None and source.source is None:
        raise UserError(
            "This ticket's model cannot be rebuilt from the ticket: it is "
            "subclassed, or has a Lambda or another layer that Keras does not "
            "make again. Give it, built: "
            "tfl.export.saved_model(ticket.model(model), path)."
        )
    return source.plain_model("start" if rewound else "early_stop")

"""A lottery ticket: masks, and the state that training restarts from."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import keras

from tf_lottery import masking
from tf_lottery.core import registry
from tf_lottery.core.errors import UserError, one_line
from tf_lottery.core.masks import Masks
from tf_lottery.lottery import rewinding, ticket_file
from tf_lottery.training import State
from tf_lottery.training.state import Arrays


@dataclasses.dataclass(frozen=True)
class Ticket:
    """Masks, and the state that training restarts from.

    Attributes:
        level: Pruning rounds so far, >= 0; 0 is the dense network.
        masks: Kernel path to mask; True where a weight is kept.
        origin: The state at step k that training restarts from, before
            masking. In a ticket from a file, pruned values are zero.
        variant: `"ticket"`, or the name of the control that made it.
        architecture: The Keras model as JSON, with the state of its layers
            that is not in variables, such as vocabularies; None for a model
            that Keras cannot rebuild, such as most subclassed ones.
        metrics: Metrics of the training of this ticket, if it was trained.
        trained: Path to value of the model's variables at the end of
            training; None before training. Not in the ticket's file.
        best: Path to value at the early-stop step, by which the ticket is
            judged; None without validation data, or if the early-stop step
            is the last. Not in the ticket's file.
        provenance: Seed, settings and versions that the ticket comes from.
        data_seed: Seed of the order of the training data; None for that of
            the search. Not in the ticket's file.
        dense_size: The number of maskable weights of the dense network; None
            for the size of `masks`. Not in the ticket's file.
        dense_trained: Path to value of the dense network's variables at the
            end of training, to compare with. Not in the ticket's file.
        source: The model that was searched, in the process that searched it;
            None elsewhere. Not in the ticket's file.
    """

    level: int
    masks: Masks
    origin: State
    variant: str = "ticket"
    architecture: str | None = None
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trained: Arrays | None = None
    best: Arrays | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data_seed: int | None = None
    dense_size: int | None = None
    dense_trained: Arrays | None = None
    source: keras.Model | None = dataclasses.field(
        default=None, repr=False, compare=False
    )

    @property
    def density(self) -> float:
        """The fraction of the dense network's weights kept, in (0, 1]."""
        return self.masks.kept / (self.dense_size or self.masks.size)

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1 - self.density

    @property
    def start(self) -> State:
        """The state that training restarts from, mask ⊙ θk."""
        return rewinding.rewind(self.origin, self.masks)

    def __repr__(self) -> str:
        return (
            f"Ticket(level {self.level}, {self.variant!r}, "
            f"{self.masks.kept:,} of {self.dense_size or self.masks.size:,} "
            f"weights kept, density {self.density:.4g}, restarts from step "
            f"{self.origin.step})"
        )

    def _repr_html_(self) -> str:
        metrics = "; ".join(
            f"{name.replace('_', ' ')} "
            + (f"{value:,}" if type(value) is int else f"{value:.4g}")
            for name, value in self.metrics.items()
            if isinstance(value, int | float)
        )
        notes = [metrics] if metrics else []
        return self.masks.table(repr(self), notes)._repr_html_()

    def template(self) -> keras.Model:
        """Returns a model of this ticket's architecture.

        Returns:
            `source` itself if there is one, with its current weights;
            otherwise a new model with fresh weights. It has no masks of this
            ticket.

        Raises:
            UserError: The model was subclassed, or has classes that Keras
                does not know in this process.
        """
        if self.source is not None:
            return self.source
        if self.architecture is None:
            raise UserError(
                "This ticket's model cannot be rebuilt from the ticket: Keras "
                "could not write it as JSON and read it again, as for most "
                "subclassed models, for lambdas, and for layers without "
                "get_config. Give one: ticket.build(model), "
                "ticket.model(model)."
            )
        try:
            model = masking.rebuilt(self.architecture)
            if not isinstance(model, keras.Model):
                raise UserError(f"it is a {type(model).__qualname__}")
        except Exception as error:  # noqa: BLE001 - a stranger's text
            reason = one_line(error, 200)
            raise UserError(
                "This ticket's architecture cannot be rebuilt here: "
                f"{reason.rstrip('.')}. Register the classes of your own that "
                "it names, or give a model: ticket.build(model)."
            ) from None
        return model

    def build(
        self, model: keras.Model | None = None, copy: bool = True
    ) -> keras.Model:
        """Returns a masked Keras model at mask ⊙ θk, ready for `fit`.

        Pruned weights stay zero, whatever trains the model.

        Args:
            model: A built model of the same architecture; it is not changed.
                None rebuilds the model from `architecture`.
            copy: False masks and fills `model` itself, for subclassed models
                that Keras cannot copy.

        Raises:
            UserError: The ticket does not fit the model; the message names
                the kernel and the shapes.
        """
        return self.model(model, "start", copy)

    def model(
        self,
        model: keras.Model | None = None,
        at: str = "early_stop",
        copy: bool = True,
    ) -> keras.Model:
        """Returns the trained network with masked layers.

        Args:
            model: A built model of the same architecture; it is not changed.
                None rebuilds the model from `architecture`.
            at: `"early_stop"`, the weights at the step of minimum validation
                loss, by which tickets are judged, or at the end without
                validation data; `"end"`, those at the end of training;
                `"start"`, those that the ticket restarts from.
            copy: False masks and fills `model` itself, for subclassed models
                that Keras cannot copy.

        Raises:
            UserError: The ticket has no trained weights, or does not fit the
                model.
        """
        weights = self._weights(at)
        if model is None:
            # A copy, whose variables have the paths of a model just built.
            model, copy = self.template(), True
        # Raise before `model` itself is masked.
        kernels = masking.kernels(model, include=list(self.masks))
        _require_fit(weights, model)
        self.masks.require({p: k.variable.shape for p, k in kernels.items()})
        masked = masking.mask_model(model, list(self.masks), copy=copy)
        self.fill(masked, weights)
        masking.set_masks(masked, self.masks)
        return masked

    def plain_model(self, at: str = "early_stop") -> keras.Model:
        """Returns a new model without masked layers, pruned weights at zero.

        Args:
            at: `"early_stop"`, the weights at the step of minimum validation
                loss, by which tickets are judged, or at the end without
                validation data; `"end"`, those at the end of training;
                `"start"`, those that the ticket restarts from.

        Raises:
            UserError: The ticket has no trained weights, or its model cannot
                be rebuilt.
        """
        weights = rewinding.apply_masks(self._weights(at), self.masks)
        model = self.template()
        if self.source is not None:
            model = masking.clone_model(model)
        model = masking.strip_masks(model, copy=False)
        self.fill(model, weights)
        return model

    def _weights(self, at: str) -> Arrays:
        weights = registry.get(
            {
                "early_stop": self.trained if self.best is None else self.best,
                "end": self.trained,
                "start": self.start.weights,
            },
            at,
            "value of `at`",
        )
        if weights is None:
            raise UserError(
                "This ticket holds no trained weights: a ticket's file keeps "
                "only those it restarts from. Train ticket.build() with fit."
            )
        return weights

    def fill(self, model: keras.Model, weights: Arrays | None = None) -> None:
        """Assigns weights to a model of this ticket's architecture.

        Layer state outside variables, such as vocabularies, is restored too
        if the ticket has its architecture.

        Args:
            model: The model to fill.
            weights: Path to value of all variables; None for mask ⊙ θk.

        Raises:
            UserError: Names or shapes differ, and nothing is assigned then;
                or a layer refuses its vocabulary.
        """
        weights = self.start.weights if weights is None else weights
        _require_fit(weights, model)
        if self.architecture is not None:
            masking.restore(model, masking.layer_states(self.architecture))
        for path, variable in masking.variables_by_path(model).items():
            variable.assign(weights[path])
        masking.derive(model)

    def save(self, path: str | os.PathLike[str], values: bool = True) -> None:
        """Writes the ticket to one file, atomically.

        Masks are stored as the gaps between surviving weights, in few more
        bits than their entropy; of masked kernels and their slots, only the
        surviving values are stored. `numpy.load` reads the file.

        Args:
            path: The file.
            values: Whether to store all values. False stores only the seed
                of each kernel that its initializer can draw again, bit for
                bit, which makes the file several times smaller. Another
                version of Keras or TensorFlow may draw other values; `load`
                then refuses the file.

        Raises:
            UserError: `values` is False and no kernel can be drawn again: it
                was rewound to a later step, or its initializer has no seed.
        """
        ticket_file.save(self, path, values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ticket":
        """Returns the ticket in a file.

        The file may come from a stranger: nothing in it is executed, and its
        memory is bounded. Its arrays may take `array_file.allowance` bytes as
        stored, its masks as many, and its kernels and slots with pruned
        values filled in 16 times as many.

        Args:
            path: A file that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            UserError: It is no ticket, or damaged, or of another version, or
                holds a seed from which this Keras draws other weights.
        """
        return cls(**ticket_file.load(path))


def _require_fit(weights: Arrays, model: keras.Model) -> None:
    """Raises if weights and a model's variables differ in names or shapes."""
    variables = masking.variables_by_path(model)
    ticket_only = weights.keys() - variables.keys()
    model_only = variables.keys() - weights.keys()
    for path in sorted(ticket_only | model_only):
        owner, others = "model", ticket_only
        if path in ticket_only:
            owner, others = "ticket", model_only
        raise UserError(
            f"The ticket does not fit model {model.name!r}: only the {owner} "
            f"has {path!r}.{registry.nearest(path, sorted(others))}"
        )
    for path, variable in variables.items():
        if weights[path].shape != tuple(variable.shape):
            raise UserError(
                f"The ticket does not fit model {model.name!r}: {path!r} "
                f"has shape {weights[path].shape} in the ticket and "
                f"{tuple(variable.shape)} in the model."
            )

"""This module knows what a lottery ticket is, and its file."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_lottery import archive, lookup, masking, rewinding
from tf_lottery.masks import Masks
from tf_lottery.training import State
from tf_lottery.training.state import Arrays

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Ticket:
    """Masks, and the state they restart from.

    Attributes:
        level: Pruning rounds so far; 0 is the dense network.
        masks: What is kept.
        origin: The state at step k that training restarts from, before
            masking. Read from a file, it holds only what survives.
        variant: `"ticket"`, or the name of the control that made it.
        architecture: The Keras model as JSON; None for a subclassed one.
        metrics: Figures of the ticket's own training, once trained.
        trained: Path to value of the model's variables at the end of that
            training. Not part of the ticket's file.
        provenance: Where it comes from: seed, settings, versions.
        data_seed: Seed of the order of the data that it is trained on; None:
            that of its search. Not part of the file.
        dense_size: How many maskable weights the dense network has. None: as
            many as the masks have places. Not part of the file.
        dense_trained: Path to value of the dense network's variables at the
            end of training, to hold tickets of a search against. Not part of
            the file.
    """

    level: int
    masks: Masks
    origin: State
    variant: str = "ticket"
    architecture: str | None = None
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trained: Arrays | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data_seed: int | None = None
    dense_size: int | None = None
    dense_trained: Arrays | None = None

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
        """What training restarts from: mask ⊙ θk."""
        return rewinding.rewind(self.origin, self.masks)

    def template(self) -> keras.Model:
        """Returns the plain model that this ticket is of, without its weights.

        Raises:
            ValueError: It was subclassed: the ticket cannot rebuild it.
        """
        if self.architecture is None:
            raise ValueError(
                "This ticket's model is subclassed and cannot be rebuilt from "
                "the ticket. Give one: ticket.build(model)."
            )
        return keras.models.model_from_json(self.architecture)

    def build(
        self,
        model: keras.Model | None = None,
        trained: bool = False,
        copy: bool = True,
    ) -> keras.Model:
        """Returns a masked Keras model at mask ⊙ θk, ready for `fit`.

        Whatever trains it, pruned weights take no part.

        Args:
            model: A built model of the same architecture, which stays as it
                is. None: rebuilt from the architecture that the ticket holds.
            trained: Take the trained weights instead of those rewound to.
            copy: False fills and masks `model` itself, as `mask_model` says.

        Raises:
            ValueError: The ticket does not fit the model; the message names
                the kernel and the shapes. Or trained weights are asked for
                and the ticket holds none.
        """
        if trained and self.trained is None:
            raise ValueError(
                "This ticket holds no trained weights: a ticket's file keeps "
                "only those it restarts from. Train ticket.build() with fit."
            )
        weights = self.trained if trained else self.start.weights
        masked = masking.mask_model(
            self.template() if model is None else model,
            include=list(self.masks),
            copy=copy,
        )
        self.fill(masked, weights)
        masking.set_masks(masked, self.masks)
        return masked

    def fill(self, model: keras.Model, weights: Arrays | None = None) -> None:
        """Assigns this ticket's weights to a model of its architecture.

        Args:
            model: The model to fill.
            weights: Path to value; None: mask ⊙ θk.

        Raises:
            ValueError: Names or shapes differ. Nothing is assigned then.
        """
        weights = self.start.weights if weights is None else weights
        variables = masking.variables_by_path(model)
        for path in weights.keys() ^ variables.keys():
            where = "the ticket" if path in weights else "the model"
            raise ValueError(
                f"The ticket does not fit model {model.name!r}: only {where} "
                f"has {path!r}.{lookup.nearest(path, variables)}"
            )
        for path, variable in variables.items():
            if weights[path].shape != tuple(variable.shape):
                raise ValueError(
                    f"The ticket does not fit model {model.name!r}: {path!r} "
                    f"has shape {weights[path].shape} in the ticket and "
                    f"{tuple(variable.shape)} in the model."
                )
        for path, variable in variables.items():
            variable.assign(weights[path])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ticket to one file, whole or not at all.

        Masks are packed bits; of masked kernels and their slots only the
        values that survive are stored. `numpy.load` reads the file.
        """
        arrays = {f"masks/{p}": np.packbits(m) for p, m in self.masks.items()}
        arrays |= pack("weights", self.start.weights, self.masks)
        arrays |= pack("slots", self.start.slots, self.masks)
        header = {
            "format": _FORMAT,
            "level": self.level,
            "variant": self.variant,
            "step": self.origin.step,
            "shapes": {p: list(s) for p, s in self.masks.shapes.items()},
            "architecture": self.architecture,
            "metrics": dict(self.metrics),
            "provenance": dict(self.provenance),
        }
        archive.write(path, "ticket", header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ticket":
        """Returns the ticket that a file holds.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no ticket, or damaged, or of a later version.
        """
        header, arrays = archive.read(path, "ticket")
        if header.get("format") != _FORMAT:
            raise ValueError(
                f"{str(path)!r} is a ticket of format {header.get('format')}; "
                f"this version of tf_lottery reads format {_FORMAT}. Update "
                "tf_lottery."
            )
        try:
            masks = _unpack_masks(header["shapes"], arrays)
            origin = State(
                header["step"],
                unpack("weights", arrays, masks),
                unpack("slots", arrays, masks),
            )
            fields = ("level", "variant", "architecture", "metrics")
            known = {name: header[name] for name in fields}
            return cls(
                masks=masks,
                origin=origin,
                provenance=header["provenance"],
                **known,
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"{str(path)!r} is no ticket file, or a damaged one: {error}."
            ) from None


def pack(kind: str, arrays: Arrays, masks: Masks) -> dict[str, np.ndarray]:
    """Returns arrays as `kind/name`; of masked ones only what survives.

    The surviving values of a kernel, or of a slot of one, go under
    `kind.kept/name`, in the order of the flat index.
    """
    packed = {}
    for name, array in arrays.items():
        mask = _mask_of(name, masks)
        if mask is None or array.shape != mask.shape:
            packed[f"{kind}/{name}"] = np.asarray(array)
        else:
            packed[f"{kind}.kept/{name}"] = array[mask]
    return packed


def unpack(kind: str, arrays: Arrays, masks: Masks) -> dict[str, np.ndarray]:
    """Returns what `pack` packed, pruned values at zero."""
    unpacked = {}
    for key, array in arrays.items():
        if key.startswith(f"{kind}/"):
            unpacked[key.removeprefix(f"{kind}/")] = array
        elif key.startswith(f"{kind}.kept/"):
            name = key.removeprefix(f"{kind}.kept/")
            mask = _mask_of(name, masks)
            if mask is None or array.shape != (int(mask.sum()),):
                raise ValueError(f"{key} does not fit its mask")
            unpacked[name] = np.zeros(mask.shape, array.dtype)
            unpacked[name][mask] = array
    return unpacked


def _mask_of(name: str, masks: Masks) -> np.ndarray | None:
    """Returns the mask of a kernel, or of a slot of one."""
    for path, mask in masks.items():
        if f"{name}/".startswith(f"{path}/"):
            return mask
    return None


def _unpack_masks(shapes: Mapping[str, Any], arrays: Arrays) -> Masks:
    masks = {}
    for path, shape in shapes.items():
        bits = arrays[f"masks/{path}"]
        size = int(np.prod(shape, dtype=np.int64))
        if bits.dtype != np.uint8 or bits.shape != (-(-size // 8),):
            raise ValueError(f"the mask of {path!r} has another size")
        masks[path] = (
            np.unpackbits(bits, count=size).reshape(shape).astype(bool)
        )
    return Masks(masks)

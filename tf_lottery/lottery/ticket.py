"""This module knows what a lottery ticket is, and its file."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_lottery import masking
from tf_lottery.core import registry
from tf_lottery.core.errors import UserError, one_line
from tf_lottery.core.masks import Masks
from tf_lottery.core.storage import array_file, mask_codec
from tf_lottery.lottery import rewinding
from tf_lottery.lottery import seeded_weights as drawing
from tf_lottery.training import State
from tf_lottery.training.state import Arrays

_FORMAT = 1
"""Version of the file's layout; a file of another version is refused."""

_LONG = 2**20
"""An architecture of more bytes, with its vocabularies, is no header's."""

_DENSE = 16
"""Kernels and their slots may unpack to so many times `archive.allowance`.

A mask takes a byte a weight; a float32 weight and three slots take 16.
"""


@dataclasses.dataclass(frozen=True)
class Ticket:
    """Masks, and the state they restart from.

    Attributes:
        level: Pruning rounds so far; 0 is the dense network.
        masks: What is kept.
        origin: The state at step k that training restarts from, before
            masking. Read from a file, it holds only what survives.
        variant: `"ticket"`, or the name of the control that made it.
        architecture: The Keras model as JSON, and what its layers keep beside
            their variables, such as vocabularies; None for a model that Keras
            cannot rebuild, such as most subclassed ones.
        metrics: Figures of the ticket's own training, once trained.
        trained: Path to value of the model's variables at the end of that
            training. Not part of the ticket's file.
        best: The same at its early-stop step, by which it is judged; None
            without validation data, or where that is the end. Not part of
            the ticket's file.
        provenance: Where it comes from: seed, settings, versions.
        data_seed: Seed of the order of the data that it is trained on; None:
            that of its search. Not part of the file.
        dense_size: How many maskable weights the dense network has. None: as
            many as the masks have places. Not part of the file.
        dense_trained: Path to value of the dense network's variables at the
            end of training, to hold tickets of a search against. Not part of
            the file.
        source: The model that was searched, in the process that searched it.
            Not part of the file.
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
        """What training restarts from, mask ⊙ θk."""
        return rewinding.rewind(self.origin, self.masks)

    def __repr__(self) -> str:
        return (
            f"Ticket(level {self.level}, {self.variant!r}, "
            f"{self.masks.kept:,} of {self.dense_size or self.masks.size:,} "
            f"weights kept, density {self.density:.4g}, restarts from step "
            f"{self.origin.step})"
        )

    def _repr_html_(self) -> str:
        figures = {
            name.replace("_", " "): value
            for name, value in self.metrics.items()
            if isinstance(value, int | float)
        }
        known = "; ".join(
            f"{name} {value:,}" if type(value) is int else f"{name} {value:.4g}"
            for name, value in figures.items()
        )
        notes = [known] if known else []
        return self.masks.table(repr(self), notes)._repr_html_()

    def template(self) -> keras.Model:
        """Returns the plain model that this ticket is of, without its weights.

        Raises:
            ValueError: It was subclassed, or holds classes that are not known
                here: the ticket cannot rebuild it.
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
                raise TypeError(f"it is a {type(model).__qualname__}")
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

        Whatever trains it, pruned weights take no part.

        Args:
            model: A built model of the same architecture, which stays as it
                is. None: rebuilt from the architecture that the ticket holds.
            copy: False fills and masks `model` itself, as `mask_model` says.

        Raises:
            ValueError: The ticket does not fit the model; the message names
                the kernel and the shapes.
        """
        return self.model(model, "start", copy)

    def model(
        self,
        model: keras.Model | None = None,
        at: str = "early_stop",
        copy: bool = True,
    ) -> keras.Model:
        """Returns the trained network, masked, as it was judged.

        Args:
            model: As for `build`.
            at: `"early_stop"`, the weights at the step of minimum validation
                loss, by which tickets are judged, or at the end if there was
                no validation data; `"end"`, those at the end of training;
                `"start"`, those that the ticket restarts from.
            copy: As for `build`.

        Raises:
            ValueError: The ticket holds no trained weights, or does not fit
                the model.
        """
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
        if model is None:
            model, copy = self.template(), True
        # All that may be refused, before `model` itself is masked.
        kernels = masking.kernels(model, include=list(self.masks))
        _require_fit(weights, model)
        self.masks.require({p: k.variable.shape for p, k in kernels.items()})
        masked = masking.mask_model(model, list(self.masks), copy=copy)
        self.fill(masked, weights)
        masking.set_masks(masked, self.masks)
        return masked

    def fill(self, model: keras.Model, weights: Arrays | None = None) -> None:
        """Assigns this ticket's weights to a model of its architecture.

        Layers that keep more than variables, such as vocabularies, get this
        back too, if the ticket holds its architecture.

        Args:
            model: The model to fill.
            weights: Path to value; None: mask ⊙ θk.

        Raises:
            ValueError: Names or shapes differ, and nothing is assigned then;
                or a layer does not take its vocabulary.
        """
        weights = self.start.weights if weights is None else weights
        _require_fit(weights, model)
        if self.architecture is not None:
            masking.restore(model, masking.layer_states(self.architecture))
        for path, variable in masking.variables_by_path(model).items():
            variable.assign(weights[path])
        masking.derive(model)

    def save(self, path: str | os.PathLike[str], values: bool = True) -> None:
        """Writes the ticket to one file, whole or not at all.

        Masks are written as the gaps between survivors, in little more bits
        than their entropy; of masked kernels and their slots only the values
        that survive are stored. `numpy.load` reads the file.

        Args:
            path: The file.
            values: Store values. False: of a kernel that its initializer
                draws again, bit for bit, store the seed alone, which makes
                the file several times smaller. Another version of Keras or
                TensorFlow may draw others: `load` then refuses the file.

        Raises:
            ValueError: `values` is False and no kernel can be drawn again:
                it was rewound to a later step, or its initializer has no seed.
        """
        start = self.start
        drawn: dict[str, dict[str, Any]] = {}
        if not values:
            drawn = drawing.initializer_specs(
                self.template(), start.weights, self.masks
            )
            if not drawn:
                raise UserError(
                    "No kernel of this ticket is what its initializer draws "
                    "from a seed: the file needs its values. Leave out "
                    "`values=False`; on the command line: --format ticket."
                )
        kept = {p: w for p, w in start.weights.items() if p not in drawn}
        coded = {p: mask_codec.encode(mask) for p, mask in self.masks.items()}
        arrays = {f"masks/{p}": codes for p, (_, codes) in coded.items()}
        packed = pack("weights", kept, self.masks)
        packed |= pack("slots", start.slots, self.masks)
        arrays |= packed
        architecture = self.architecture
        if architecture is not None and len(architecture) > _LONG:
            text = architecture.encode()
            arrays["architecture"] = np.frombuffer(text, np.uint8)
            architecture = None
        header = {
            "format": _FORMAT,
            "level": self.level,
            "variant": self.variant,
            "step": self.origin.step,
            "shapes": {p: list(s) for p, s in self.masks.shapes.items()},
            "widths": {p: width for p, (width, _) in coded.items()},
            "drawn": drawn,
            "architecture": architecture,
            "metrics": dict(self.metrics),
            "provenance": dict(self.provenance),
        }
        array_file.write(path, "ticket", header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ticket":
        """Returns the ticket that a file holds.

        A file is data of strangers: nothing in it is executed, and the memory
        that it takes is bounded. Its arrays take up to `archive.allowance`
        bytes as they are stored, its masks as many, and its kernels and their
        slots, pruned weights written out, 16 times as many.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no ticket, or damaged, or of a later version, or
                holds a seed from which other weights are drawn here.
        """
        header, arrays = array_file.read(path, "ticket")
        version = header.get("format")
        if version != _FORMAT:
            raise UserError(
                f"{str(path)!r} is a ticket of format {str(version)[:9]!r}; "
                f"this version of tf_lottery reads format {_FORMAT}. Update "
                "tf_lottery, or save the ticket again with this version."
            )
        try:
            allowance = array_file.allowance(path)
            masks = _read_masks(header, arrays, allowance)
            drawn = _typed(header, "drawn", dict)
            _require_affordable(arrays, masks, drawn, allowance)
            weights = unpack("weights", arrays, masks)
            slots = unpack("slots", arrays, masks)
            for name, recipe in drawn.items():
                weights[name] = drawing.draw(recipe, masks[name])
            shapes = {p: w.shape for p, w in weights.items()}
            masks.require({p: shapes[p] for p in shapes.keys() & masks.keys()})
            _require_finite({**weights, **slots})
            if "architecture" in arrays:
                text = arrays["architecture"].tobytes()
                header["architecture"] = text.decode()
            return cls(
                masks=masks,
                origin=State(_typed(header, "step", int), weights, slots),
                level=_typed(header, "level", int),
                variant=_typed(header, "variant", str),
                architecture=_typed(header, "architecture", str | None),
                metrics=_typed(header, "metrics", dict),
                provenance=_typed(header, "provenance", dict),
            )
        except Exception as error:  # noqa: BLE001 - a stranger's bytes
            raise array_file.damaged(path, "ticket", error) from None


def _require_fit(weights: Arrays, model: keras.Model) -> None:
    """Raises if weights and a model's variables differ in names or shapes."""
    variables = masking.variables_by_path(model)
    ours = weights.keys() - variables.keys()
    theirs = variables.keys() - weights.keys()
    for path in sorted(ours | theirs):
        where, other = ("ticket", theirs) if path in ours else ("model", ours)
        raise UserError(
            f"The ticket does not fit model {model.name!r}: only the {where} "
            f"has {path!r}.{registry.nearest(path, sorted(other))}"
        )
    for path, variable in variables.items():
        if weights[path].shape != tuple(variable.shape):
            raise UserError(
                f"The ticket does not fit model {model.name!r}: {path!r} "
                f"has shape {weights[path].shape} in the ticket and "
                f"{tuple(variable.shape)} in the model."
            )


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
                raise UserError(f"{key} does not fit its mask")
            unpacked[name] = np.zeros(mask.shape, array.dtype)
            unpacked[name][mask] = array
    return unpacked


def _mask_of(name: str, masks: Masks) -> np.ndarray | None:
    """Returns the mask of a kernel, or of a slot of one."""
    for path, mask in masks.items():
        if f"{name}/".startswith(f"{path}/"):
            return mask
    return None


def _read_masks(
    header: Mapping[str, Any], arrays: Arrays, allowance: int
) -> Masks:
    sizes = {}
    for path, shape in _typed(header, "shapes", dict).items():
        if not all(type(n) is int and n > 0 for n in shape):
            raise UserError(f"the mask of {path!r} has a shape of {shape}")
        sizes[path] = math.prod(shape)
    # A few codes can stand for any number of pruned weights.
    if sum(sizes.values()) > allowance:
        raise UserError(f"masks of {sum(sizes.values())} weights")
    masks = {}
    for path, size in sizes.items():
        codes = arrays[f"masks/{path}"]
        mask = mask_codec.decode(header["widths"][path], codes, size)
        masks[path] = mask.reshape(header["shapes"][path])
    return Masks(masks)


def _require_affordable(
    arrays: Arrays, masks: Masks, drawn: Mapping[str, Any], allowance: int
) -> None:
    """Raises if many small arrays would become many large ones."""
    size = sum(4 * masks[name].size for name in drawn)
    for key, array in arrays.items():
        kind, _, name = key.partition("/")
        mask = _mask_of(name, masks)
        if kind.endswith(".kept") and mask is not None:
            size += mask.size * array.itemsize
    if size > _DENSE * allowance:
        raise UserError(f"it would unpack to {size} bytes")


def _require_finite(arrays: Arrays) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{name!r} holds values that are not finite")


def _typed(header: Mapping[str, Any], name: str, kind: Any) -> Any:
    if not isinstance(header[name], kind):
        raise TypeError(f"its {name} is {type(header[name]).__name__}")
    return header[name]

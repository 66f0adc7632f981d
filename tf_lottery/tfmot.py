"""This module knows how tensorflow-model-optimization (tfmot) prunes.

Its rules and schedules work here on Keras 3 models; models pruned with its
`prune_low_magnitude`, which knows tf_keras only, come over as tickets, and
tickets go back. tfmot itself is imported only where one of its models is
looked at.
"""

import dataclasses
import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.errors import MissingPackageError, UserError
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import State

Schedule = Callable[[int], tuple[Any, Any]]
"""From a step, 1 for the first, to (prune now?, sparsity), as tfmot's are."""


class Rule(Protocol):
    """What decides which weights of a kernel go."""

    def mask(self, weight: np.ndarray, sparsity: float) -> np.ndarray:
        """Returns the mask, bool, of a kernel at a sparsity in [0, 1)."""


@dataclasses.dataclass(frozen=True)
class Magnitude:
    """tfmot's rule for single weights.

    It keeps what is at least as large as the k-th largest: of equal weights
    all stay, so that it may keep more than was asked for. `pruning.prune`
    keeps the exact number.
    """

    def mask(self, weight: np.ndarray, sparsity: float) -> np.ndarray:
        """Returns the mask, bit for bit tfmot's.

        Example:
            >>> Magnitude().mask(np.array([[3.0, -1.0], [2.0, 2.0]]), 0.5)
            array([[ True, False],
                   [ True,  True]])
        """
        size = np.abs(weight)
        kept = np.float32(size.size) * (np.float32(1) - np.float32(sparsity))
        k = max(int(np.round(kept)), 1)
        return size >= np.partition(size, size.size - k, None)[size.size - k]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """tfmot's rule for blocks of matrices, and a criterion.

    Attributes:
        size: Rows and columns of a block. Those at the edge may be smaller.
        pooling: What of its magnitudes stands for a block: `"AVG"`, `"MAX"`.
    """

    size: tuple[int, int]
    pooling: Literal["AVG", "MAX"] = "AVG"

    def mask(self, weight: np.ndarray, sparsity: float) -> np.ndarray:
        """Returns the mask, bit for bit tfmot's; of equal blocks all stay."""
        kept = Magnitude().mask(self._pooled(weight), sparsity)
        return self._expanded(kept, weight.shape)

    def __call__(
        self, trained: Mapping[str, np.ndarray], origin: object
    ) -> dict[str, np.ndarray]:
        """Returns what stands for its block as the score of every weight."""
        del origin
        return {
            path: self._expanded(self._pooled(weight), weight.shape)
            for path, weight in trained.items()
        }

    def _pooled(self, weight: np.ndarray) -> np.ndarray:
        if weight.ndim != 2:
            raise UserError(
                f"Blocks are of matrices; got a kernel of shape {weight.shape}."
                " Leave it out by exclude."
            )
        pooled = np.abs(weight)[None, None]
        for rows in self.size:  # rows, then columns: rounds as tfmot does
            pooled = tf.nn.pool(
                pooled, [1, rows], self.pooling, [1, rows], "SAME"
            ).numpy()
            pooled = pooled.transpose(0, 1, 3, 2)
        return pooled[0, 0]

    def _expanded(
        self, pooled: np.ndarray, shape: tuple[int, ...]
    ) -> np.ndarray:
        rows, columns = self.size
        whole = pooled.repeat(rows, 0).repeat(columns, 1)
        return whole[: shape[0], : shape[1]]


@dataclasses.dataclass(frozen=True)
class MByN:
    """tfmot's N:M rule, and a criterion: of `of` inputs, `zeros` go.

    Groups are of consecutive inputs of one output, as hardware wants them
    (2 of 4 by default). As a criterion it gives the pattern where the density
    asked for is exactly that of the pattern, 0.5 for 2 of 4.

    Attributes:
        zeros: How many of each group go.
        of: How many a group has. The last one of a kernel may be smaller.
    """

    zeros: int = 2
    of: int = 4

    def mask(self, weight: np.ndarray, sparsity: float = 0.5) -> np.ndarray:
        """Returns the mask, tfmot's; of equal weights the first stay.

        Args:
            weight: A kernel of two or four dimensions.
            sparsity: Not looked at, as in tfmot: the pattern has its own.

        Example:
            >>> MByN().mask(np.array([[3.0], [1.0], [-4.0], [2.0]])).T
            array([[ True, False,  True, False]])
        """
        del sparsity
        return self._ranks(weight) < self.of - self.zeros

    def __call__(
        self, trained: Mapping[str, np.ndarray], origin: object
    ) -> dict[str, np.ndarray]:
        """Returns scores that fall with the rank of a weight in its group."""
        del origin
        scores = {}
        for path, weight in trained.items():
            size = np.abs(weight).astype(np.float64)
            scores[path] = size / (1 + size) - self._ranks(weight)
        return scores

    def _ranks(self, weight: np.ndarray) -> np.ndarray:
        if weight.ndim not in (2, 4):
            raise UserError(
                "N:M is for kernels of two or four dimensions; got shape "
                f"{weight.shape}. Leave it out by exclude."
            )
        last = np.moveaxis(np.abs(weight), -2, -1)  # inputs last
        inputs = last.shape[-1]
        # Padding ranks behind every weight, zeros too.
        padding = [(0, 0)] * (last.ndim - 1) + [(0, -inputs % self.of)]
        groups = np.pad(last, padding, constant_values=-1)
        groups = groups.reshape(*last.shape[:-1], -1, self.of)
        order = np.argsort(-groups, axis=-1, kind="stable")
        ranks = np.argsort(order, axis=-1, kind="stable")
        ranks = ranks.reshape(*last.shape[:-1], -1)[..., :inputs]
        return np.moveaxis(ranks, -1, -2)


class PruneOnSchedule(keras.callbacks.Callback):
    """Prunes a masked model during `fit`, as one of tfmot's schedules says.

    tfmot's `UpdatePruningStep`, for Keras 3. Masks are made from the weights
    as they stand before the step, in tfmot's count of steps.

    Args:
        schedule: `PolynomialDecay`, `ConstantSparsity`, or any callable from
            a step to (prune now?, sparsity).
        rule: `Magnitude`, `Blocks` or `MByN`. Differs from tfmot: masks only
            shrink. (There, asking less of a kernel than is zero already
            brings all of it back.)

    Example:
        >>> def schedule(step):
        ...     return step == 1, 0.75
        >>> inputs = keras.Input((4,))
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
        >>> model = masking.mask_model(model)
        >>> model.compile("sgd", "mse")
        >>> _ = model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0,
        ...               callbacks=[PruneOnSchedule(schedule)])
        >>> masking.get_masks(model).density
        0.25
    """

    def __init__(self, schedule: Schedule, rule: Rule | None = None) -> None:
        super().__init__()
        self._schedule, self._rule = schedule, rule or Magnitude()
        self._seen = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts to count where the optimizer stands."""
        self._seen = int(self.model.optimizer.iterations)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Prunes, if it is time."""
        step = int(self.model.optimizer.iterations) + 1
        # One execution may have taken many steps.
        due = [self._schedule(s) for s in range(self._seen + 1, step + 1)]
        self._seen = step
        sparsities = [float(sparsity) for now, sparsity in due if now]
        if sparsities:
            self._prune(sparsities[-1])

    def _prune(self, sparsity: float) -> None:
        kernels = masking.kernels(self.model)
        masks = masking.get_masks(self.model)
        fresh = {
            path: self._rule.mask(kernels[path].variable.numpy(), sparsity)
            & mask
            if path in kernels
            else mask
            for path, mask in masks.items()
        }
        masking.set_masks(self.model, Masks(fresh))


def adopt(pruned: Any, model: keras.Model) -> Ticket:
    """Returns a model that tfmot pruned as a ticket of a Keras 3 model.

    `ticket.build()` is the Keras 3 model, masked, at the pruned weights;
    `ticket.masks` are the masks. Weights are matched by their order, and their
    shapes compared; names are not, for the two do not name alike. So two
    layers of one shape must stand in the same order in both models.

    Args:
        pruned: A tf_keras model of `prune_low_magnitude` layers.
        model: A built Keras 3 model of the same architecture, whose weights
            come in the same order. It stays as it is.

    Raises:
        ValueError: There is nothing pruned, or the models differ.
    """
    mask_of = _mask_variables(pruned)
    # Of the wrapped layers themselves: the variables are the same.
    theirs = import_tfmot().strip_pruning(pruned).weights
    if not mask_of:
        raise UserError(
            f"Model {pruned.name!r} has no layer of prune_low_magnitude."
        )
    order = _paths_of(model, [tuple(v.shape) for v in theirs])
    weights = {
        path: variable.numpy()
        for path, variable in masking.variables_by_path(model).items()
    }
    masks = {}
    for path, variable in zip(order, theirs, strict=True):
        weights[path] = variable.numpy()
        if id(variable) in mask_of:
            masks[path] = mask_of[id(variable)].numpy() != 0
            weights[path] = np.where(masks[path], weights[path], 0)
    return Ticket(
        level=1,
        masks=Masks(masks),
        origin=State(0, weights, {}),
        architecture=masking.architecture_of(model),
        provenance={"from": "tensorflow-model-optimization"},
    )


def hand_back(ticket: Ticket, plain: Any, trained: bool = False) -> Any:
    """Returns a ticket as a tf_keras model of `prune_low_magnitude` layers.

    Its schedule never prunes again: tfmot trains the ticket as it is.

    Args:
        ticket: The ticket.
        plain: A built tf_keras model of the same architecture. tfmot takes
            over its layers.
        trained: Take the trained weights instead of those it restarts from.

    Raises:
        ValueError: The models differ, or tfmot wraps not every masked layer.
    """
    model = ticket.model(at="early_stop" if trained else "start")
    sparsity = import_tfmot()
    never = sparsity.ConstantSparsity(0.0, begin_step=2**31 - 1)
    pruned = sparsity.prune_low_magnitude(plain, pruning_schedule=never)
    theirs = sparsity.strip_pruning(pruned).weights
    mask_of = _mask_variables(pruned)
    variables = masking.variables_by_path(model)
    order = _paths_of(model, [tuple(v.shape) for v in theirs])
    masks = dict(ticket.masks)
    for path, variable in zip(order, theirs, strict=True):
        variable.assign(variables[path].numpy())
        if id(variable) in mask_of and path in masks:
            mask = mask_of[id(variable)]
            mask.assign(masks.pop(path).astype(mask.dtype.name))
    for path in masks:
        raise UserError(f"tfmot prunes no weight of the kind of {path!r}.")
    return pruned


def _mask_variables(pruned: Any) -> dict[int, Any]:
    """Returns tfmot's masks by the `id` of what they mask."""
    found: dict[int, Any] = {}
    for layer in pruned.submodules:
        for weight, mask, _ in getattr(layer, "pruning_vars", ()):
            found[id(weight)] = mask
    return found


def _paths_of(model: keras.Model, shapes: list[tuple[int, ...]]) -> list[str]:
    """Returns the paths of a Keras 3 model's weights in tf_keras' order."""
    path_of = {
        id(v): path for path, v in masking.variables_by_path(model).items()
    }
    weights = [v for v in model.weights if id(v) in path_of]
    ours = [tuple(v.shape) for v in weights]
    if ours != shapes:
        raise UserError(
            f"The models differ: the weights of the tf_keras model have shapes "
            f"{shapes}; those of Keras 3 model {model.name!r} have {ours}."
        )
    return [path_of[id(v)] for v in weights]


def import_tfmot() -> Any:
    """Returns `tfmot.sparsity.keras`, and leaves `tf.keras` what it is.

    tfmot's import sets TF_USE_LEGACY_KERAS, which processes inherit, and makes
    `tf.keras` Keras 2, unless it has been looked at before.

    Raises:
        ImportError: It, or tf_keras, is not installed.
    """
    name = "TF_USE_LEGACY_KERAS"
    before = os.environ.get(name)
    _ = tf.keras.Model
    try:
        return importlib.import_module(
            "tensorflow_model_optimization"
        ).sparsity.keras
    except ImportError as error:
        raise MissingPackageError(
            f"tensorflow-model-optimization cannot be imported ({error}): "
            "pip install tensorflow-model-optimization tf_keras."
        ) from None
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before

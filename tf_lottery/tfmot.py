"""Exchange with tensorflow-model-optimization (tfmot).

Its pruning rules and schedules, for Keras 3 models; and conversion between
tickets and tf_keras models pruned with its `prune_low_magnitude`. tfmot is
imported only for these conversions.
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
"""From a step, counted from 1, to (prune now?, sparsity), as in tfmot."""


class Rule(Protocol):
    """A function that decides which weights of a kernel are pruned."""

    def mask(self, weight: np.ndarray, sparsity: float) -> np.ndarray:
        """Returns a kernel's mask, bool, shaped as the kernel.

        Args:
            weight: A kernel.
            sparsity: Fraction of weights to prune, in [0, 1).
        """


@dataclasses.dataclass(frozen=True)
class Magnitude:
    """tfmot's rule for single weights.

    It keeps every weight whose magnitude is at least the k-th largest. With
    ties it keeps more than k weights; `pruning.prune` keeps exactly k.
    """

    def mask(self, weight: np.ndarray, sparsity: float) -> np.ndarray:
        """Returns the mask, bit for bit equal to tfmot's.

        Args:
            weight: A kernel.
            sparsity: Fraction of weights to prune, in [0, 1).

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
        size: Rows and columns of a block. Blocks at the edge may be smaller.
        pooling: Score of a block: `"AVG"` or `"MAX"` of its magnitudes.
    """

    size: tuple[int, int]
    pooling: Literal["AVG", "MAX"] = "AVG"

    def mask(self, weight: np.ndarray, sparsity: float) -> np.ndarray:
        """Returns the mask, bit for bit equal to tfmot's; it keeps all ties.

        Args:
            weight: A matrix.
            sparsity: Fraction of blocks to prune, in [0, 1).
        """
        kept = Magnitude().mask(self._pooled(weight), sparsity)
        return self._expanded(kept, weight.shape)

    def __call__(
        self, trained: Mapping[str, np.ndarray], origin: object
    ) -> dict[str, np.ndarray]:
        """Returns the score of its block for every weight.

        Args:
            trained: Kernel path to trained weights, matrices.
            origin: Ignored.
        """
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
        for rows in self.size:  # Rows, then columns, for tfmot's rounding.
            pooled = tf.nn.pool(
                pooled, [1, rows], self.pooling, [1, rows], "SAME"
            ).numpy()
            pooled = pooled.transpose(0, 1, 3, 2)
        return pooled[0, 0]

    def _expanded(
        self, pooled: np.ndarray, shape: tuple[int, ...]
    ) -> np.ndarray:
        rows, columns = self.size
        expanded = pooled.repeat(rows, 0).repeat(columns, 1)
        return expanded[: shape[0], : shape[1]]


@dataclasses.dataclass(frozen=True)
class MByN:
    """tfmot's N:M rule, and a criterion: of `of` inputs, prune `zeros`.

    Groups consist of consecutive inputs of one output, as hardware requires
    (2 of 4 by default). As a criterion it yields the pattern if the requested
    density equals that of the pattern, 0.5 for 2 of 4.

    Attributes:
        zeros: Number of weights to prune in each group.
        of: Size of a group. The last group of a kernel may be smaller.
    """

    zeros: int = 2
    of: int = 4

    def mask(self, weight: np.ndarray, sparsity: float = 0.5) -> np.ndarray:
        """Returns tfmot's mask; among equal weights it keeps the first.

        Args:
            weight: A kernel of two or four dimensions.
            sparsity: Ignored, as in tfmot: the pattern determines it.

        Example:
            >>> MByN().mask(np.array([[3.0], [1.0], [-4.0], [2.0]])).T
            array([[ True, False,  True, False]])
        """
        del sparsity
        return self._ranks(weight) < self.of - self.zeros

    def __call__(
        self, trained: Mapping[str, np.ndarray], origin: object
    ) -> dict[str, np.ndarray]:
        """Returns scores that fall with the rank of a weight in its group.

        Args:
            trained: Kernel path to trained weights.
            origin: Ignored.
        """
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
        last = np.moveaxis(np.abs(weight), -2, -1)  # Inputs last.
        inputs = last.shape[-1]
        # Padding ranks after every weight, zeros too.
        padding = [(0, 0)] * (last.ndim - 1) + [(0, -inputs % self.of)]
        groups = np.pad(last, padding, constant_values=-1)
        groups = groups.reshape(*last.shape[:-1], -1, self.of)
        order = np.argsort(-groups, axis=-1, kind="stable")
        ranks = np.argsort(order, axis=-1, kind="stable")
        ranks = ranks.reshape(*last.shape[:-1], -1)[..., :inputs]
        return np.moveaxis(ranks, -1, -2)


class PruneOnSchedule(keras.callbacks.Callback):
    """Prunes a masked model during `fit` by one of tfmot's schedules.

    tfmot's `UpdatePruningStep`, for Keras 3. Masks are computed from the
    weights before the step, and steps are counted as in tfmot.

    Args:
        schedule: `PolynomialDecay`, `ConstantSparsity`, or any callable from
            a step to (prune now?, sparsity).
        rule: `Magnitude`, `Blocks` or `MByN`. Differs from tfmot: masks only
            shrink. (In tfmot, a sparsity below the fraction of zeros revives
            all weights of the kernel.)

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
        self._last_step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts to count from the optimizer's step."""
        self._last_step = int(self.model.optimizer.iterations)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Prunes if the schedule says so."""
        step = int(self.model.optimizer.iterations) + 1
        # One execution may take many steps.
        due = [self._schedule(s) for s in range(self._last_step + 1, step + 1)]
        self._last_step = step
        sparsities = [float(sparsity) for now, sparsity in due if now]
        if sparsities:
            self._prune(sparsities[-1])

    def _prune(self, sparsity: float) -> None:
        kernels = masking.kernels(self.model)
        masks = masking.get_masks(self.model)
        updated = {
            path: self._rule.mask(kernels[path].variable.numpy(), sparsity)
            & mask
            if path in kernels
            else mask
            for path, mask in masks.items()
        }
        masking.set_masks(self.model, Masks(updated))


def adopt(pruned: Any, model: keras.Model) -> Ticket:
    """Returns a ticket of a Keras 3 model from a model pruned by tfmot.

    `ticket.build()` is the masked Keras 3 model with the pruned weights;
    `ticket.masks` are the masks. Weights are matched by order and checked by
    shape, because tf_keras and Keras 3 name them differently. So layers of
    equal shape must have the same order in both models.

    Args:
        pruned: A tf_keras model of `prune_low_magnitude` layers.
        model: A built Keras 3 model of the same architecture, whose weights
            have the same order. It is not changed.

    Raises:
        UserError: No layer is pruned, or the models differ.
    """
    mask_of = _mask_variables(pruned)
    # The wrapped layers share these variables.
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

    Its schedule never prunes again, so tfmot trains the ticket unchanged.

    Args:
        ticket: The ticket.
        plain: A built tf_keras model of the same architecture. tfmot reuses
            its layers.
        trained: Whether to use the trained weights instead of those that the
            ticket restarts from.

    Raises:
        UserError: The models differ, or tfmot cannot prune a masked layer.
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
    """Returns tfmot's masks by the `id` of the weights."""
    masks: dict[int, Any] = {}
    for layer in pruned.submodules:
        for weight, mask, _ in getattr(layer, "pruning_vars", ()):
            masks[id(weight)] = mask
    return masks


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
    """Returns `tfmot.sparsity.keras`, without changing `tf.keras`.

    tfmot's import sets TF_USE_LEGACY_KERAS, which child processes inherit, and
    turns `tf.keras` into Keras 2 unless `tf.keras` was used before.

    Raises:
        MissingPackageError: tfmot or tf_keras is not installed.
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

"""Initial states and seeds of the replicates of a search."""

import contextlib
import pathlib
from collections.abc import Iterator

import keras
import numpy as np

from tf_lottery import masking
from tf_lottery.controls import reinitialized
from tf_lottery.core import seeds
from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import State, Trainer, checkpoint

_TOLERANCE = 0.01  # relative: half types round values past the support
_ALTERNATIVE = (
    "Or give `initial_weights`, a file of weights that all replicates start "
    "from: "
    "model.save_weights('theta_0.weights.h5')."
)


class ReplicateStarts:
    """Initial state and seed of each replicate of a search.

    Replicate 0 starts from the model's weights with the seed of the search.
    Each other replicate has its own seed, for data order, layers'
    randomness and controls, and new weights, drawn from the initializers of
    the model's layers. Frozen layers keep their weights.

    Drawing would destroy pretrained weights. So all replicates start from the
    same weights if the model's are not fresh, or if `initial_weights` is given.

    Args:
        model: The model that is searched.
        masks: Its masks at level 0.
        seed: Seed of the search, >= 0.
        count: Number of replicates, >= 1.
        initial_weights: A file of weights to start from, or None.

    Raises:
        UserError: A weight has no known initializer.

    Attributes:
        seeds: The seed of each replicate.
    """

    def __init__(
        self,
        model: keras.Model,
        masks: Masks,
        seed: int,
        count: int = 1,
        initial_weights: str | pathlib.Path | None = None,
    ) -> None:
        self._model, self._masks = model, masks
        self._initial_weights = initial_weights
        self.seeds = [seed] + [
            seeds.integer(seed, "replicate", r) for r in range(1, count)
        ]
        self._fresh_model: keras.Model | None = None
        self._shared_weights = ""
        if count > 1:
            self._fresh_model = masking.fresh_copy(model) or model
            self._shared_weights = self._find_shared_weights()
            if not self._shared_weights:
                # Raises before training if a weight cannot be drawn.
                self._draw(_weights(model), 0)

    def _find_shared_weights(self) -> str:
        """Returns which weights all replicates share; "" if they differ."""
        if self._initial_weights is not None:
            return "those of `initial_weights`"
        path = pretrained(self._model, self._fresh_model)
        if path is None:
            return ""
        return f"the model's, because {path!r} differs from a fresh draw"

    @property
    def summary(self) -> str:
        """How replicates differ, in a sentence; "" for a single one."""
        count = len(self.seeds)
        if count == 1:
            return ""
        if self._shared_weights:
            return (
                f"The {count} replicates start from the same weights "
                f"({self._shared_weights}), and differ by the order of data "
                "and randomness in training only."
            )
        return (
            f"The {count} replicates differ by initial weights (the first has "
            "the model's, the others new draws of its initializers), the order "
            "of data and randomness in training."
        )

    def require_different(self, shuffles: bool) -> None:
        """Raises if all replicates would be the same network.

        Args:
            shuffles: Whether each replicate has its own order of data.

        Raises:
            UserError: Weights, data and randomness are all the same.
        """
        is_random = any(
            variable.name == "seed_generator_state"
            for variable in masking.variables_by_path(self._model).values()
        )
        if self._shared_weights and not shuffles and not is_random:
            raise UserError(
                f"`replicates={len(self.seeds)}` would train the same network "
                f"{len(self.seeds)} times: all start from the same weights "
                f"({self._shared_weights}), shuffle=False, and no layer draws "
                "at random. Leave out shuffle=False, or `replicates`."
            )

    def initial(self, trainer: Trainer, replicate: int) -> State:
        """Returns the initial state of a replicate, before masking.

        Args:
            trainer: A trainer of the model's architecture.
            replicate: Number of the replicate, >= 0.
        """
        seed = self.seeds[replicate]
        with weights_restored(self._model):
            if self._initial_weights is not None:
                checkpoint.load_weights(self._model, self._initial_weights)
            state = trainer.initial(self._model, seed)
        if replicate == 0 or self._shared_weights:
            return state
        return self._draw(state, seed)

    def _draw(self, state: State, seed: int) -> State:
        ticket = Ticket(0, self._masks, state, source=self._fresh_model)
        return reinitialized.fresh(ticket, seed, "replicate", _ALTERNATIVE)


def _weights(model: keras.Model) -> State:
    variables = masking.variables_by_path(model)
    return State(0, {p: np.array(v.numpy()) for p, v in variables.items()}, {})


def pretrained(
    model: keras.Model, fresh_model: keras.Model | None = None
) -> str | None:
    """Returns the path of a weight that differs from a fresh draw, or None.

    It finds values that an initializer without a seed sets differently (a
    bias that is not zero, a moving mean), and values that an initializer never
    draws (a kernel beyond the limit of `GlorotUniform`). A trained kernel
    within the limits looks fresh; biases and statistics give it away.

    Args:
        model: A built model.
        fresh_model: The same model, newly built. None: values are compared
            with those of the initializers.
    """
    owners = reinitialized.owners_of(model)
    fresh = masking.variables_by_path(fresh_model or model)
    for path, variable in masking.variables_by_path(model).items():
        layer = owners[id(variable)]
        if not reinitialized.is_reinitialized(layer, variable):
            continue
        initializer = masking.initializer_of(layer, variable)
        if initializer is None:
            continue
        value = variable.numpy()
        if "seed" in initializer.get_config():
            is_fresh = _can_draw(initializer, value)
        elif fresh_model is None or fresh_model is model:
            drawn = initializer(variable.shape, dtype=variable.dtype)
            is_fresh = np.array_equal(value, drawn)
        else:
            is_fresh = np.array_equal(value, fresh[path].numpy())
        if not is_fresh:
            return path
    return None


def _can_draw(
    initializer: keras.initializers.Initializer, value: np.ndarray
) -> bool:
    """Returns whether all values are within the initializer's range."""
    low, high = masking.support(initializer, value.shape)
    slack = _TOLERANCE * max(abs(low), abs(high))
    if not np.isfinite(slack):
        return True
    return bool(value.min() >= low - slack and value.max() <= high + slack)


@contextlib.contextmanager
def weights_restored(model: keras.Model) -> Iterator[None]:
    """Restores the variables of a model on exit, also after an error.

    Args:
        model: A built model.
    """
    before = [np.array(v.numpy()) for v in model.variables]
    try:
        yield
    finally:
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)
        masking.derive(model)

"""Where the replicates of a search start: their weights, and their seeds."""

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
_OTHERWISE = (
    "Or give `initial_weights`, a file of weights that all replicates start "
    "from: "
    "model.save_weights('theta_0.weights.h5')."
)


class Starts:
    """Where each replicate of a search starts, and with which seed.

    Replicate 0 starts from the model's weights under the seed of the search.
    The others have a seed of their own each, for the order of data, layers'
    randomness and controls, and new weights, drawn from the initializers of
    the model's layers. Frozen layers keep their weights.

    Drawing would destroy what was pretrained, so that all replicates start
    from the same weights if those are not fresh, or `initial_weights` was
    given.

    Args:
        model: The model that is searched.
        masks: What it keeps at level 0.
        seed: Seed of the search, >= 0.
        count: How many replicates, >= 1.
        initial_weights: A file of weights to start from, or None.

    Raises:
        ValueError: A weight has no known initializer to be drawn with.
    """

    def __init__(
        self,
        model: keras.Model,
        masks: Masks,
        seed: int,
        count: int = 1,
        initial_weights: str | pathlib.Path | None = None,
    ) -> None:
        self._model, self._masks, self._initial_weights = (
            model,
            masks,
            initial_weights,
        )
        self.seeds = [seed] + [
            seeds.integer(seed, "replicate", r) for r in range(1, count)
        ]
        self._twin: keras.Model | None = None
        self._why_same = ""
        if count > 1:
            self._twin = masking.fresh_copy(model) or model
            self._why_same = self._reason()
            if not self._why_same:
                self._draw(_weights(model), 0)

    def _reason(self) -> str:
        """Returns why all start from the same weights; empty: they do not."""
        if self._initial_weights is not None:
            return "those of `initial_weights`"
        path = pretrained(self._model, self._twin)
        if path is None:
            return ""
        return f"the model's, for {path!r} is not as its initializer makes it"

    @property
    def line(self) -> str:
        """What replicates differ by, in a sentence; empty of one alone."""
        count = len(self.seeds)
        if count == 1:
            return ""
        if self._why_same:
            return (
                f"The {count} replicates start from the same weights "
                f"({self._why_same}), and differ by the order of data and "
                "randomness in training only."
            )
        return (
            f"The {count} replicates differ by initial weights (the first has "
            "the model's, the others new draws of its initializers), the order "
            "of data and randomness in training."
        )

    def require_different(self, shuffles: bool) -> None:
        """Raises if replicates would all be the same network.

        Args:
            shuffles: Whether each has an order of data of its own.

        Raises:
            ValueError: Weights, data and randomness are all the same.
        """
        is_random = any(
            variable.name == "seed_generator_state"
            for variable in masking.variables_by_path(self._model).values()
        )
        if self._why_same and not shuffles and not is_random:
            raise UserError(
                f"`replicates={len(self.seeds)}` would train the same network "
                f"{len(self.seeds)} times: all start from the same weights "
                f"({self._why_same}), shuffle=False, and no layer draws at "
                "random. Leave out shuffle=False, or `replicates`."
            )

    def initial(self, trainer: Trainer, replicate: int) -> State:
        """Returns the state that a replicate starts from, before masking.

        Args:
            trainer: Of the model's architecture.
            replicate: Which one.
        """
        seed = self.seeds[replicate]
        with weights_restored(self._model):
            if self._initial_weights is not None:
                checkpoint.load_weights(self._model, self._initial_weights)
            state = trainer.initial(self._model, seed)
        if replicate == 0 or self._why_same:
            return state
        return self._draw(state, seed)

    def _draw(self, state: State, seed: int) -> State:
        ticket = Ticket(0, self._masks, state, source=self._twin)
        return reinitialized.fresh(ticket, seed, "replicate", _OTHERWISE)


def _weights(model: keras.Model) -> State:
    variables = masking.variables_by_path(model)
    return State(0, {p: np.array(v.numpy()) for p, v in variables.items()}, {})


def pretrained(
    model: keras.Model, twin: keras.Model | None = None
) -> str | None:
    """Returns the path of a weight that its initializer did not make.

    Such are values that an initializer without a seed makes otherwise (a
    bias that is not zero, a moving mean), and values that it never draws (a
    kernel beyond the limit of `GlorotUniform`). A kernel that lies within the
    limits cannot be told from a fresh one; biases and statistics can.

    Args:
        model: A built model.
        twin: The same model, just built. None: initializers are asked.

    Returns:
        The path; None for a model whose weights look fresh.
    """
    owners = reinitialized.owners_of(model)
    fresh = masking.variables_by_path(twin or model)
    for path, variable in masking.variables_by_path(model).items():
        layer = owners[id(variable)]
        if not reinitialized.is_reinitialized(layer, variable):
            continue
        initializer = masking.initializer_of(layer, variable)
        if initializer is None:
            continue
        value = variable.numpy()
        if "seed" in initializer.get_config():
            is_fresh = _supports(initializer, value)
        elif twin is None or twin is model:
            made = initializer(variable.shape, dtype=variable.dtype)
            is_fresh = np.array_equal(value, made)
        else:
            is_fresh = np.array_equal(value, fresh[path].numpy())
        if not is_fresh:
            return path
    return None


def _supports(
    initializer: keras.initializers.Initializer, value: np.ndarray
) -> bool:
    low, high = masking.support(initializer, value.shape)
    slack = _TOLERANCE * max(abs(low), abs(high))
    if not np.isfinite(slack):
        return True
    return bool(value.min() >= low - slack and value.max() <= high + slack)


@contextlib.contextmanager
def weights_restored(model: keras.Model) -> Iterator[None]:
    """Leaves the user's model as it was, whatever happens in between.

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

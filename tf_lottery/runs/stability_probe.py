"""Search for the first step from which a dense network trains stably."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from tf_lottery import controls
from tf_lottery.core import seeds
from tf_lottery.lottery import stability
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs.replicate_search import TrainingTask, fork_at
from tf_lottery.training import Diverged, Outcome, State, Trainer
from tf_lottery.training.state import Arrays


class StabilityProbe:
    """Measures from which steps on the training of a dense network is stable.

    For a step, it trains a copy of the network from that step on, with the
    data in another order, and measures the error barrier between the two.
    Barriers are measured on validation data, or on training data without
    any, never on test data.

    Args:
        task: The task that trained the dense network.
        trained: Path to value of the dense network's variables at the end.
        trainer: The trainer.
        load_state: Returns the state of the dense network at a step.
        train: Trains the network of a task.
    """

    def __init__(
        self,
        task: TrainingTask,
        trained: Arrays,
        trainer: Trainer,
        load_state: Callable[[int], State],
        train: Callable[[TrainingTask], Outcome],
    ) -> None:
        self._task, self._trained, self._trainer = task, trained, trainer
        self._load_state, self._train = load_state, train
        has_validation = trainer.data.validation is not None
        self._split = "validation" if has_validation else "train"

    def find(self, candidates: Sequence[int]) -> dict[str, Any]:
        """Returns the first stable step and how it was found.

        Args:
            candidates: The steps to choose from, rising.

        Returns:
            The content of rewind.json: `"step"`, the `"split"` of the
            barriers, `"barriers"` by step (None: the copy diverged), and
            `"steps_trained"`, the training steps of all copies.

        Raises:
            UserError: No candidate is stable.
        """
        step, barriers = stability.first_stable(candidates, self.barrier)
        return {
            "step": step,
            "split": self._split,
            "barriers": {
                # JSON has no infinity.
                str(k): barriers[k] if math.isfinite(barriers[k]) else None
                for k in sorted(barriers)
            },
            "steps_trained": sum(self._trainer.steps - k for k in barriers),
        }

    def barrier(self, step: int) -> float:
        """Returns the error barrier to a copy that starts at a step.

        Args:
            step: The step, >= 0.

        Returns:
            A fraction of examples; infinite if the copy diverged.
        """
        copy = TrainingTask(
            self._task.replicate,
            fork_at(self._task.base, self._load_state(step)),
            functools.partial(_probe, step=step),
            self._task.seed,
        )
        outcome = self._train(copy)
        if isinstance(outcome, Diverged):
            return math.inf
        path = stability.interpolate(
            self._trained, outcome.trained, self._errors
        )
        return path.barrier(self._split)

    def _errors(self, weights: Arrays, is_between: bool) -> dict[str, float]:
        return self._trainer.errors(
            weights, [self._split], reestimate_batch_norm=is_between
        )


def _probe(ticket: Ticket, seed: int, step: int) -> Ticket:
    """Returns a copy of a ticket, to be trained in another data order.

    The order differs from that of the control `data_order`, by which the run
    is judged later.
    """
    copy = controls.data_order(ticket, seeds.integer(seed, "probe"))
    return dataclasses.replace(copy, variant=f"probe_{step}")

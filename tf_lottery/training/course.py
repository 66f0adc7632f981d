"""Networks on their way from the start of training to its end."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tf_lottery.training import interim
from tf_lottery.training.feed import Batch, Window
from tf_lottery.training.job import Job
from tf_lottery.training.log import Log
from tf_lottery.training.objective import LOSS, EvalResult
from tf_lottery.training.run import Run
from tf_lottery.training.state import Arrays, State

SECONDS_BETWEEN_FILES = 30


class Networks(Protocol):
    """Networks in training, however they are computed.

    Attributes:
        values: All that training has changed so far, of all networks. It is
            never changed, only replaced.
    """

    values: Any

    def run(self, window: Window, start: int, stop: int) -> np.ndarray:
        """Takes steps.

        Returns:
            Of each network the sum of the losses counted so far, `[networks]`.
        """

    def counted(self) -> list[list[np.ndarray]]:
        """Returns of each network what its metrics counted so far."""

    def count_from(self, totals: Sequence[Sequence[Any]] | None) -> None:
        """Has metrics count on from earlier counts; None: from nothing."""

    def training_metrics(self) -> list[dict[str, Any]]:
        """Returns of each network its metrics over the steps counted."""

    def evaluate(
        self, values: Any, batches: Iterable[Batch], per_example: bool = False
    ) -> list[EvalResult]:
        """Returns of each network what it comes to on a split.

        Args:
            values: The networks.
            batches: The split.
            per_example: Whether to evaluate each example alone, too.
        """

    def better(self, improved: Sequence[bool], before: Any) -> Any:
        """Returns `values` of the networks that improved, else those before."""

    def states(self, values: Any, step: int) -> list[State]:
        """Returns values as states."""

    def packed(self, states: Sequence[State]) -> Any:
        """Returns states as values."""


class Course:
    """Networks that train side by side, and what is known of them so far.

    Args:
        networks: The networks, where `jobs` or `kept` start.
        jobs: What is trained.
        splits: What is evaluated on, by name.
        curves: Names of the splits that are evaluated again and again; the
            others only at the end, and at the early-stop step.
        kept: Where an earlier process left each job; empty if it did not.
        deciding: The name of the metric that a verdict looks at.
    """

    def __init__(
        self,
        networks: Networks,
        jobs: Sequence[Job],
        splits: Mapping[str, Iterable[Batch]],
        curves: Sequence[str],
        kept: Sequence[interim.Interim],
        deciding: str = LOSS,
    ) -> None:
        self.networks, self._jobs = networks, jobs
        self._deciding = deciding
        self._splits, self._curves = splits, curves
        self.step = kept[0].state.step if kept else jobs[0].start.step
        self.logs = [Log() for _ in jobs]
        self._best: Any = None
        self._captured: list[tuple[State, ...]] = [
            (job.start,) if job.start.step in job.capture else ()
            for job in jobs
        ]
        self._seconds = 0.0
        if kept:
            self._go_on(kept)
        self._began = self._written = time.perf_counter()

    def _go_on(self, kept: Sequence[interim.Interim]) -> None:
        for log, k in zip(self.logs, kept, strict=True):
            log.curve = k.curve
        best = [k.best for k in kept if k.best]
        self._best = self.networks.packed(best) if best else None
        self._captured = [k.captured for k in kept]
        self.networks.count_from([k.totals for k in kept])
        self._seconds = max(k.seconds for k in kept)

    def advance(self, window: Window, stop: int) -> np.ndarray:
        """Trains to a step of the window.

        Returns:
            Of each network the sum of the losses since its last evaluation.
        """
        first = window.first
        losses = self.networks.run(window, self.step - first, stop - first)
        self.step = stop
        if any(stop in job.capture for job in self._jobs):
            states = self.networks.states(self.networks.values, stop)
            for i, job in enumerate(self._jobs):
                if stop in job.capture:
                    self._captured[i] += (states[i],)
        return losses

    def evaluate(self) -> None:
        """Evaluates the networks as they are."""
        results = self._results(self.networks.values, self._curves)
        trained = self.networks.training_metrics()
        improved = [
            log.add(self.step, metrics, splits)
            for log, metrics, splits in zip(
                self.logs, trained, results, strict=True
            )
        ]
        self.networks.count_from(None)
        if any(improved):
            self._best = self.networks.better(improved, self._best)

    def weights(self, i: int) -> Arrays:
        """Returns the weights of one of the networks as they are."""
        states = self.networks.states(self.networks.values, self.step)
        return states[i].weights

    def save_if_due(self) -> None:
        """Keeps where the networks are, every now and then."""
        if time.perf_counter() - self._written < SECONDS_BETWEEN_FILES:
            return
        states = self.networks.states(self.networks.values, self.step)
        totals = self.networks.counted()
        best: Sequence[State | None] = [None] * len(states)
        if self._best is not None:
            best = self.networks.states(self._best, 0)
        for i, job in enumerate(self._jobs):
            if job.folder is None:
                continue
            kept = interim.Interim(
                job=job.digest,
                state=states[i],
                best=best[i],
                captured=self._captured[i],
                curve=self.logs[i].curve,
                totals=totals[i],
                seconds=self._elapsed,
            )
            interim.save(job.folder, kept)
        self._written = time.perf_counter()

    def runs(self) -> list[Run]:
        """Returns the records of the networks, whose training has ended."""
        values = self.networks.values
        last = self._results(values, list(self._splits))
        held_out = [name for name in self._splits if name != "train"]
        stopped: list[dict[str, EvalResult]] = [{} for _ in self._jobs]
        best: list[State | None] = [None] * len(self._jobs)
        if self._best is not None:
            stopped = self._results(self._best, held_out, per_example=True)
            best = list(self.networks.states(self._best, 0))
        trained = self.networks.states(values, self.step)
        return [
            Run(
                trained=trained[i].weights,
                best=None if (one := best[i]) is None else one.weights,
                metrics={
                    "steps": self.step,
                    "deciding_metric": self._deciding,
                    **log.summary(stopped[i], last[i]),
                    "seconds": self._elapsed / len(self._jobs),
                },
                curve=tuple(log.curve),
                per_example={
                    split: result.per_example
                    for split, result in stopped[i].items()
                    if result.per_example is not None
                },
                slots=trained[i].slots if self._jobs[i].keeps_slots else {},
                captured=self._captured[i],
            )
            for i, log in enumerate(self.logs)
        ]

    @property
    def _elapsed(self) -> float:
        return self._seconds + time.perf_counter() - self._began

    def _results(
        self, values: Any, splits: Sequence[str], per_example: bool = False
    ) -> list[dict[str, EvalResult]]:
        each = {
            name: self.networks.evaluate(
                values, self._splits[name], per_example
            )
            for name in splits
        }
        return [
            {name: results[i] for name, results in each.items()}
            for i in range(len(self._jobs))
        ]

"""Networks on their way from the start of training to its end."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tf_lottery.training import resume
from tf_lottery.training.history import Log
from tf_lottery.training.input_pipeline import Batch, Buffer
from tf_lottery.training.job import Job
from tf_lottery.training.objective import LOSS, EvalResult
from tf_lottery.training.result import Diverged, Outcome, TrainingResult
from tf_lottery.training.state import Arrays, State

SECONDS_BETWEEN_CHECKPOINTS = 30


class Backend(Protocol):
    """Networks in training, however they are computed.

    Attributes:
        values: All that training has changed so far, of all networks. It is
            never changed, only replaced.
    """

    values: Any

    def run(self, window: Buffer, start: int, stop: int) -> np.ndarray:
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

    def keep_best(self, improved: Sequence[bool], before: Any) -> Any:
        """Returns `values` of the networks that improved, else those before."""

    def states(self, values: Any, step: int) -> list[State]:
        """Returns values as states."""

    def pack_states(self, states: Sequence[State]) -> Any:
        """Returns states as values."""


class TrainingLoop:
    """Networks that train side by side, and what is known of them so far.

    One whose loss becomes nan or infinite has diverged. It stays in its place,
    for the program is compiled for so many, but nothing of it is kept.

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
        networks: Backend,
        jobs: Sequence[Job],
        splits: Mapping[str, Iterable[Batch]],
        curves: Sequence[str],
        kept: Sequence[resume.InProgressCheckpoint],
        deciding: str = LOSS,
    ) -> None:
        self.networks, self._jobs = networks, jobs
        self._deciding = deciding
        self._splits, self._curves = splits, curves
        self.step = kept[0].state.step if kept else jobs[0].start.step
        self._before = self.step  # the last stretch
        self.logs = [Log() for _ in jobs]
        self._diverged: set[int] = set()
        self._best: Any = None
        self._captured: list[tuple[State, ...]] = [
            (job.start,) if job.start.step in job.capture else ()
            for job in jobs
        ]
        self._seconds = 0.0
        if kept:
            self._go_on(kept)
        self._began = self._written = time.perf_counter()

    def _go_on(self, kept: Sequence[resume.InProgressCheckpoint]) -> None:
        for log, k in zip(self.logs, kept, strict=True):
            log.curve = k.curve
        best = [k.best for k in kept if k.best]
        self._best = self.networks.pack_states(best) if best else None
        self._captured = [k.captured for k in kept]
        self.networks.count_from([k.totals for k in kept])
        self._seconds = max(k.seconds for k in kept)

    @property
    def alive(self) -> list[int]:
        """Which networks have not diverged."""
        return [i for i in range(len(self._jobs)) if i not in self._diverged]

    def advance(self, window: Buffer, stop: int) -> dict[int, Diverged]:
        """Trains to a step of the window.

        Returns:
            The networks that diverged on the way, by index.
        """
        self._before, first = self.step, window.first
        losses = self.networks.run(window, self.step - first, stop - first)
        self.step = stop
        if any(stop in job.capture for job in self._jobs):
            states = self.networks.states(self.networks.values, stop)
            for i, job in enumerate(self._jobs):
                if stop in job.capture:
                    self._captured[i] += (states[i],)
        diverged = {
            i: Diverged(self._before, stop, float(losses[i]))
            for i in self.alive
            if not np.isfinite(losses[i])
        }
        self._diverged |= diverged.keys()
        return diverged

    def evaluate(self) -> None:
        """Evaluates the networks as they are."""
        results = self._results(self.networks.values, self._curves)
        trained = self.networks.training_metrics()
        improved = [False] * len(self._jobs)
        for i in self.alive:
            improved[i] = self.logs[i].add(self.step, trained[i], results[i])
        self.networks.count_from(None)
        if any(improved):
            self._best = self.networks.keep_best(improved, self._best)

    def weights(self, i: int) -> Arrays:
        """Returns the weights of one of the networks as they are."""
        states = self.networks.states(self.networks.values, self.step)
        return states[i].weights

    def save_if_due(self) -> None:
        """Keeps where the networks are, every now and then."""
        if time.perf_counter() - self._written < SECONDS_BETWEEN_CHECKPOINTS:
            return
        states = self.networks.states(self.networks.values, self.step)
        totals = self.networks.counted()
        best: Sequence[State | None] = [None] * len(states)
        if self._best is not None:
            best = self.networks.states(self._best, 0)
        for i in self.alive:
            job = self._jobs[i]
            if job.folder is None:
                continue
            kept = resume.InProgressCheckpoint(
                job=job.digest,
                state=states[i],
                best=best[i],
                captured=self._captured[i],
                curve=self.logs[i].curve,
                totals=totals[i],
                seconds=self._elapsed,
            )
            resume.save(job.folder, kept)
        self._written = time.perf_counter()

    def outcomes(self) -> dict[int, Outcome]:
        """Returns what became of the networks, whose training has ended.

        Returns:
            Index to record, or to `Diverged` if the last step spoilt the
            weights. Networks that `advance` returned are left out.
        """
        values = self.networks.values
        last = self._results(values, list(self._splits))
        held_out = [name for name in self._splits if name != "train"]
        stopped: list[dict[str, EvalResult]] = [{} for _ in self._jobs]
        best: list[State | None] = [None] * len(self._jobs)
        if self._best is not None:
            stopped = self._results(self._best, held_out, per_example=True)
            best = list(self.networks.states(self._best, 0))
        trained = self.networks.states(values, self.step)
        return {
            i: self._run(i, trained[i], best[i], stopped[i], last[i])
            if _stayed_finite(self._jobs[i].start, trained[i])
            else Diverged(self._before, self.step, math.nan)
            for i in self.alive
        }

    def _run(
        self,
        i: int,
        trained: State,
        best: State | None,
        stopped: Mapping[str, EvalResult],
        last: Mapping[str, EvalResult],
    ) -> TrainingResult:
        """Returns the record of one network."""
        return TrainingResult(
            trained=trained.weights,
            best=None if best is None else best.weights,
            metrics={
                "steps": self.step,
                "deciding_metric": self._deciding,
                **self.logs[i].summary(stopped, last),
                "seconds": self._elapsed / len(self._jobs),
            },
            curve=tuple(self.logs[i].curve),
            per_example={
                split: result.per_example
                for split, result in stopped.items()
                if result.per_example is not None
            },
            slots=trained.slots if self._jobs[i].keeps_slots else {},
            captured=self._captured[i],
        )

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


def _stayed_finite(start: State, trained: State) -> bool:
    """Returns whether every weight that was finite at the start still is.

    A loss is that of the weights before its step, so none tells of the last.
    """
    return all(
        np.isfinite(value).all()
        for path, value in trained.weights.items()
        if np.isfinite(start.weights[path]).all()
    )

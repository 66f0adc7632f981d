"""The training loop: steps, evaluations, checkpoints, best weights."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tf_lottery.core import termination
from tf_lottery.training import resume
from tf_lottery.training.history import Log
from tf_lottery.training.input_pipeline import Batch, Buffer
from tf_lottery.training.job import Job
from tf_lottery.training.objective import LOSS, EvalResult
from tf_lottery.training.result import Diverged, Outcome, TrainingResult
from tf_lottery.training.state import Arrays, State

SECONDS_BETWEEN_CHECKPOINTS = 30


class Backend(Protocol):
    """Computes the training steps of one or several networks.

    The networks have the same architecture and take the same number of steps;
    each has its own weights, masks and order of examples. Lists and arrays of
    length `[networks]` follow the order of the networks.

    Attributes:
        device_state: All that training changes (weights, optimizer slots,
            moving statistics) of all networks, in a form of the backend's
            choice. `run` may change it in place; `keep_best` returns a value
            that later steps leave alone.
    """

    device_state: Any

    def run(self, buffer: Buffer, start: int, stop: int) -> np.ndarray:
        """Trains every network on some batches of a buffer.

        Args:
            buffer: The batches, and the examples on the device.
            start: Index of the first batch in the buffer.
            stop: Index after the last batch.

        Returns:
            A loss per network, float64 `[networks]`: nan or infinite once the
            network has diverged.
        """

    def metric_totals(self) -> list[list[np.ndarray]]:
        """Returns, per network, the values of Keras' metrics variables."""

    def set_metric_totals(self, totals: Sequence[Sequence[Any]] | None) -> None:
        """Sets what `metric_totals` returned earlier; None resets metrics."""

    def training_metrics(self) -> list[dict[str, Any]]:
        """Returns, per network, metrics of the steps since the last reset."""

    def evaluate(
        self,
        device_state: Any,
        batches: Iterable[Batch],
        per_example: bool = False,
    ) -> list[EvalResult]:
        """Returns, per network, its loss and metrics on a split.

        Args:
            device_state: Networks in the form of `self.device_state`.
            batches: All batches of the split.
            per_example: Whether to also return the deciding metric of each
                single example.
        """

    def keep_best(self, improved: Sequence[bool], best: Any) -> Any:
        """Returns current states where improved, else the best so far.

        Args:
            improved: Whether a network is better now than ever before, bool
                `[networks]`, at least one of them True.
            best: What `keep_best` returned last; None the first time.
        """

    def unpack_states(self, device_state: Any, step: int) -> list[State]:
        """Returns one `State` per network, labeled with `step`."""

    def pack_states(self, states: Sequence[State]) -> Any:
        """Returns a device state of one `State` per network."""


class TrainingLoop:
    """Trains several networks together and records their metrics.

    A network diverges if its loss becomes nan or infinite. It keeps its index,
    because programs are compiled for a fixed number of networks, but nothing
    of it is recorded from then on.

    Args:
        backend: Computes the steps; it holds the states of `checkpoints`, or
            of the jobs' starts if there are none.
        jobs: One job per network.
        splits: Split name to the batches to evaluate.
        curve_splits: Names of the splits that every evaluation covers; the
            others are evaluated at the early-stop step and at the end only.
        checkpoints: One per job to continue from; empty to start.
        deciding: Name of the metric that decides whether a ticket wins.
    """

    def __init__(
        self,
        backend: Backend,
        jobs: Sequence[Job],
        splits: Mapping[str, Iterable[Batch]],
        curve_splits: Sequence[str],
        checkpoints: Sequence[resume.InProgressCheckpoint],
        deciding: str = LOSS,
    ) -> None:
        self._backend, self._jobs = backend, jobs
        self._deciding = deciding
        self._splits, self._curve_splits = splits, curve_splits
        self.step = (
            checkpoints[0].state.step if checkpoints else jobs[0].start.step
        )
        self._previous_step = self.step
        self.logs = [Log() for _ in jobs]
        self._diverged: set[int] = set()
        self._best: Any = None
        self._captured: list[tuple[State, ...]] = [
            (job.start,) if job.start.step in job.capture else ()
            for job in jobs
        ]
        self._seconds_before = 0.0
        if checkpoints:
            self._restore(checkpoints)
        self._started = self._saved = time.perf_counter()

    def _restore(
        self, checkpoints: Sequence[resume.InProgressCheckpoint]
    ) -> None:
        for log, checkpoint in zip(self.logs, checkpoints, strict=True):
            log.curve = checkpoint.curve
        best = [c.best for c in checkpoints if c.best]
        self._best = self._backend.pack_states(best) if best else None
        self._captured = [c.captured for c in checkpoints]
        self._backend.set_metric_totals([c.totals for c in checkpoints])
        self._seconds_before = max(c.seconds for c in checkpoints)

    @property
    def alive(self) -> list[int]:
        """Indices of the networks that have not diverged."""
        return [i for i in range(len(self._jobs)) if i not in self._diverged]

    def advance(self, buffer: Buffer, stop: int) -> dict[int, Diverged]:
        """Trains up to a step.

        Args:
            buffer: The batches of the steps, from `self.step` on.
            stop: The step to train to, at most `buffer.stop`.

        Returns:
            Index to record of each network that diverged in these steps.
        """
        self._previous_step, first = self.step, buffer.first
        losses = self._backend.run(buffer, self.step - first, stop - first)
        self.step = stop
        if any(stop in job.capture for job in self._jobs):
            states = self._states()
            for i, job in enumerate(self._jobs):
                if stop in job.capture:
                    self._captured[i] += (states[i],)
        diverged = {
            i: Diverged(self._previous_step, stop, float(losses[i]))
            for i in self.alive
            if not np.isfinite(losses[i])
        }
        self._diverged |= diverged.keys()
        return diverged

    def evaluate(self) -> None:
        """Adds a row to every curve and keeps the best weights so far."""
        results = self._evaluate(self._backend.device_state, self._curve_splits)
        training = self._backend.training_metrics()
        improved = [False] * len(self._jobs)
        for i in self.alive:
            improved[i] = self.logs[i].add(self.step, training[i], results[i])
        self._backend.set_metric_totals(None)
        if any(improved):
            self._best = self._backend.keep_best(improved, self._best)

    def weights(self, i: int) -> Arrays:
        """Returns path to value of network `i`'s variables, as they are now."""
        return self._states()[i].weights

    def save_if_due(self) -> None:
        """Writes checkpoints of jobs that have a folder, if time is up.

        Raises:
            Terminated: The process is to end; checkpoints are written.
        """
        if termination.is_requested():
            self._save()
            raise termination.Terminated
        if time.perf_counter() - self._saved >= SECONDS_BETWEEN_CHECKPOINTS:
            self._save()

    def _save(self) -> None:
        states = self._states()
        totals = self._backend.metric_totals()
        best: Sequence[State | None] = [None] * len(states)
        if self._best is not None:
            best = self._backend.unpack_states(self._best, 0)
        for i in self.alive:
            job = self._jobs[i]
            if job.folder is None:
                continue
            checkpoint = resume.InProgressCheckpoint(
                job=job.digest,
                state=states[i],
                best=best[i],
                captured=self._captured[i],
                curve=self.logs[i].curve,
                totals=totals[i],
                seconds=self._elapsed,
            )
            resume.save(job.folder, checkpoint)
        self._saved = time.perf_counter()

    def outcomes(self) -> dict[int, Outcome]:
        """Returns the results, once all steps are taken.

        Returns:
            Index to result, or to `Diverged` if the last step made weights
            nan or infinite. Networks that `advance` returned are left out.
        """
        device_state = self._backend.device_state
        last = self._evaluate(device_state, list(self._splits))
        held_out = [name for name in self._splits if name != "train"]
        stopped: list[dict[str, EvalResult]] = [{} for _ in self._jobs]
        best: list[State | None] = [None] * len(self._jobs)
        if self._best is not None:
            stopped = self._evaluate(self._best, held_out, per_example=True)
            best = list(self._backend.unpack_states(self._best, 0))
        keeps_slots = any(job.keeps_slots for job in self._jobs)
        # A state of step 0 comes without slots.
        step = self.step if keeps_slots else 0
        trained = self._backend.unpack_states(device_state, step)
        return {
            i: self._result(i, trained[i], best[i], stopped[i], last[i])
            if _stayed_finite(self._jobs[i].start, trained[i])
            else Diverged(self._previous_step, self.step, math.nan)
            for i in self.alive
        }

    def _result(
        self,
        i: int,
        trained: State,
        best: State | None,
        stopped: Mapping[str, EvalResult],
        last: Mapping[str, EvalResult],
    ) -> TrainingResult:
        summary = self.logs[i].summary(stopped, last)
        if summary.get("early_stop_step") == self.step:
            best = trained  # the same values: one copy in memory is enough
        return TrainingResult(
            trained=trained.weights,
            best=None if best is None else best.weights,
            metrics={
                "steps": self.step,
                "deciding_metric": self._deciding,
                **summary,
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
        return self._seconds_before + time.perf_counter() - self._started

    def _states(self) -> list[State]:
        return self._backend.unpack_states(
            self._backend.device_state, self.step
        )

    def _evaluate(
        self,
        device_state: Any,
        splits: Sequence[str],
        per_example: bool = False,
    ) -> list[dict[str, EvalResult]]:
        """Returns, per network, split name to result."""
        by_split = {
            name: self._backend.evaluate(
                device_state, self._splits[name], per_example
            )
            for name in splits
        }
        return [
            {name: results[i] for name, results in by_split.items()}
            for i in range(len(self._jobs))
        ]


def _stayed_finite(start: State, trained: State) -> bool:
    """Returns whether every weight that was finite at the start still is.

    A step reports the loss before its update, so no loss covers the weights
    after the last step.
    """
    return all(
        np.isfinite(value).all()
        for path, value in trained.weights.items()
        if np.isfinite(start.weights[path]).all()
    )

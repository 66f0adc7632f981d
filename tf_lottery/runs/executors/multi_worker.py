"""This module knows a crew of workers on several hosts.

They train one network together, under a `MultiWorkerMirroredStrategy`, whose
sums need all of them at the same step. One is the chief: it alone decides what
is trained and keeps what came of it, and the others follow, so what a run
directory holds is never known to some and unknown to others.
"""

import dataclasses
import pathlib
import pickle
import tempfile
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.core.errors import UserError, one_line
from tf_lottery.runs.executors.base import Progress
from tf_lottery.training import Job, Outcome, Trainer, resume
from tf_lottery.training.distribution import strategies

_WORDS = 1 << 20  # of 4 bytes, that are sent at a time

# What TensorFlow raises when a worker is gone.
_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class MultiWorkerExecutor:
    """Trains with all workers, one network after the other.

    Use it as a context: the others are told when it ends.

    Args:
        trainer: What trains, with a strategy of several workers.
        fingerprint: What determines the results, the same on all workers.
    """

    def __init__(self, trainer: Trainer, fingerprint: Any) -> None:
        self._trainer = trainer
        self._tell = _Broadcast(trainer.strategy)
        self._taken: list[Job] = []
        self._result: Any = None
        self._is_alone = False
        self._tell(("begin", fingerprint))

    def __enter__(self) -> "MultiWorkerExecutor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._tell(("end", self._result))
        elif not (self._is_alone or isinstance(error, WorkerLostError)):
            # Else the others are amid sums, which what is said would meet:
            # they notice that this process ends.
            name = type(error).__name__
            self._tell(("error", f"{error}" or f"The chief ended: {name}."))

    def end_with(self, result: Any) -> None:
        """Says what the others shall have at the end."""
        self._result = result

    def free_slots(self, waiting: int) -> int:
        """Returns how many of so many waiting jobs can be taken now."""
        return min(waiting, 1 - len(self._taken))

    def submit(self, job: Job) -> None:
        """Takes the next job."""
        self._taken.append(job)

    def wait(self, progress: Progress) -> list[tuple[Job, Outcome]]:
        """Trains it."""
        (job,), self._taken = self._taken, []
        kept = resume.load_latest([(job.folder, job.digest)])
        self._tell(("job", dataclasses.replace(job, folder=None), kept))

        def tell(_: int, step: int, figures: Mapping[str, float]) -> None:
            self._is_alone = True
            progress(job, step, figures)
            self._is_alone = False

        try:
            (outcome,) = _together(lambda: self._trainer.train([job], tell))
        except ValueError:
            raise  # The others come to it too, unless it is of `progress`.
        except BaseException:
            self._is_alone = True
            raise
        return [(job, outcome)]


def run_worker(trainer: Trainer, fingerprint: Any) -> Any:
    """Trains what the chief says, until it ends.

    Args:
        trainer: As the chief's.
        fingerprint: As the chief's.

    Returns:
        What the chief ends with.

    Raises:
        ValueError: The chief's error, or this worker trains something else.
    """
    hear = _Broadcast(trainer.strategy)
    while True:
        kind, *content = hear()
        if kind == "begin" and content[0] != fingerprint:
            raise UserError(
                "This worker has other settings or other data than the "
                "chief. Start the same command on all of them."
            )
        if kind == "job":
            _run_job(trainer, *content)
        if kind == "error":
            raise UserError(content[0])
        if kind == "end":
            return content[0]


def _run_job(
    trainer: Trainer, job: Job, kept: list[resume.InProgressCheckpoint]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        if kept:
            folder = pathlib.Path(name)
            resume.save(folder, kept[0])
            job = dataclasses.replace(job, folder=folder)
        try:
            _together(lambda: trainer.train([job]))
        except WorkerLostError:
            raise
        except ValueError:
            # It is the chief's as well, who says it next.
            return


class WorkerLostError(UserError):
    """A worker is gone, and training cannot go on without it."""


def _together(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except _GONE as error:
        reason = one_line(error)
        _, _, cause = reason.partition("Collective ops is aborted by: ")
        raise WorkerLostError(
            "A worker is gone, and the others cannot go on without it "
            f"({(cause or reason)[:200]}). Start all of them again: the same "
            "command goes on from here."
        ) from None


class _Broadcast:
    """Carries what the chief says to all workers."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self._speaks = strategies.is_chief(strategy)
        self._sum = self._summed()

    def __call__(self, message: Any = None) -> Any:
        """Says a message, if this is the chief; returns what was said."""
        said = pickle.dumps(message) if self._speaks else b""
        size = int(self._shared(np.array([len(said)], np.int32))[0])
        words = np.zeros(-(-size // 4 // _WORDS) * _WORDS, np.int32)
        words.view(np.uint8)[: len(said)] = np.frombuffer(said, np.uint8)
        parts = [
            self._shared(words[i : i + _WORDS])
            for i in range(0, len(words), _WORDS)
        ]
        return pickle.loads(np.concatenate(parts).tobytes()[:size])

    def _shared(self, words: np.ndarray) -> np.ndarray:
        mine = tf.constant(words if self._speaks else np.zeros_like(words))
        return _together(lambda: self._sum(mine).numpy())

    def _summed(self) -> Callable[[tf.Tensor], tf.Tensor]:
        strategy = self._strategy
        devices = strategy.extended.worker_devices

        @tf.function(autograph=False)
        def run(words: tf.Tensor) -> tf.Tensor:
            def one() -> tf.Tensor:
                context = tf.distribute.get_replica_context()
                number = tf.get_static_value(context.replica_id_in_sync_group)
                first = int(number) % len(devices) == 0
                mine = tf.fingerprint(words) if first else tf.zeros_like(words)
                return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

            return strategy.experimental_local_results(strategy.run(one))[0]

        return run

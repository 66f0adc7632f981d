"""An executor of workers on several hosts.

All workers train one network together, under a `MultiWorkerMirroredStrategy`,
whose sums need all of them at the same step. One worker is the chief: only it
chooses the jobs and stores the outcomes, and the others follow its messages.
So workers never disagree about the content of the run directory.
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
from tf_lottery.runs.executors.base import OnProgress
from tf_lottery.training import Job, Outcome, Trainer, resume
from tf_lottery.training.distribution import strategies

_CHUNK = 1 << 20  # int32 values that are sent at a time

# TensorFlow raises these when a worker is lost.
_WORKER_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class MultiWorkerExecutor:
    """Trains on all workers, one network after another; runs on the chief.

    Use it as a context: at its end it sends the other workers a message.

    Args:
        trainer: The trainer, with a strategy of several workers.
        fingerprint: Everything that determines the results. It must be the
            same on all workers.
    """

    def __init__(self, trainer: Trainer, fingerprint: Any) -> None:
        self._trainer = trainer
        self._send = _Broadcast(trainer.strategy)
        self._submitted: list[Job] = []
        self._result: Any = None
        # Whether the other workers are in training steps, not in a broadcast.
        self._others_train = False
        self._send(("begin", fingerprint))

    def __enter__(self) -> "MultiWorkerExecutor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._send(("end", self._result))
        elif not (self._others_train or isinstance(error, WorkerLostError)):
            # During training steps a message would be taken for a sum. Then
            # the other workers notice that this process ends.
            name = type(error).__name__
            self._send(("error", f"{error}" or f"The chief ended: {name}."))

    def set_result(self, result: Any) -> None:
        """Sets what `run_worker` returns on the other workers.

        Args:
            result: The result; it is pickled.
        """
        self._result = result

    def free_slots(self, waiting: int) -> int:
        """Returns how many of the `waiting` jobs can be submitted now.

        Args:
            waiting: How many jobs the caller has, >= 1.
        """
        return min(waiting, 1 - len(self._submitted))

    def submit(self, job: Job) -> None:
        """Sets the job that the next `wait` trains.

        Args:
            job: The job. There must be a free slot.
        """
        self._submitted.append(job)

    def wait(self, on_progress: OnProgress) -> list[tuple[Job, Outcome]]:
        """Trains the submitted job.

        Args:
            on_progress: Called whenever the job has been evaluated or saved.

        Returns:
            The job, with its outcome.
        """
        (job,), self._submitted = self._submitted, []
        checkpoints = resume.load_latest([(job.folder, job.digest)])
        self._send(("job", dataclasses.replace(job, folder=None), checkpoints))

        def progress(_: int, step: int, metrics: Mapping[str, float]) -> None:
            self._others_train = True
            on_progress(job, step, metrics)
            self._others_train = False

        try:
            (outcome,) = _together(lambda: self._trainer.train([job], progress))
        except ValueError:
            raise  # It is raised on all workers, unless by `on_progress`.
        except BaseException:
            self._others_train = True
            raise
        return [(job, outcome)]


def run_worker(trainer: Trainer, fingerprint: Any) -> Any:
    """Trains the chief's jobs, until the chief ends.

    Args:
        trainer: The trainer, with a strategy of several workers.
        fingerprint: Everything that determines the results.

    Returns:
        The result that the chief set.

    Raises:
        ValueError: The chief's error; or the chief has another fingerprint.
    """
    receive = _Broadcast(trainer.strategy)
    while True:
        kind, *content = receive()
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
    trainer: Trainer, job: Job, checkpoints: list[resume.InProgressCheckpoint]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        if checkpoints:
            folder = pathlib.Path(name)
            resume.save(folder, checkpoints[0])
            job = dataclasses.replace(job, folder=folder)
        try:
            _together(lambda: trainer.train([job]))
        except WorkerLostError:
            raise
        except ValueError:
            return  # The chief has the same error, and sends it next.


class WorkerLostError(UserError):
    """A worker was lost, and training cannot go on without it."""


def _together(function: Callable[[], Any]) -> Any:
    """Calls a function that all workers call; names a worker that is lost."""
    try:
        return function()
    except _WORKER_LOST as error:
        reason = one_line(error)
        _, _, cause = reason.partition("Collective ops is aborted by: ")
        raise WorkerLostError(
            "A worker was lost, and the others cannot go on without it "
            f"({(cause or reason)[:200]}). Start all of them again: the same "
            "command goes on from here."
        ) from None


class _Broadcast:
    """Sends a message of the chief to all workers."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self._is_chief = strategies.is_chief(strategy)
        self._sum = self._compiled_sum()

    def __call__(self, message: Any = None) -> Any:
        """Returns the chief's message; on other workers it is ignored."""
        data = pickle.dumps(message) if self._is_chief else b""
        size = int(self._from_chief(np.array([len(data)], np.int32))[0])
        words = np.zeros(-(-size // 4 // _CHUNK) * _CHUNK, np.int32)
        words.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
        parts = [
            self._from_chief(words[i : i + _CHUNK])
            for i in range(0, len(words), _CHUNK)
        ]
        return pickle.loads(np.concatenate(parts).tobytes()[:size])

    def _from_chief(self, words: np.ndarray) -> np.ndarray:
        """Returns the chief's words: the sum with the others' zeros."""
        term = tf.constant(words if self._is_chief else np.zeros_like(words))
        return _together(lambda: self._sum(term).numpy())

    def _compiled_sum(self) -> Callable[[tf.Tensor], tf.Tensor]:
        strategy = self._strategy
        devices = strategy.extended.worker_devices

        @tf.function(autograph=False)
        def run(words: tf.Tensor) -> tf.Tensor:
            def replica() -> tf.Tensor:
                context = tf.distribute.get_replica_context()
                number = tf.get_static_value(context.replica_id_in_sync_group)
                # Each worker's words count once, however many devices it has.
                is_first = int(number) % len(devices) == 0
                term = tf.identity(words) if is_first else tf.zeros_like(words)
                return context.all_reduce(tf.distribute.ReduceOp.SUM, term)

            return strategy.experimental_local_results(strategy.run(replica))[0]

        return run

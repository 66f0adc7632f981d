"""The program of a worker on a Ray cluster: it trains the jobs it is sent."""

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import queue
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_lottery.core import termination
from tf_lottery.training import Job, Trainer, plan, resume

_SECONDS_BETWEEN_LOOKS = 1  # for a new checkpoint

Event = tuple[str, int, Any]
"""What happened, the index of the job, and the content:

- `"progress"`: step and metrics of the latest evaluation;
- `"checkpoint"`: an `InProgressCheckpoint`;
- `"outcome"`: the outcome of the training, the job's last event.
"""


class RayWorker:
    """Trains networks in a process that Ray starts; Ray makes it an actor.

    All of Keras and TensorFlow runs in one thread, because Keras keeps part of
    its settings for each thread.
    """

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._trainer: Any = None

    def start(
        self, build: Callable[[], Trainer], threads: int | None
    ) -> int | None:
        """Builds the trainer.

        Args:
            build: Returns the trainer.
            threads: TensorFlow's threads on the CPU, >= 1. None: this worker
                has a GPU.

        Returns:
            How many networks the worker trains at once; None: any number.
        """
        return self._thread.submit(self._start, build, threads).result()

    def _start(
        self, build: Callable[[], Trainer], threads: int | None
    ) -> int | None:
        if threads is not None:
            tf.config.set_visible_devices([], "GPU")
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self._trainer = build()
        return plan.max_parallel_jobs(self._trainer)

    def call(self, function: Callable[[Trainer], Any]) -> Any:
        """Returns the result of a function.

        Args:
            function: Called with the trainer.
        """
        return self._thread.submit(function, self._trainer).result()

    def train(
        self,
        jobs: Sequence[Job],
        checkpoints: Sequence[resume.InProgressCheckpoint | None],
    ) -> Iterator[Event]:
        """Trains networks together, and yields what happens as it happens.

        Args:
            jobs: One job per network; their folders are not used.
            checkpoints: Where to continue each job from; None: from its start.
        """
        with tempfile.TemporaryDirectory() as name:
            folders = [pathlib.Path(name) / str(i) for i in range(len(jobs))]
            here = [
                dataclasses.replace(job, folder=folder)
                for job, folder in zip(jobs, folders, strict=True)
            ]
            for folder, checkpoint in zip(folders, checkpoints, strict=True):
                if checkpoint is not None:
                    resume.save(folder, checkpoint)
            events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
            training = self._thread.submit(self._train, here, events)
            yield from _with_checkpoints(here, events)
            with contextlib.suppress(termination.Terminated):
                training.result()  # raises what it raised

    def terminate(self) -> None:
        """Asks `train` to save and to end; Ray calls it at the same time."""
        termination.request()

    def _train(
        self, jobs: Sequence[Job], events: "queue.SimpleQueue[Event | None]"
    ) -> None:
        def progress(i: int, step: int, metrics: Mapping[str, float]) -> None:
            events.put(("progress", i, (step, dict(metrics))))

        try:
            for i, outcome in self._trainer.outcomes(jobs, progress):
                events.put(("outcome", i, outcome))
        finally:
            events.put(None)


def _with_checkpoints(
    jobs: Sequence[Job], events: "queue.SimpleQueue[Event | None]"
) -> Iterator[Event]:
    """Yields events up to None, and each checkpoint that was saved."""
    sent = [resume.latest_step(job.folder, job.digest) for job in jobs]
    has_ended = False
    while not has_ended:
        with contextlib.suppress(queue.Empty):
            event = events.get(timeout=_SECONDS_BETWEEN_LOOKS)
            has_ended = event is None
            if event is not None:
                yield event
        for i, job in enumerate(jobs):
            step = resume.latest_step(job.folder, job.digest)
            if step != sent[i]:
                sent[i] = step
                for saved in resume.load_latest([(job.folder, job.digest)]):
                    yield "checkpoint", i, saved

"""An executor on a Ray cluster: a worker in each free slot of its nodes.

This process alone decides what is trained and writes the run directory. A
worker gets a job with its latest checkpoint, and sends back the checkpoints
that it makes; so whatever happens to a worker or its node, another one goes on
from there.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import pathlib
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from tf_lottery.core import termination
from tf_lottery.core.errors import MissingPackageError, UserError, one_line
from tf_lottery.runs.executors import pickling
from tf_lottery.runs.executors.base import OnProgress
from tf_lottery.runs.executors.ray_worker import RayWorker
from tf_lottery.training import Job, Outcome, State, Trainer, devices, resume

try:
    import ray
except ImportError:
    raise MissingPackageError(
        "`cluster` needs Ray: pip install 'tf-lottery[ray]'."
    ) from None

LOCAL = "local"
"""The address of a cluster that is this machine."""

_MAX_DEATHS = 3  # of workers on one network that gets no further
_MAX_FAILED_STARTS = 10  # one after another, of workers whose process ended
_SECONDS_BETWEEN_WARNINGS = 60
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects this process to a cluster, unless it is connected already.

    Args:
        address: `"local"` starts a cluster of this machine's cores and ends it
            afterwards; `"auto"` finds the cluster that this machine is a node
            of; or the address of its head, such as `"10.0.0.1:6379"`.

    Raises:
        UserError: There is no such cluster.
    """
    if ray.is_initialized():
        yield
        return
    if address.startswith("ray://"):
        raise UserError(
            f"{address!r} is an address of Ray Client. Start the command on a "
            "node of the cluster, with cluster 'auto'."
        )
    _require_reachable(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = {"num_cpus": devices.cores(), "include_dashboard": False}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **(local if address == LOCAL else {}),
        )
    except (
        ConnectionError,
        RuntimeError,
        ValueError,
        ray.exceptions.RayError,
    ) as error:
        raise _not_connected(address, error) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has its own.
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Raises in seconds for what Ray would try to reach for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise _not_connected(address, error) from None


def _not_connected(address: str, error: Exception) -> UserError:
    return UserError(
        f"Ray could not connect to cluster {address!r}: {one_line(error)}. "
        "Is `ray start --head` running there? If it asks for a token, set "
        "RAY_AUTH_MODE=token. 'local' needs no cluster."
    )


@dataclasses.dataclass(eq=False)
class _Task:
    """A job, and what happened to it.

    Attributes:
        job: The job.
        step: The highest step that a worker has reported; -1 before.
        step_at_death: What `step` was when the last worker died.
        deaths: How many workers died since `step` last rose.
    """

    job: Job
    step: int = -1
    step_at_death: int = -1
    deaths: int = 0

    def count_death(self) -> None:
        """Counts the death of a worker; raises if there were too many."""
        rose = self.step > self.step_at_death
        self.deaths = 1 if rose else self.deaths + 1
        self.step_at_death = self.step
        if self.deaths == _MAX_DEATHS:
            raise UserError(
                f"{_MAX_DEATHS} workers died while they trained the network "
                f"of {self.job.folder}, none after step {max(0, self.step)}. "
                "Is memory short on the nodes? The same command goes on from "
                "here."
            )


@dataclasses.dataclass(eq=False)
class _Slot:
    """A worker, or the request for one that Ray has no room for yet.

    Attributes:
        worker: The actor.
        started: What `RayWorker.start` returns; None once it has.
        parallel: How many networks the worker trains at once; None: any.
        tasks: The networks in training by index, if any.
        events: The generator of their events, if there are any.
    """

    worker: Any
    started: Any
    parallel: int | None = 1
    tasks: dict[int, _Task] = dataclasses.field(default_factory=dict)
    events: Any = None

    @property
    def is_idle(self) -> bool:
        """Whether the worker has started and trains nothing."""
        return self.started is None and self.events is None


class RayExecutor:
    """Trains networks on a Ray cluster, one in each slot; on GPUs stacks.

    Use it as a context: its workers are killed at the end. Nodes may come and
    go. There is a request for a worker for each job that waits, so that a
    cluster that can grow does.

    Args:
        build: Returns the trainer; it is pickled and called in each worker.
        cluster: The cluster; see `connected`.
        threads: TensorFlow's threads in each worker, >= 1. With another
            number, sums differ in their last bits.
        cores: Cores of a slot, >= 1; at most those of the largest node. If
            nodes have GPUs, a slot is a GPU.

    Raises:
        UserError: There is no such cluster.
    """

    def __init__(
        self,
        build: Callable[[], Trainer],
        cluster: str,
        threads: int,
        cores: int = 1,
    ) -> None:
        self._exit = contextlib.ExitStack()
        self._exit.enter_context(connected(cluster))
        self._build = ray.put(build)
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._gpus = int(sum(each.get("GPU", 0) for each in resources))
        largest = int(max(each.get("CPU", 0) for each in resources))
        if 0 < largest < cores:
            cores = threads = largest
        self._threads = None if self._gpus else threads
        slot = {"num_gpus": 1} if self._gpus else {"num_cpus": cores}
        # `train` and `terminate` run at the same time.
        self._worker = ray.remote(RayWorker).options(max_concurrency=2, **slot)
        self._slots: list[_Slot] = []
        self._tasks: list[_Task] = []  # submitted, and in no slot
        self._waiting = 0  # jobs of the caller that are not submitted
        self._failed_starts = 0
        self._warned = time.monotonic()

    def __enter__(self) -> "RayExecutor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for slot in self._slots:
            ray.kill(slot.worker)
        self._exit.close()

    def call(self, function: Callable[[Trainer], Any]) -> Any:
        """Returns the result of a function, called in the first worker.

        Args:
            function: Called with the worker's trainer. It is pickled, and so
                is its result.
        """
        while not self.free_slots(1):
            self.wait(lambda *_: None)
        slot = next(slot for slot in self._slots if slot.is_idle)
        with _errors_of_users():
            return ray.get(slot.worker.call.remote(function))

    def free_slots(self, waiting: int) -> int:
        """Returns how many of the `waiting` jobs can be submitted now.

        Args:
            waiting: How many jobs the caller has, >= 1.
        """
        if termination.is_requested():
            return 0
        self._waiting = waiting
        self._request_workers()
        room = sum(
            waiting if slot.parallel is None else slot.parallel
            for slot in self._slots
            if slot.is_idle
        )
        return max(0, min(waiting, room - len(self._tasks)))

    def submit(self, job: Job) -> None:
        """Adds a job to those that the next `wait` sends to workers.

        Args:
            job: The job. There must be a free slot.
        """
        self._tasks.append(_Task(job))
        self._waiting -= 1

    def wait(self, on_progress: OnProgress) -> list[tuple[Job, Outcome]]:
        """Waits until a job ends, or a worker is free for another one.

        Args:
            on_progress: Called whenever a job has been evaluated or saved.

        Returns:
            The jobs that ended, with their outcomes.

        Raises:
            Terminated: This process is to end, and the jobs are saved.
        """
        ended: list[tuple[Job, Outcome]] = []
        is_free = False
        while not (ended or is_free):
            if termination.is_requested():
                self._terminate()
            else:
                self._send_tasks()
                self._request_workers()
            for slot in self._ready():
                try:
                    if slot.started is not None:
                        self._on_start(slot)
                    else:
                        ended += self._on_event(slot, on_progress)
                    is_free |= slot.is_idle
                except ray.exceptions.RayError as error:
                    self._on_death(slot, error)
        return ended

    def _terminate(self) -> None:
        """Asks workers to save; raises `Terminated` once all have."""
        busy = [slot for slot in self._slots if slot.events is not None]
        for slot in busy:
            slot.worker.terminate.remote()
        if not busy:
            raise termination.Terminated

    def _request_workers(self) -> None:
        """Asks for as many workers as there are jobs for them."""
        requested = [slot for slot in self._slots if slot.started is not None]
        idle = sum(slot.is_idle for slot in self._slots)
        count = max(0, self._waiting + len(self._tasks) - idle)
        for slot in requested[count:]:
            self._stop(slot)
        for _ in range(len(requested), count):
            worker = self._worker.remote()
            started = worker.start.remote(self._build, self._threads)
            self._slots.append(_Slot(worker, started))

    def _stop(self, slot: _Slot) -> None:
        ray.kill(slot.worker)
        self._slots.remove(slot)

    def _send_tasks(self) -> None:
        """Sends the submitted jobs to idle workers."""
        for slot in self._slots:
            if self._tasks and slot.is_idle:
                tasks = self._stack(slot.parallel)
                jobs = [task.job for task in tasks]
                slot.tasks = dict(enumerate(tasks))
                slot.events = slot.worker.train.options(
                    num_returns="streaming"
                ).remote(
                    [dataclasses.replace(job, folder=None) for job in jobs],
                    [_checkpoint(job) for job in jobs],
                )

    def _stack(self, parallel: int | None) -> list[_Task]:
        """Takes the tasks that a worker trains together.

        Workers that train any number share the tasks. A stack goes on from
        one step, so its tasks have their latest checkpoints at the same one.
        """
        if parallel is None:
            parallel = -(-len(self._tasks) // max(1, self._gpus))
        first = _latest_step(self._tasks[0])
        alike = (task for task in self._tasks if _latest_step(task) == first)
        stack = list(itertools.islice(alike, parallel))
        self._tasks = [task for task in self._tasks if task not in stack]
        return stack

    def _ready(self) -> list[_Slot]:
        """Waits a second for something to happen; returns where it did."""
        slots = {
            slot.started or slot.events: slot
            for slot in self._slots
            if not slot.is_idle
        }
        ready, _ = ray.wait(list(slots), timeout=1)
        if all(slot.started is not None for slot in self._slots):
            self._warn_of_wait()
        return [slots[each] for each in ready]

    def _warn_of_wait(self) -> None:
        now = time.monotonic()
        if now - self._warned > _SECONDS_BETWEEN_WARNINGS:
            self._warned = now
            _log.warning("No worker of the cluster has started yet.")

    def _on_start(self, slot: _Slot) -> None:
        with _errors_of_users():
            slot.parallel = ray.get(slot.started)
        slot.started = None
        self._failed_starts = 0

    def _on_event(
        self, slot: _Slot, on_progress: OnProgress
    ) -> list[tuple[Job, Outcome]]:
        """Returns the job that ended, if the next event says so."""
        try:
            with _errors_of_users():
                kind, i, content = ray.get(next(slot.events))
        except StopIteration:
            slot.events = None
            return []
        task = slot.tasks[i]
        if kind == "outcome":
            del slot.tasks[i]
            return [(task.job, content)]
        if kind == "checkpoint":
            if task.job.folder is not None:
                resume.save(task.job.folder, content)
            return []
        step, metrics = content
        task.step = max(task.step, step)
        on_progress(task.job, step, metrics)
        return []

    def _on_death(self, slot: _Slot, error: Exception) -> None:
        """Replaces a worker that was lost; its jobs go on in other workers."""
        self._stop(slot)
        if slot.started is not None:
            self._failed_starts += 1
            has_died = isinstance(error, ray.exceptions.RayActorError)
            if (
                not has_died
                or getattr(error, "actor_init_failed", False)
                or self._failed_starts == _MAX_FAILED_STARTS
            ):
                raise UserError(
                    f"No worker starts on the cluster: {_last_line(error)} Its "
                    "nodes need the Python, tf-lottery and Ray of this one."
                ) from None
        for task in slot.tasks.values():
            task.count_death()
        self._tasks = [*slot.tasks.values(), *self._tasks]


@contextlib.contextmanager
def cluster_executor(
    trainer: Trainer,
    cluster: str,
    start: State,
    warn: Callable[[str], None],
    architecture: str | None = None,
) -> Iterator[RayExecutor]:
    """Yields an executor on a cluster, for models that users define.

    Args:
        trainer: The trainer.
        cluster: The cluster; see `connected`.
        start: A state to take two training steps from, here and in a worker.
        warn: Called with a message if results differ.
        architecture: A model, as JSON, that a worker must be able to rebuild
            too, for controls that rebuild it.

    Raises:
        UserError: There is no such cluster, or the trainer cannot be sent.
    """
    digest = functools.partial(
        pickling.training_digest, start=start, architecture=architecture
    )
    build = _pickled(trainer)
    with RayExecutor(build, cluster, devices.threads()) as executor:
        if executor.call(digest) != digest(trainer):
            warn(
                "Two training steps give another result on the cluster than "
                "here: it has other processors or versions, or what was sent "
                "there depends on this process."
            )
        yield executor


def _pickled(trainer: Trainer) -> Callable[[], Trainer]:
    with tempfile.TemporaryDirectory() as name:
        try:
            pickling.pickle_trainer(trainer, pathlib.Path(name))
        except Exception as error:  # noqa: BLE001 - a user's objects
            raise UserError(
                "The trainer cannot be sent to other machines: "
                f"{one_line(error, 200)}. Leave out `cluster`, or change that."
            ) from None
        return pickling.in_memory(pathlib.Path(name))


def _checkpoint(job: Job) -> resume.InProgressCheckpoint | None:
    return next(iter(resume.load_latest([(job.folder, job.digest)])), None)


def _latest_step(task: _Task) -> int | None:
    return resume.latest_step(task.job.folder, task.job.digest)


@contextlib.contextmanager
def _errors_of_users() -> Iterator[None]:
    """Raises what a worker's code raised, with the traceback as a note."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if not isinstance(cause, Exception):
            raise RuntimeError(one_line(error, 2000)) from None
        cause.add_note(f"{error}")
        raise cause from None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line), "")[:300]

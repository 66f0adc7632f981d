"""An executor of several processes on one machine.

Each process has one core or a few of its own. On two cores, two processes of
one thread take more steps a second than one process of two, for small networks
keep few cores busy.
"""

import multiprocessing.connection
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tf_lottery.core import termination
from tf_lottery.core.errors import UserError
from tf_lottery.runs.executors.base import OnProgress
from tf_lottery.training import Job, Outcome, Trainer, plan


class ProcessPool:
    """Trains one network at a time in each of several processes.

    Use it as a context: its processes are killed at the end.

    Args:
        build: Returns the trainer; it is pickled and called in each process.
        workers: How many processes, >= 1.
        threads: TensorFlow's threads in each process, >= 1. None: an equal
            share of the cores, which is fastest. With another number of
            threads, sums differ in their last bits; `devices.threads` gives
            the number of this process.
    """

    def __init__(
        self,
        build: Callable[[], Trainer],
        workers: int,
        threads: int | None = None,
    ) -> None:
        threads = threads or plan.threads(workers)
        self._workers = [_WorkerProcess(build, threads) for _ in range(workers)]

    def __enter__(self) -> "ProcessPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.stop()

    def broadcast(self, function: Callable[[Trainer], Any]) -> None:
        """Starts a call of a function in every process; see `gather`.

        Args:
            function: Called with the process's trainer. It is pickled, and so
                is its result.
        """
        for worker in self._workers:
            worker.send(function)

    def gather(self) -> list[Any]:
        """Returns the results of `broadcast`; raises a worker's exception."""
        return [worker.receive()[1] for worker in self._workers]

    def free_slots(self, waiting: int) -> int:
        """Returns how many of the `waiting` jobs can be submitted now.

        Args:
            waiting: How many jobs the caller has, >= 1.
        """
        if termination.is_requested():
            return 0
        return min(waiting, len(self._free()))

    def submit(self, job: Job) -> None:
        """Sends a job to a free process.

        Args:
            job: The job. There must be a free slot.
        """
        worker = self._free()[0]
        worker.job = job
        worker.send(job)

    def _free(self) -> "list[_WorkerProcess]":
        return [worker for worker in self._workers if worker.job is None]

    def wait(self, on_progress: OnProgress) -> list[tuple[Job, Outcome]]:
        """Waits until a job ends.

        Args:
            on_progress: Called whenever a job has been evaluated or saved.

        Returns:
            The jobs that ended, at least one, with their outcomes.

        Raises:
            Terminated: This process is to end, and the jobs are saved.
        """
        ended: list[tuple[Job, Outcome]] = []
        while not ended:
            busy = {w.connection: w for w in self._workers if w.job}
            if termination.is_requested():
                self._terminate()
            for ready in multiprocessing.connection.wait(list(busy), timeout=1):
                worker = busy[ready]  # type: ignore[index]
                kind, *content = worker.receive()
                if kind == "progress":
                    on_progress(worker.job, *content)
                elif kind == "terminated":
                    worker.job = None
                else:
                    ended.append((worker.job, content[0]))
                    worker.job = None
        return ended

    def _terminate(self) -> None:
        """Passes SIGTERM on; raises `Terminated` once all jobs are saved."""
        busy = [worker for worker in self._workers if worker.job]
        for worker in busy:
            worker.terminate()
        if not busy:
            raise termination.Terminated


class _WorkerProcess:
    """A process that runs `tf_lottery.runs.executors.pool_worker`.

    `multiprocessing` would run the user's main module again.
    """

    def __init__(self, build: Callable[[], Trainer], threads: int) -> None:
        self.job: Any = None
        ours, theirs = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tf_lottery.runs.executors.pool_worker"]
            + [str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            # Ctrl-C must reach the parent process only.
            start_new_session=True,
        )
        theirs.close()
        self.connection = multiprocessing.connection.Connection(ours.detach())
        self.send(threads)
        self.send(build)

    def send(self, message: Any) -> None:
        """Sends a message."""
        try:
            self.connection.send(message)
        except OSError:
            raise self._death() from None

    def receive(self) -> tuple[Any, ...]:
        """Returns the next message; raises the exception that it carries."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            if termination.is_requested():  # Before it could save anything.
                return ("terminated",)
            raise self._death() from None
        if message[0] == "error":
            raise message[1]
        return message

    def _death(self) -> UserError:
        status = self._process.wait()
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return UserError(
            f"A training process ended with status {status}"
            f"{': ' + last.strip() if status > 0 and last else ''}. "
            f"{'Was memory short? ' if status == -9 else ''}"
            "The same command goes on from here."
        )

    def terminate(self) -> None:
        """Asks the process to save its job."""
        self._process.terminate()

    def stop(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.wait()
        self.connection.close()
        self._output.close()

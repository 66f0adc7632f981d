"""This module knows a crew of several processes on one machine.

Each process has a core, or a few, for itself. On two cores, two processes of
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

from tf_lottery.runs.executors.base import Progress
from tf_lottery.training import Job, Outcome, Trainer, devices


class ProcessPool:
    """Trains in processes of their own, one network in each at a time.

    Args:
        build: Returns the trainer; it travels to each process by pickle.
        count: How many processes.
        threads: Of TensorFlow's in each. None: a fair share of the cores,
            which is fastest. Sums over other numbers of threads are other
            sums in their last bits; `devices.threads` gives those of this
            process.
    """

    def __init__(
        self,
        build: Callable[[], Trainer],
        count: int,
        threads: int | None = None,
    ) -> None:
        threads = threads or max(1, devices.cores() // count)
        self._workers = [_WorkerProcess(build, threads) for _ in range(count)]

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

    def ask(self, question: Callable[[Trainer], Any]) -> None:
        """Asks all processes something about their trainer.

        Args:
            question: It travels by pickle, and so does what it returns.
        """
        for worker in self._workers:
            worker.ask(question)

    def answers(self) -> list[Any]:
        """Returns what they answer; raises what one of them raised."""
        return [worker.receive()[1] for worker in self._workers]

    def free_slots(self, waiting: int) -> int:
        """Returns how many of so many waiting jobs can be taken now."""
        return min(waiting, len(self._free()))

    def submit(self, job: Job) -> None:
        """Gives a process that is free a job."""
        self._free()[0].start(job)

    def _free(self) -> "list[_WorkerProcess]":
        return [worker for worker in self._workers if worker.job is None]

    def wait(self, progress: Progress) -> list[tuple[Job, Outcome]]:
        """Waits until a process is done."""
        done: list[tuple[Job, Outcome]] = []
        while not done:
            busy = {w.connection: w for w in self._workers if w.job}
            for ready in multiprocessing.connection.wait(list(busy)):
                worker = busy[ready]  # type: ignore[index]
                kind, *content = worker.receive()
                if kind == "progress":
                    progress(worker.job, *content)
                else:
                    done.append((worker.job, content[0]))
                    worker.job = None
        return done


class _WorkerProcess:
    """A process that runs `tf_lottery.runs.executors.pool_worker`.

    Not by `multiprocessing`, which would run the user's main module again.
    """

    def __init__(self, build: Callable[[], Trainer], threads: int) -> None:
        self.job: Any = None
        here, there = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tf_lottery.runs.executors.pool_worker"]
            + [str(there.fileno())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            # Ctrl-C is for the one who started it.
            start_new_session=True,
        )
        there.close()
        self.connection = multiprocessing.connection.Connection(here.detach())
        self._send(threads)
        self._send(build)

    def start(self, job: Job) -> None:
        """Gives it a job."""
        self.job = job
        self._send(job)

    def ask(self, question: Callable[[Trainer], Any]) -> None:
        """Asks it something about its trainer."""
        self._send(question)

    def _send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:
            raise self._died() from None

    def receive(self) -> tuple[Any, ...]:
        """Returns what it says next; raises what it raised."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if message[0] == "error":
            raise message[1]
        return message

    def _died(self) -> ValueError:
        status = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return ValueError(
            f"A training process ended with status {status}"
            f"{': ' + last.strip() if status > 0 and last else ''}. "
            f"{'Was memory short? ' if status == -9 else ''}"
            "The same command goes on from here."
        )

    def stop(self) -> None:
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self.connection.close()
        self._said.close()

"""Executors: they train the networks of a run, as `training.plan` chooses.

All have the interface `Executor`, which is like that of an executor of
`concurrent.futures`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tf_lottery.runs.executors.all_cores import all_cores_executor
from tf_lottery.runs.executors.base import Executor, OnProgress
from tf_lottery.runs.executors.in_process import InProcessExecutor
from tf_lottery.runs.executors.multi_worker import (
    MultiWorkerExecutor,
    run_worker,
)
from tf_lottery.runs.executors.process_pool import ProcessPool
from tf_lottery.training import Trainer, plan

__all__ = [
    "Executor",
    "InProcessExecutor",
    "MultiWorkerExecutor",
    "OnProgress",
    "ProcessPool",
    "all_cores_executor",
    "create",
    "run_worker",
]


@contextlib.contextmanager
def create(
    trainer: Trainer,
    executor: str,
    workers: int,
    build: Callable[[], Trainer],
    fingerprint: Any,
) -> Iterator[Executor]:
    """Yields the executor that a plan names; ends its processes afterwards.

    Args:
        trainer: The trainer of this process.
        executor: Name of a module of this package.
        workers: Processes of a process pool, >= 2.
        build: Builds the trainer in a process of the pool; it is pickled.
        fingerprint: Everything that determines the results, the same on all
            workers of several hosts.
    """
    if executor == plan.MULTI_WORKER:
        with MultiWorkerExecutor(trainer, fingerprint) as chief:
            yield chief
    elif executor == plan.PROCESS_POOL:
        with ProcessPool(build, workers) as pool:
            yield pool
    else:
        yield InProcessExecutor(trainer)

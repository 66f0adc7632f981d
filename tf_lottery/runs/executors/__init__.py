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
    "cluster_executor",
    "connected",
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
    cluster: str | None = None,
) -> Iterator[Executor]:
    """Yields the executor that a plan names; ends its processes afterwards.

    Args:
        trainer: The trainer of this process.
        executor: Name of a module of this package.
        workers: Processes of a process pool, >= 1.
        build: Builds the trainer in another process; it is pickled.
        fingerprint: Everything that determines the results, the same on all
            workers of several hosts.
        cluster: The Ray cluster of the executor on a cluster.
    """
    if executor == plan.MULTI_WORKER:
        with MultiWorkerExecutor(trainer, fingerprint) as chief:
            yield chief
    elif executor == plan.RAY_CLUSTER:
        # It needs an optional package.
        from tf_lottery.runs.executors import ray_cluster

        threads = plan.threads(workers)
        with ray_cluster.RayExecutor(
            build, f"{cluster}", threads, threads
        ) as ray_executor:
            yield ray_executor
    elif executor == plan.PROCESS_POOL:
        with ProcessPool(build, workers) as pool:
            yield pool
    else:
        yield InProcessExecutor(trainer)


def connected(
    cluster: str | None,
) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which several executors share a cluster.

    Args:
        cluster: The Ray cluster, or None.
    """
    if cluster is None:
        return contextlib.nullcontext()
    from tf_lottery.runs.executors import ray_cluster

    return ray_cluster.connected(cluster)


def cluster_executor(
    trainer: Trainer, cluster: str, *arguments: Any
) -> contextlib.AbstractContextManager[Executor]:
    """Returns `ray_cluster.cluster_executor`, which needs an extra package.

    Args:
        trainer: The trainer.
        cluster: The Ray cluster.
        *arguments: Its other arguments.
    """
    from tf_lottery.runs.executors import ray_cluster

    return ray_cluster.cluster_executor(trainer, cluster, *arguments)

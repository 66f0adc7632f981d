"""How networks are trained on this machine: the one place that decides.

The trainer builds the backend that `choose_backend` names, executors are
chosen by `plan`, and `tf-lottery run --explain` prints that very plan.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_lottery.training import devices
from tf_lottery.training.backends import sparse
from tf_lottery.training.distribution import strategies

if TYPE_CHECKING:
    from tf_lottery.training.trainer import Trainer

SPARSE_CPU = "sparse_cpu"
DENSE = "dense"
CUSTOM_STEP = "custom_step"
DATA_PARALLEL = "data_parallel"
PER_DEVICE = "per_device"

IN_PROCESS = "in_process"
PROCESS_POOL = "process_pool"
MULTI_WORKER = "multi_worker"
RAY_CLUSTER = "ray_cluster"

_WORTH_PROCESSES = 20_000  # steps; fewer end before the processes have started
_PROCESS_BYTES = 1.5e9  # TensorFlow and its compiler
_STATES = 8
"""States of a network in a process: variables, what a step reads and returns,
gradients, the best weights, results. An estimate, rounded up."""

Masks = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class BackendChoice:
    """The backend of networks that train at the same time, and why.

    Attributes:
        backend: Name of a module of `training.backends`.
        reason: Why this one.
    """

    backend: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}"


def choose_backend(
    trainer: "Trainer", masks: Sequence[Masks], on_one_device: bool = False
) -> BackendChoice:
    """Returns which backend trains some networks together.

    Args:
        trainer: The trainer.
        masks: For each network, kernel path to a bool array of its shape.
        on_one_device: Whether one device of the trainer's strategy trains
            them without the others.
    """
    if trainer.strategy is not None and not on_one_device:
        if len(masks) == 1:
            return BackendChoice(DATA_PARALLEL, "replicas share every batch")
        return BackendChoice(PER_DEVICE, "each device trains its own networks")
    if trainer.has_custom_step:
        return BackendChoice(CUSTOM_STEP, "the model has its own train_step")
    reason = why_not_sparse(trainer, masks)
    if reason is None:
        return BackendChoice(SPARSE_CPU, "pruned weights cost nothing")
    return BackendChoice(DENSE, reason)


def why_not_sparse(trainer: "Trainer", masks: Sequence[Masks]) -> str | None:
    """Returns why networks do not train on their survivors alone, or None.

    Args:
        trainer: The trainer.
        masks: For each network, kernel path to a bool array of its shape.
    """
    if len(masks) > 1:
        return "several networks share one program"
    if trainer.has_custom_step:
        return "the model has its own train_step"
    if devices.has_gpu():
        return "a GPU multiplies densely"
    if trainer.strategy is not None:
        return "the devices of a strategy multiply densely"
    return sparse.unsupported_reason(
        trainer.model,
        trainer.recipe,
        trainer.network.objective,
        trainer.data,
        masks[0],
    )


def max_parallel_jobs(trainer: "Trainer") -> int | None:
    """Returns how many networks one process trains at once; None: any number.

    On a GPU, 128 stacked LeNets take a tenth of the time that they take one
    after another (H100); on a CPU a stack is no faster, and every number of
    networks would compile a program of its own.

    Args:
        trainer: What trains the networks.
    """
    strategy = trainer.strategy
    if strategy is not None and not strategies.trains_apart(strategy):
        return 1
    if devices.has_gpu():
        return None
    return 1 if strategy is None else len(strategy.extended.worker_devices)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the networks of a run are trained on this machine.

    Attributes:
        networks: How many are trained.
        steps: Training steps of each.
        device: `"GPU"` or `"CPU"`.
        strategy: The strategy of `tf.distribute` in words.
        executor: Name of a module of `runs.executors`.
        workers: How many processes train; on a cluster, how many would here.
        cluster: The Ray cluster that trains, or None.
        limit: Why not more, if memory is why; else empty.
        parallel: How many networks each process trains at once.
        dense: The backend of a dense network.
        ticket: The backend of a ticket that is sparse enough.
        stacking: How several networks share one program, and why.
        compiled: Whether XLA compiles the steps.
    """

    networks: int
    steps: int
    device: str
    strategy: str
    executor: str
    workers: int
    cluster: str | None
    limit: str
    parallel: int
    dense: BackendChoice
    ticket: BackendChoice
    stacking: str
    compiled: bool

    def lines(self) -> list[str]:
        """Returns the plan as text, one decision a line."""
        return [
            f"networks   {self.networks:,} of {self.steps:,} steps each",
            f"device     {self.device}",
            f"strategy   {self.strategy}",
            f"executor   {self.executor}",
            f"processes  {self._processes}",
            f"at once    {self.parallel} in each process",
            f"dense      {self.dense}",
            f"ticket     {self.ticket}",
            f"stacks     {self.stacking}",
            f"compiled   {'by XLA' if self.compiled else 'without XLA'}",
        ]

    @property
    def _processes(self) -> str:
        if self.cluster is None:
            return f"{self.workers}{self.limit and f': {self.limit}'}"
        cores = threads(self.workers)
        return (
            f"one for each {f'{cores} cores' if cores > 1 else 'core'}, or "
            f"each GPU, of cluster {self.cluster!r}"
        )


def plan(
    trainer: "Trainer",
    networks: int,
    independent: int,
    workers: int | None = None,
    cluster: str | None = None,
) -> Plan:
    """Returns how the networks of a run are trained on this machine.

    Args:
        trainer: What trains them.
        networks: How many are trained, >= 0.
        independent: How many of them never wait for each other, >= 1.
        workers: How many processes train them; None: the fastest number.
        cluster: The Ray cluster that trains them; None: this machine.
    """
    steps = networks * trainer.steps
    executor, count = choose_executor(
        trainer, steps, independent, workers, cluster
    )
    at_once = max_parallel_jobs(trainer)
    stacking, reason = trainer.stacking(max(2, independent))
    shapes = {
        path: trainer.network.variables[path].shape
        for path in trainer.network.masked
    }
    ones = {path: np.ones(shape, bool) for path, shape in shapes.items()}
    none = {path: np.zeros(shape, bool) for path, shape in shapes.items()}
    return Plan(
        networks=networks,
        steps=trainer.steps,
        device="GPU" if devices.has_gpu() else "CPU",
        strategy=strategies.described(trainer.strategy),
        executor=executor,
        workers=count,
        cluster=cluster,
        limit="" if workers else _memory_limit(trainer, steps, independent),
        parallel=independent if at_once is None else at_once,
        dense=choose_backend(trainer, [ones]),
        ticket=choose_backend(trainer, [none]),
        stacking=f"{stacking}: {reason}",
        compiled=trainer.compiles_with_xla,
    )


def choose_executor(
    trainer: "Trainer",
    steps: int,
    independent: int,
    workers: int | None = None,
    cluster: str | None = None,
) -> tuple[str, int]:
    """Returns the name of the fastest executor, and its number of processes.

    On two cores, two processes of one thread take more steps per second than
    one process of two: small networks keep few cores busy. No more processes
    start than fit into the memory that is available. A cluster has as many as
    it has room for; the number is that of a pool here, whose share of the
    cores (`threads`) each of them gets.

    Args:
        trainer: What trains the networks.
        steps: Training steps of all networks together.
        independent: How many networks never wait for each other, >= 1.
        workers: How many processes; None: the fastest number.
        cluster: The Ray cluster that trains them; None: this machine.
    """
    if cluster is not None:
        return RAY_CLUSTER, min(independent, devices.cores())
    if strategies.has_workers(trainer.strategy):
        return MULTI_WORKER, 1
    if trainer.strategy is not None:
        return IN_PROCESS, 1
    if workers is None:
        workers = min(_wanted(steps, independent), _fitting(trainer))
    return (PROCESS_POOL if workers > 1 else IN_PROCESS), max(1, workers)


def threads(workers: int) -> int:
    """Returns how many threads each of several processes has, at least 1.

    Args:
        workers: How many processes share this machine's cores, >= 1.
    """
    return max(1, devices.cores() // workers)


def _wanted(steps: int, independent: int) -> int:
    """Returns the number of processes that is fastest, if all of them fit."""
    few = devices.has_gpu() or steps < _WORTH_PROCESSES
    return 1 if few else min(independent, devices.cores())


def _fitting(trainer: "Trainer") -> int:
    """Returns how many processes fit into memory, at least this one."""
    available = devices.available_memory()
    if available is None:
        return devices.cores()
    return max(1, int(available / _process_bytes(trainer)))


def _process_bytes(trainer: "Trainer") -> float:
    """Returns how much memory a process takes that trains a network."""
    network = trainer.network
    variables = (*network.variables.values(), *network.slots.values())
    state = sum(math.prod(v.shape) * v.value.dtype.size for v in variables)
    data = trainer.data.train.nbytes
    return _PROCESS_BYTES + _STATES * state + data


def _memory_limit(trainer: "Trainer", steps: int, independent: int) -> str:
    """Returns why not more processes train, if memory is why; else empty."""
    fits = _fitting(trainer) >= _wanted(steps, independent)
    if trainer.strategy is not None or fits:
        return ""
    available = devices.available_memory() or 0
    return (
        f"{available / 1e9:.1f} GB of memory are available, and a process "
        f"takes {_process_bytes(trainer) / 1e9:.1f} GB"
    )

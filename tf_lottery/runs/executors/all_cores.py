"""An executor on all cores, for models that users define."""

import contextlib
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from tf_lottery.core.errors import UserError, one_line
from tf_lottery.runs.executors.base import Executor
from tf_lottery.runs.executors.in_process import InProcessExecutor
from tf_lottery.runs.executors.pickling import pickle_trainer, training_digest
from tf_lottery.runs.executors.process_pool import ProcessPool
from tf_lottery.training import State, Trainer, devices, plan


@contextlib.contextmanager
def all_cores_executor(
    trainer: Trainer,
    networks: int,
    steps: int,
    start: State,
    warn: Callable[[str], None],
    architecture: str | None = None,
) -> Iterator[Executor]:
    """Yields a process pool on a CPU, or else an executor in this process.

    Both train a network to the same bytes. Each process of the pool builds
    the trainer from a pickle and takes two training steps, and so does this
    process. If results differ, or an object cannot be pickled, all networks
    train in this process.

    Args:
        trainer: The trainer.
        networks: How many networks are independent of each other, >= 1.
        steps: Training steps of all networks together, >= 0.
        start: A state to take steps from.
        warn: Called with a message if the pool cannot be used.
        architecture: A model, as JSON, that each process must be able to
            rebuild too, for controls that rebuild it.
    """
    _, workers = plan.choose_executor(trainer, steps, networks)
    with contextlib.ExitStack() as stack:
        executor: Executor | None = None
        if workers > 1:
            digest = functools.partial(
                training_digest, start=start, architecture=architecture
            )
            try:
                executor = _pool(trainer, workers, digest, stack)
            except Exception as error:  # noqa: BLE001 - a user's objects
                stack.close()
                warn(
                    "All networks train in this process, in turn, because "
                    "the trainer cannot be sent to other processes: "
                    f"{one_line(error, 200)}"
                )
        yield executor or InProcessExecutor(trainer)


def _pool(
    trainer: Trainer,
    workers: int,
    digest: Callable[[Trainer], str],
    stack: contextlib.ExitStack,
) -> ProcessPool:
    """Returns a pool; raises if it does not train as this process does."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    build = pickle_trainer(trainer, pathlib.Path(folder))
    # With another number of threads, sums differ in their last bits.
    pool = ProcessPool(build, workers, devices.threads())
    stack.enter_context(pool)
    pool.broadcast(digest)
    expected = digest(trainer)
    if set(pool.gather()) != {expected}:
        raise UserError("two training steps give another result there.")
    return pool

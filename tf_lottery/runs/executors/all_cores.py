"""A crew on all cores, for whatever model a user defined."""

import contextlib
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from tf_lottery.core.errors import UserError
from tf_lottery.runs.executors.base import Executor
from tf_lottery.runs.executors.in_process import InProcessExecutor
from tf_lottery.runs.executors.pickling import pack, probe
from tf_lottery.runs.executors.process_pool import ProcessPool
from tf_lottery.training import State, Trainer, devices, plan


@contextlib.contextmanager
def all_cores_executor(
    trainer: Trainer,
    networks: int,
    steps: int,
    start: State,
    say: Callable[[str], None],
    architecture: str | None = None,
) -> Iterator[Executor]:
    """Yields who trains networks: processes on a CPU, or this one alone.

    A network is the same bytes in either. Each process builds the trainer
    that travelled to it, and takes two steps, as this one does; where they
    come to anything else, or something cannot travel, all networks train in
    this process, and a line says why.

    Args:
        trainer: What trains them.
        networks: How many do not wait for each other.
        steps: Training steps of all networks together.
        start: A state to take steps from.
        say: Called with the line.
        architecture: A model that must be rebuilt in each process too.
    """
    _, count = plan.choose_executor(trainer, steps, networks)
    with contextlib.ExitStack() as stack:
        executor: Executor | None = None
        if count > 1:
            question = functools.partial(
                probe, start=start, architecture=architecture
            )
            try:
                executor = _processes(trainer, count, question, stack)
            except Exception as error:  # noqa: BLE001 - a user's objects
                stack.close()
                reason = " ".join(f"{error}".split())[:200]
                say(
                    "All networks train in this process, in turn, for what "
                    "trains them cannot travel to others: "
                    f"{reason or type(error).__name__}"
                )
        yield executor or InProcessExecutor(trainer)


def _processes(
    trainer: Trainer,
    count: int,
    question: Callable[[Trainer], str],
    stack: contextlib.ExitStack,
) -> ProcessPool:
    """Returns processes that train as this one; raises if they do not."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    build = pack(trainer, pathlib.Path(folder))
    # With other threads the last bits would be others.
    executor = ProcessPool(build, count, devices.threads())
    stack.enter_context(executor)
    executor.ask(question)
    expected = question(trainer)
    if set(executor.answers()) != {expected}:
        raise UserError("two steps of training end otherwise there.")
    return executor

"""This module knows sweeps: one experiment under several settings."""

import contextlib
import itertools
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.core.storage.leases import Leases
from tf_lottery.experiment.config import Config
from tf_lottery.experiment.runner import (
    AllDivergedError,
    open_run,
    prepare,
    run_experiment,
)
from tf_lottery.experiment.shard import Shard
from tf_lottery.runs import run_directory
from tf_lottery.runs.executors import (
    MultiWorkerExecutor,
    run_worker,
)
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training.distribution import strategies


def expand(config: Config, settings: Mapping[str, Any]) -> dict[str, Config]:
    """Returns the configurations that settings describe, by label.

    A setting that is a list of values stands for each of them; several such
    settings for every combination. Of a setting that is a list itself
    (`controls`, `milestones`), a list of lists.

    Args:
        config: What the settings change.
        settings: As `Config.replace` takes them.

    Returns:
        Label, such as `"rate=0.1"`, to configuration; the label of a single
        one is `""`.

    Raises:
        ValueError: As `Config.replace`, or two values have one label.

    Example:
        >>> list(expand(Config(), {"rate": "[0.1, 0.2]", "batch_size": 60}))
        ['rate=0.1', 'rate=0.2']
    """
    axes = {
        name: values
        for name, value in settings.items()
        if (values := _values(config, name, value)) is not None
    }
    found: dict[str, Config] = {}
    for point in itertools.product(*axes.values()):
        chosen = dict(zip(axes, point, strict=True))
        label = ",".join(f"{n}={_text(v)}" for n, v in chosen.items())
        if label in found:
            raise UserError(f"Two values of the sweep are both {label!r}.")
        found[label] = config.replace({**settings, **chosen})
    return found


def _values(config: Config, name: str, value: Any) -> list[Any] | None:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise UserError(
                f"`{name}` begins as a list of values and is none: {value!r}."
            ) from None
    if not isinstance(value, list) or not value:
        return None
    is_list = isinstance(getattr(config, name, None), tuple)
    if is_list and not all(isinstance(each, list) for each in value):
        return None
    return value


def _text(value: Any) -> str:
    """Returns a value as the name of a folder can hold it."""
    text = json.dumps(value, separators=("-", "="), sort_keys=True)
    return re.sub(r"[^\w.=+-]", "", text)


def run_sweep(
    configs: Mapping[str, Config],
    run_dir: str | os.PathLike[str],
    preset: str = "",
    verbose: bool = True,
    shard: Shard = Shard(),  # noqa: B008 - it is frozen
    strategy: tf.distribute.Strategy | None = None,
    **how: Any,
) -> list[RunDirectory]:
    """Runs an experiment under several settings, one run directory for each.

    What two of them have in common is trained once: the dense network of all
    pruning rates, criteria, allocations and steps to rewind to, and every
    ticket with the same masks and start.

    Of several processes each begins with a run that no other one works on;
    when there is none left, it helps with the others'.

    A run in which every dense network diverged does not end the sweep: of
    several learning rates one may be too high.

    Args:
        configs: Label to settings, as `expand` returns.
        run_dir: The folder of the run directories, named by label; or its
            address in a bucket.
        preset: The preset's name, for the records.
        verbose: Show progress.
        shard: Which of all runs' replicates this process trains.
        strategy: As `run_experiment` takes it.
        **how: What else `run_experiment` takes.

    Returns:
        The run directories; none on a worker that is not the chief.

    Raises:
        ValueError: As `run_experiment`; or `run_dir` is a single run, or
            another sweep.
    """
    # `pathlib` joins addresses in a bucket too, which are understood so.
    folder = pathlib.Path(run_dir)
    digests = {}
    for label, config in configs.items():
        _, trainer, _ = prepare(config, how.get("data_dir"), strategy)
        digests[label] = trainer.data.digest
    if not strategies.is_chief(strategy):
        run_worker(trainer, digests)
        for label, config in configs.items():
            with contextlib.suppress(AllDivergedError):
                run_experiment(config, folder / label, strategy=strategy, **how)
        return []
    deterministic = how.get("deterministic", False)
    with contextlib.ExitStack() as stack:
        if strategies.has_workers(strategy):
            # The others are told what is wrong.
            stack.enter_context(MultiWorkerExecutor(trainer, digests))
        _require_one_sweep(run_dir, configs, digests)
        # All of them at once, so that any process finds what any other keeps.
        runs = {
            label: open_run(
                config,
                folder / label,
                preset,
                digests[label],
                deterministic,
                strategy=strategy,
            )
            for label, config in configs.items()
        }
    shards = shard.within({n: c.looks.last for n, c in configs.items()})
    left = [n for n, c in configs.items() if shards[n].own(c.looks.last)]
    with Leases(folder / ".leases") as leases:
        while left:
            # Workers on several hosts come to the runs in one order.
            near = left[:1] if strategies.has_workers(strategy) else left
            free = next(
                (label for label in near if leases.acquire(label)), None
            )
            label = free or left[0]
            left.remove(label)
            if verbose:
                print(label, file=sys.stderr, flush=True)
            config = configs[label]
            alike = {
                name: other
                for name, other in configs.items()
                if other.training() == config.training()
            }
            with _saying_what_diverged(verbose):
                made = run_experiment(
                    config,
                    folder / label,
                    preset,
                    verbose,
                    reusable_runs=[
                        runs[name] for name in alike if name != label
                    ],
                    checkpoint_steps=sorted({c.rewind for c in alike.values()}),
                    # Unlike runs train the same start in ways of their own.
                    leases=Leases(folder / ".leases" / _way(config)),
                    shard=shards[label],
                    strategy=strategy,
                    **how,
                )
                runs[label] = made or runs[label]
            if free:
                leases.release(free)
    return list(runs.values())


@contextlib.contextmanager
def _saying_what_diverged(verbose: bool) -> Iterator[None]:
    try:
        yield
    except AllDivergedError as error:
        if verbose:
            print(error, file=sys.stderr, flush=True)


def _require_one_sweep(
    run_dir: str | os.PathLike[str],
    configs: Mapping[str, Config],
    digests: Mapping[str, str],
) -> None:
    """Raises if a folder is a single run, or its runs another sweep's."""
    if run_directory.is_run(run_dir):
        raise UserError(
            f"{str(run_dir)!r} holds a single run, and this is a sweep of "
            f"{len(configs)}. Choose another run directory."
        )
    label, config = next(iter(configs.items()))
    axes = _axes(label)
    here = {**config.fingerprint(), "data": digests[label]}
    for other, directory in members(run_dir).items():
        if _axes(other) != axes:
            raise UserError(
                f"{str(run_dir)!r} holds a sweep of {', '.join(_axes(other))}, "
                f"and this is one of {', '.join(axes)}. Choose another run "
                "directory."
            )
        there = directory.config["fingerprint"]
        varied = {*axes, "data"} if "dataset" in axes else {*axes}
        for name in sorted((there.keys() | here.keys()) - varied):
            if there.get(name) != here.get(name):
                raise UserError(
                    f"{str(run_dir)!r} holds a sweep under another setting of "
                    f"{name}. Choose another run directory, or the same "
                    "setting."
                )


def _way(config: Config) -> str:
    """Returns what tells apart the ways in which networks are trained."""
    return Config().replace(config.training()).digest


def _axes(label: str) -> list[str]:
    """Returns the settings that the label of a run names."""
    return [part.partition("=")[0] for part in label.split(",")]


def members(run_dir: str | os.PathLike[str]) -> dict[str, RunDirectory]:
    """Returns the runs of a sweep by label; none if it is no sweep."""
    return (
        {}
        if run_directory.is_run(run_dir)
        else run_directory.find_runs(run_dir)
    )

"""Sweeps: one experiment under several settings."""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.core.storage.folder import open_folder
from tf_lottery.experiment.config import Config
from tf_lottery.experiment.outcome import AllDivergedError
from tf_lottery.experiment.runner import RunOptions, open_run, run_prepared
from tf_lottery.experiment.shard import Shard
from tf_lottery.runs import executors, locks, run_directory
from tf_lottery.runs.executors import (
    MultiWorkerExecutor,
    run_worker,
)
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training import Trainer
from tf_lottery.training.distribution import strategies


def expand(config: Config, settings: Mapping[str, Any]) -> dict[str, Config]:
    """Returns the configurations that settings describe, by label.

    A list of values gives one configuration for each value, several lists
    one for each combination. For a setting that is itself a list (`controls`,
    `milestones`), give a list of lists.

    Args:
        config: The configuration that the settings change.
        settings: Name to value, to text that holds it as JSON, or to a list of
            values.

    Returns:
        Label, such as `"rate=0.1"`, to configuration; the label of a single
        one is `""`.

    Raises:
        UserError: A name is unknown, a value has another type, or two values
            have one label.

    Example:
        >>> list(expand(Config(), {"rate": "[0.1, 0.2]", "batch_size": 60}))
        ['rate=0.1', 'rate=0.2']
    """
    axes = {
        name: values
        for name, value in settings.items()
        if (values := _values(config, name, value)) is not None
    }
    configs: dict[str, Config] = {}
    for point in itertools.product(*axes.values()):
        chosen = dict(zip(axes, point, strict=True))
        label = ",".join(f"{n}={_text(v)}" for n, v in chosen.items())
        if label in configs:
            raise UserError(f"Two values of the sweep are both {label!r}.")
        configs[label] = config.replace({**settings, **chosen})
    return configs


def _values(config: Config, name: str, value: Any) -> list[Any] | None:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise UserError(
                f"`{name}` looks like a list but is not valid JSON: {value!r}. "
                "Write it as '[0.1, 0.2]'."
            ) from None
    if not isinstance(value, list) or not value:
        return None
    is_list = isinstance(getattr(config, name, None), tuple)
    if is_list and not all(isinstance(each, list) for each in value):
        return None
    return value


def _text(value: Any) -> str:
    """Returns a value as text that a folder name may contain."""
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

    Networks that several runs need are trained once: the dense network of all
    pruning rates, criteria, allocations and steps to rewind to, and every
    ticket with the same masks and start.

    A run in which every dense network diverged does not end the sweep: one of
    several learning rates may be too high.

    Args:
        configs: Label to settings, as returned by `expand`.
        run_dir: Folder or bucket address that holds the run directories, named
            by label.
        preset: The preset's name, for the records.
        verbose: Whether to show progress.
        shard: The replicates, counted through all runs, that this process
            trains.
        strategy: A `tf.distribute.Strategy` to train with.
        **how: `workers`, `cluster`, `data_dir` and `deterministic` of
            `run_experiment`.

    Returns:
        The run directories; an empty list on a worker that is not the chief.

    Raises:
        UserError: Settings are wrong or do not fit together; or `run_dir` is
            a single run, or another sweep.
    """
    options = RunOptions(
        preset=preset, verbose=verbose, strategy=strategy, **how
    )
    folder = os.fspath(run_dir)
    preparer = options.preparer()
    fingerprints = {
        label: preparer.prepare(config).fingerprint
        for label, config in configs.items()
    }
    *_, latest = configs.values()
    if not strategies.is_chief(strategy):
        run_worker(preparer.trainer(latest), fingerprints)
        for config in configs.values():
            with contextlib.suppress(AllDivergedError):
                run_prepared(preparer.prepare(config), run_dir, options)
        return []
    runs = _open_runs(
        configs, run_dir, fingerprints, options, preparer.trainer(latest)
    )
    shards = shard.within({n: c.looks.last for n, c in configs.items()})
    todo = [n for n, c in configs.items() if shards[n].own(c.looks.last)]
    with (
        executors.connected(options.cluster),
        locks.shard_lock(
            open_folder(run_dir), (shard.index, shard.count), _say
        ),
    ):
        for label in todo:
            if verbose:
                _say(label)
            with _divergence_printed(verbose):
                run = run_prepared(
                    preparer.prepare(configs[label]),
                    f"{folder}/{label}",
                    dataclasses.replace(
                        options,
                        shard=shards[label],
                        **_shared(label, configs, runs),
                    ),
                )
                runs[label] = run or runs[label]
    return list(runs.values())


def _open_runs(
    configs: Mapping[str, Config],
    run_dir: str | os.PathLike[str],
    fingerprints: Mapping[str, Mapping[str, Any]],
    options: RunOptions,
    trainer: Trainer,
) -> dict[str, RunDirectory]:
    """Returns all run directories, so that each can reuse the others."""
    with contextlib.ExitStack() as stack:
        if strategies.has_workers(options.strategy):
            # It passes errors on to the other workers.
            stack.enter_context(MultiWorkerExecutor(trainer, fingerprints))
        _require_one_sweep(run_dir, configs, fingerprints)
        return {
            label: open_run(
                config,
                f"{os.fspath(run_dir)}/{label}",
                fingerprints[label],
                options,
            )
            for label, config in configs.items()
        }


def _shared(
    label: str,
    configs: Mapping[str, Config],
    runs: Mapping[str, RunDirectory],
) -> dict[str, Any]:
    """Returns the options by which runs share networks, for one of them."""
    way = configs[label].training_digest
    alike = [n for n, c in configs.items() if c.training_digest == way]
    return {
        "reusable_runs": [runs[name] for name in alike if name != label],
        "checkpoint_steps": sorted({configs[name].rewind for name in alike}),
    }


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _divergence_printed(verbose: bool) -> Iterator[None]:
    try:
        yield
    except AllDivergedError as error:
        if verbose:
            _say(f"{error}")


def _require_one_sweep(
    run_dir: str | os.PathLike[str],
    configs: Mapping[str, Config],
    fingerprints: Mapping[str, Mapping[str, Any]],
) -> None:
    """Raises if a folder holds a single run, or the runs of another sweep."""
    if run_directory.is_run(run_dir):
        raise UserError(
            f"{str(run_dir)!r} holds a single run, and this is a sweep of "
            f"{len(configs)}. Choose another run directory."
        )
    label = next(iter(configs))
    axes, new = _axes(label), fingerprints[label]
    varied = {*axes, "data"} if "dataset" in axes else {*axes}
    for other, directory in members(run_dir).items():
        if _axes(other) != axes:
            raise UserError(
                f"{str(run_dir)!r} holds a sweep of {', '.join(_axes(other))}, "
                f"and this is one of {', '.join(axes)}. Choose another run "
                "directory."
            )
        stored = directory.config["fingerprint"]
        for name in sorted((stored.keys() | new.keys()) - varied):
            if stored.get(name) != new.get(name):
                raise UserError(
                    f"{str(run_dir)!r} holds a sweep under another setting of "
                    f"{name}. Choose another run directory, or the same "
                    "setting."
                )


def _axes(label: str) -> list[str]:
    """Returns the settings that the label of a run names."""
    return [part.partition("=")[0] for part in label.split(",")]


def members(run_dir: str | os.PathLike[str]) -> dict[str, RunDirectory]:
    """Returns the runs of a sweep by label; empty if it is not a sweep.

    Args:
        run_dir: Folder or bucket address.
    """
    return (
        {}
        if run_directory.is_run(run_dir)
        else run_directory.find_runs(run_dir)
    )

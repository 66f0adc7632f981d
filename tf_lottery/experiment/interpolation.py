"""This module knows how the lines between a run's networks are measured."""

import dataclasses
import functools
import math
from collections.abc import Iterator

from tf_lottery import data
from tf_lottery.core import registry
from tf_lottery.core.errors import UserError
from tf_lottery.experiment.config import Config
from tf_lottery.experiment.runner import build_trainer
from tf_lottery.lottery import stability
from tf_lottery.lottery.stability import LinearPath
from tf_lottery.runs.record import Record
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training import Trainer

_COPY = "data_order"


def interpolate(
    directory: RunDirectory,
    level: int | None = None,
    data_dir: data.DataDir = None,
) -> Iterator[tuple[int, int, LinearPath]]:
    """Yields the line between each ticket and its copy in another data order.

    The instability analysis of Frankle et al. 2020 (arXiv:1912.05671, Alg. 1)
    of every level; that of the dense network from the step on that tickets
    restart from. Lines are kept in the run directory, and measured once. A
    copy that diverged has no error: its line has no points and an infinite
    distance, and is not kept.

    Args:
        directory: A run of an experiment, with the control `data_order`.
        level: The level. None: all.
        data_dir: Where the data lie, as `run_experiment` takes it.

    Yields:
        Replicate, level and line; its errors are those on each split.

    Raises:
        ValueError: It is no run of an experiment, or has no such networks.
    """
    settings = directory.config["metadata"].get("settings")
    if not settings:
        raise UserError(
            f"{directory.address!r} is no run of a preset, so its model and "
            "data are not known. Use stability.interpolate on its networks."
        )
    pairs = _pairs(directory)
    if level is not None:
        levels = {str(at): at for _, at in pairs}
        level = registry.get(levels, str(level), "level of such networks")
    config = Config().replace(settings)
    trainer = functools.cache(lambda: build_trainer(config, data_dir))
    for (replicate, at), between in pairs.items():
        if level not in (None, at):
            continue
        if not between:
            yield replicate, at, LinearPath((), {}, math.inf)
            continue
        line = _kept(directory, replicate, at, between)
        if line is None:
            line = _measured(directory, replicate, at, trainer())
            content = {"between": between, **dataclasses.asdict(line)}
            directory.save_line(replicate, at, content)
        yield replicate, at, line


def _pairs(directory: RunDirectory) -> dict[tuple[int, int], list[str]]:
    """Returns, by replicate and level, what tells the two networks.

    Nothing tells them where the copy diverged.
    """
    found: dict[tuple[int, int], dict[str, Record]] = {}
    for record in directory.records():
        place = found.setdefault((record.replicate, record.level), {})
        place[record.variant] = record
    pairs = {
        place: [by[name].digests["trained"] for name in ("ticket", _COPY)]
        for place, by in found.items()
        if _COPY in by
    }
    pairs |= {
        (network.replicate, network.level): []
        for network in directory.diverged()
        if network.variant == _COPY
    }
    if not pairs:
        raise UserError(
            f"{directory.address!r} has no copies in another data order. "
            "Run the same again with --controls data_order added."
        )
    return dict(sorted(pairs.items()))


def _kept(
    directory: RunDirectory, replicate: int, level: int, between: list[str]
) -> LinearPath | None:
    content = directory.line(replicate, level)
    if content is None or content.pop("between") != between:
        return None
    return LinearPath(
        tuple(content["alphas"]),
        {split: tuple(errors) for split, errors in content["errors"].items()},
        content["distance"],
    )


def _measured(
    directory: RunDirectory, replicate: int, level: int, trainer: Trainer
) -> LinearPath:
    one, other = (
        directory.ticket(replicate, level, variant).trained or {}
        for variant in ("ticket", _COPY)
    )
    return stability.interpolate(
        one,
        other,
        lambda weights, reestimate_batch_norm: trainer.errors(
            weights, reestimate_batch_norm=reestimate_batch_norm
        ),
    )

"""Linear interpolation between networks of a run."""

import dataclasses
import functools
import math
from collections.abc import Iterator

from tf_lottery import data
from tf_lottery.core import registry
from tf_lottery.core.errors import UserError
from tf_lottery.experiment.config import Config
from tf_lottery.experiment.preparation import build_trainer
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
    """Yields the path between each ticket and its copy in another data order.

    The instability analysis of Frankle et al. 2020 (arXiv:1912.05671, Alg. 1)
    of every level; for the dense network from the step on that tickets
    restart from. Paths are stored in the run directory and measured once. If a
    copy diverged, its path has no points and an infinite distance, and is not
    stored.

    Args:
        directory: A run of an experiment, with the control `data_order`.
        level: The level, >= 0. None: all levels.
        data_dir: The folder of TensorFlow Datasets; None: its default.

    Yields:
        Replicate, level and path, with its errors on each split.

    Raises:
        UserError: The run is not one of an experiment, or has no such networks.
    """
    settings = directory.config["metadata"].get("settings")
    if not settings:
        raise UserError(
            f"{directory.address!r} is not a run of a preset, so its model and "
            "data are unknown. Use stability.interpolate on its networks."
        )
    pairs = _pairs(directory)
    if level is not None:
        levels = {str(known): known for _, known in pairs}
        level = registry.get(levels, str(level), "level of such networks")
    config = Config().replace(settings)
    trainer = functools.cache(lambda: build_trainer(config, data_dir))
    for (replicate, at_level), digests in pairs.items():
        if level not in (None, at_level):
            continue
        if not digests:
            yield replicate, at_level, LinearPath((), {}, math.inf)
            continue
        path = _stored(directory, replicate, at_level, digests)
        if path is None:
            path = _measure(directory, replicate, at_level, trainer())
            content = {"between": digests, **dataclasses.asdict(path)}
            directory.save_line(replicate, at_level, content)
        yield replicate, at_level, path


def _pairs(directory: RunDirectory) -> dict[tuple[int, int], list[str]]:
    """Returns the digests of the two networks, by replicate and level.

    The list is empty if the copy diverged.
    """
    records: dict[tuple[int, int], dict[str, Record]] = {}
    for record in directory.records():
        variants = records.setdefault((record.replicate, record.level), {})
        variants[record.variant] = record
    pairs = {
        key: [variants[n].digests["trained"] for n in ("ticket", _COPY)]
        for key, variants in records.items()
        if _COPY in variants
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


def _stored(
    directory: RunDirectory, replicate: int, level: int, digests: list[str]
) -> LinearPath | None:
    content = directory.line(replicate, level)
    if content is None or content.pop("between") != digests:
        return None
    return LinearPath(
        tuple(content["alphas"]),
        {split: tuple(errors) for split, errors in content["errors"].items()},
        content["distance"],
    )


def _measure(
    directory: RunDirectory, replicate: int, level: int, trainer: Trainer
) -> LinearPath:
    ticket, copy = (
        directory.ticket(replicate, level, variant).trained or {}
        for variant in ("ticket", _COPY)
    )
    return stability.interpolate(
        ticket,
        copy,
        lambda weights, reestimate_batch_norm: trainer.errors(
            weights, reestimate_batch_norm=reestimate_batch_norm
        ),
    )

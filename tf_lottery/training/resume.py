"""Checkpoints of a training in progress.

A process may be killed at any moment. The next process continues from the
last complete file, and its results have the same bytes.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_lottery.core.storage import array_file
from tf_lottery.training.state import State

_MAX_FILES = 2  # if the newest is damaged, the one before it is used
_KIND = "training under way"
_DIGEST_DIGITS = 12  # of a job's digest, in the names of its files
_HEADER = ("job", "curve", "seconds")
_TOTALS = "totals/"  # followed by an index
_CAPTURED = "captured/"  # followed by the step
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class InProgressCheckpoint:
    """All that a training in progress continues from.

    Attributes:
        job: Digest of the job; other jobs do not continue from it.
        state: The current state.
        best: The state of lowest validation loss so far, without slots; None
            before the first evaluation or without validation data.
        captured: The states captured so far, in order of steps.
        curve: The rows of the learning curve so far.
        totals: Values of the metrics variables since the last evaluation.
        seconds: Duration of the training so far.
    """

    job: str
    state: State
    best: State | None
    captured: tuple[State, ...]
    curve: list[dict[str, Any]]
    totals: list[np.ndarray]
    seconds: float


def save(folder: pathlib.Path, checkpoint: InProgressCheckpoint) -> None:
    """Writes a new file and keeps one older file of the job.

    Args:
        folder: Folder of the job; created if missing.
        checkpoint: What to write.
    """
    header: dict[str, Any] = {
        name: getattr(checkpoint, name) for name in _HEADER
    }
    arrays: dict[str, np.ndarray] = {}
    states = {"state": checkpoint.state}
    if checkpoint.best is not None:
        states["best"] = checkpoint.best
    states |= {f"{_CAPTURED}{s.step}": s for s in checkpoint.captured}
    header["states"] = {name: state.step for name, state in states.items()}
    for name, state in states.items():
        for part in ("weights", "slots"):
            values = getattr(state, part).items()
            arrays |= {f"{name}/{part}/{key}": v for key, v in values}
    arrays |= {f"{_TOTALS}{i}": t for i, t in enumerate(checkpoint.totals)}
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, checkpoint.job, checkpoint.state.step)
    array_file.write(path, _KIND, header, arrays, compress=False)
    for step in sorted(_steps(folder, checkpoint.job))[:-_MAX_FILES]:
        _path(folder, checkpoint.job, step).unlink(missing_ok=True)


def load_latest(
    jobs: Sequence[tuple[pathlib.Path | None, str]],
) -> list[InProgressCheckpoint]:
    """Returns the newest checkpoints of jobs that train together.

    Damaged files and files of other jobs are not deleted; a warning names
    them.

    Args:
        jobs: Folder (or None) and digest of each job.

    Returns:
        One checkpoint per job, all at the newest step of which every job has
        an undamaged file; empty if there is no such step.
    """
    keys = [(folder, job) for folder, job in jobs if folder is not None]
    if len(keys) < len(jobs):
        return []
    for folder, job in keys:
        for path in sorted(folder.glob("*")):
            if not path.name.startswith((f"{job[:_DIGEST_DIGITS]}_", ".")):
                _log.warning("Ignored, as it belongs to another job: %s", path)
    common = set.intersection(*(_steps(*key) for key in keys))
    for step in sorted(common, reverse=True):
        loaded = [_load(_path(*key, step)) for key in keys]
        undamaged = [each for each in loaded if each is not None]
        if len(undamaged) == len(jobs):
            return undamaged
    return []


def is_begun(folder: pathlib.Path | None, job: str) -> bool:
    """Returns whether a job has checkpoints.

    Args:
        folder: Folder of the job, or None.
        job: Digest of the job.
    """
    return latest_step(folder, job) is not None


def latest_step(folder: pathlib.Path | None, job: str) -> int | None:
    """Returns the step of a job's newest checkpoint; None without one.

    Args:
        folder: Folder of the job, or None.
        job: Digest of the job.
    """
    if folder is None:
        return None
    return max(_steps(folder, job), default=None)


def _load(path: pathlib.Path) -> InProgressCheckpoint | None:
    try:
        header, arrays = array_file.read(path, _KIND)
    except (OSError, ValueError) as error:
        _log.warning("Ignored, as it is damaged: %s", error)
        return None
    states = {
        name: State(
            step,
            _under(f"{name}/weights", arrays),
            _under(f"{name}/slots", arrays),
        )
        for name, step in header["states"].items()
    }
    captured = [s for name, s in states.items() if name.startswith(_CAPTURED)]
    return InProgressCheckpoint(
        state=states["state"],
        best=states.get("best"),
        captured=tuple(sorted(captured, key=lambda state: state.step)),
        totals=[
            arrays[f"{_TOTALS}{i}"]
            for i in range(sum(key.startswith(_TOTALS) for key in arrays))
        ],
        **{name: header[name] for name in _HEADER},
    )


def _path(folder: pathlib.Path, job: str, step: int) -> pathlib.Path:
    return folder / f"{job[:_DIGEST_DIGITS]}_{step}"


def _steps(folder: pathlib.Path, job: str) -> set[int]:
    names = [path.name for path in folder.glob(f"{job[:_DIGEST_DIGITS]}_*")]
    return {int(name.partition("_")[2]) for name in names}


def _under(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    start = len(name) + 1
    return {
        key[start:]: value
        for key, value in arrays.items()
        if key.startswith(f"{name}/")
    }

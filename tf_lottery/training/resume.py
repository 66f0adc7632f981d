"""This module knows how a training that is under way is kept.

A process may be killed at any moment; the next one goes on from the file that
was whole last, and comes to the same bytes.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_lottery.core.storage import array_file
from tf_lottery.training.state import State

_KEPT = 2  # files: should the newest be damaged, there is one before it
_KIND = "training under way"
_DIGITS = 12  # of a job's digest, in the name of its files
_HEADER = ("job", "curve", "seconds")
_TOTALS = "totals/"  # and the number
_CAPTURED = "captured/"  # and the step
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class InProgressCheckpoint:
    """A training under way.

    Attributes:
        job: Digest of what is trained; only the same job goes on from it.
        state: Where it is.
        best: The state at the early-stop step so far, without slots, or None.
        captured: The states captured so far, in order.
        curve: The evaluations so far.
        totals: What metrics counted since the last evaluation.
        seconds: How long it has trained.
    """

    job: str
    state: State
    best: State | None
    captured: tuple[State, ...]
    curve: list[dict[str, Any]]
    totals: list[np.ndarray]
    seconds: float


def save(folder: pathlib.Path, interim: InProgressCheckpoint) -> None:
    """Writes a file of its own, and removes all but the one before it."""
    header: dict[str, Any] = {name: getattr(interim, name) for name in _HEADER}
    arrays: dict[str, np.ndarray] = {}
    states = {"state": interim.state}
    if interim.best is not None:
        states["best"] = interim.best
    states |= {f"{_CAPTURED}{s.step}": s for s in interim.captured}
    header["states"] = {name: state.step for name, state in states.items()}
    for name, state in states.items():
        for part in ("weights", "slots"):
            values = getattr(state, part).items()
            arrays |= {f"{name}/{part}/{key}": v for key, v in values}
    arrays |= {f"{_TOTALS}{i}": t for i, t in enumerate(interim.totals)}
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, interim.job, interim.state.step)
    array_file.write(path, _KIND, header, arrays, compress=False)
    for step in sorted(_steps(folder, interim.job))[:-_KEPT]:
        _path(folder, interim.job, step).unlink(missing_ok=True)


def found(
    jobs: Sequence[tuple[pathlib.Path | None, str]],
) -> list[InProgressCheckpoint]:
    """Returns where an earlier process left jobs that train side by side.

    Args:
        jobs: Of each its folder, and its digest.

    Returns:
        Of each the newest whole file at a step they all have; empty if there
        is no such step. What is damaged, or of another job, stays, and a
        warning names it.
    """
    places = [(folder, job) for folder, job in jobs if folder is not None]
    if len(places) < len(jobs):
        return []
    for folder, job in places:
        for path in sorted(folder.glob("*")):
            if not path.name.startswith((f"{job[:_DIGITS]}_", ".")):
                _log.warning("Left out, for it is of another job: %s", path)
    common = set.intersection(*(_steps(*place) for place in places))
    for step in sorted(common, reverse=True):
        loaded = [_load(_path(*place, step)) for place in places]
        whole = [each for each in loaded if each is not None]
        if len(whole) == len(jobs):
            return whole
    return []


def is_begun(folder: pathlib.Path | None, job: str) -> bool:
    """Returns whether an earlier process left files of a job.

    Args:
        folder: The job's folder.
        job: The job's digest.
    """
    return folder is not None and bool(_steps(folder, job))


def _load(path: pathlib.Path) -> InProgressCheckpoint | None:
    try:
        header, arrays = array_file.read(path, _KIND)
    except (OSError, ValueError) as error:
        _log.warning("Left out, for it is damaged: %s", error)
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
    return folder / f"{job[:_DIGITS]}_{step}"


def _steps(folder: pathlib.Path, job: str) -> set[int]:
    names = [path.name for path in folder.glob(f"{job[:_DIGITS]}_*")]
    return {int(name.partition("_")[2]) for name in names}


def _under(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    start = len(name) + 1
    return {
        key[start:]: value
        for key, value in arrays.items()
        if key.startswith(f"{name}/")
    }

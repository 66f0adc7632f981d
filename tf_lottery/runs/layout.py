"""File layout of a run directory.

::

  config.json                     fingerprint and metadata of the run
  results.csv                     one row per trained network
  rewind.json                     how the first stable step was found
  report.html, figures/           the report
  .locks/                         which process trains the run
  replicate_0/theta_0/            θ0, and θk, as TensorFlow checkpoints
  replicate_0/level_3/line.json   errors between a ticket and its copy
  replicate_0/level_3/.ticket.unfinished/    checkpoints during training
  replicate_0/level_3/ticket/     a trained network, by level and variant:
      ticket                      its ticket file
      trained                     its trained weights and per-example results
      record.json                 metrics, learning curve, digests
  replicate_0/level_3/reinit/     a network that diverged holds only:
      record.json                 when its loss became nan

Every JSON file carries a checksum of itself, and every record.json the SHA-256
of the other files of its folder, which count from the moment it is written.
"""

import pathlib
import re
from collections.abc import Iterable
from typing import Any

from tf_lottery.core.storage import commit

CONFIG = "config.json"
RESULTS = "results.csv"
REWIND = "rewind.json"
REPORT = "report.html"
FIGURES = "figures"

TICKET = "ticket"
TRAINED = "trained"
RECORD = commit.RECORD

CHECKPOINT = "checkpoint"

_NETWORK = re.compile(r"replicate_(\d+)/level_(\d+)/([^/.][^/]*)")
_UNFINISHED = re.compile(r"(replicate_\d+/level_\d+)/\.([^/]+)\.unfinished")

NETWORK_COLUMNS = (
    "preset",
    "replicate",
    "level",
    "variant",
    "density",
    "weights_kept",
)
"""Columns of results.csv that say which network a row is of."""

METRIC_COLUMNS = (
    "steps",
    "early_stop_step",
    "validation_loss_at_early_stop",
    "validation_accuracy_at_early_stop",
    "test_accuracy_at_early_stop",
    "test_accuracy",
    "train_accuracy",
    "seconds",
)
"""Columns of results.csv that were measured."""

COLUMNS = NETWORK_COLUMNS + METRIC_COLUMNS
"""The columns of results.csv."""


def network_folder(replicate: int, level: int, variant: str) -> str:
    """Returns the folder of a trained network.

    Args:
        replicate: The replicate, >= 0.
        level: The level, >= 0.
        variant: `"ticket"` or the control's name.
    """
    return f"replicate_{replicate}/level_{level}/{variant}"


def parse(folder: str) -> dict[str, Any]:
    """Returns replicate, level and variant of a trained network's folder.

    Args:
        folder: As `network_folder` returns it.
    """
    match = _NETWORK.fullmatch(folder)
    if match is None:
        raise ValueError(f"{folder!r} is no network's folder.")
    return {
        "replicate": int(match[1]),
        "level": int(match[2]),
        "variant": match[3],
    }


def networks(files: Iterable[str]) -> list[str]:
    """Returns the folders of trained networks, those that have a record.

    Args:
        files: All files of a run directory.
    """
    paths = map(pathlib.PurePosixPath, files)
    folders = [str(path.parent) for path in paths if path.name == RECORD]
    return [folder for folder in folders if _NETWORK.fullmatch(folder)]


def replicate_of(file: pathlib.PurePosixPath) -> int | None:
    """Returns the replicate that a file belongs to; None if to none.

    Args:
        file: Any file of a run directory.
    """
    match = re.fullmatch(r"replicate_(\d+)", file.parts[0])
    return int(match[1]) if match else None


def network_of_unfinished(folder: pathlib.PurePosixPath) -> str | None:
    """Returns the network's folder for its folder of checkpoints, or None.

    Args:
        folder: Any folder of a run directory.
    """
    match = _UNFINISHED.fullmatch(str(folder))
    return f"{match[1]}/{match[2]}" if match else None


def unfinished_folder(replicate: int, level: int, variant: str) -> str:
    """Returns the folder of a network's checkpoints during training.

    Args:
        replicate: The replicate, >= 0.
        level: The level, >= 0.
        variant: `"ticket"` or the control's name.
    """
    return f"replicate_{replicate}/level_{level}/.{variant}.unfinished"


def checkpoint_folder(replicate: int, step: int) -> str:
    """Returns the folder of θ, the dense network's state, at a step.

    Args:
        replicate: The replicate, >= 0.
        step: The step, >= 0.
    """
    return f"replicate_{replicate}/theta_{step}"


def linear_path(replicate: int, level: int) -> str:
    """Returns the file of the linear path between a ticket and its copy.

    Args:
        replicate: The replicate, >= 0.
        level: The level, >= 0.
    """
    return f"replicate_{replicate}/level_{level}/line.json"

"""File layout of a run directory.

::

  config.json                     fingerprint and metadata of the run
  results.csv                     one row per trained network
  rewind.json                     how the first stable step was found
  report.html, figures/           the report
  .leases/                        which process trains which network
  replicate_0/theta_0/            θ0, and θk, as TensorFlow checkpoints
  replicate_0/level_3/line.json   errors between a ticket and its copy
  replicate_0/level_3/.ticket.unfinished/    checkpoints during training
  replicate_0/level_3/ticket/     a trained network, by level and variant:
      ticket                      its ticket file
      trained                     its trained weights and per-example results
      record.json                 metrics, learning curve, digests
  replicate_0/level_3/reinit/     a network that diverged holds only:
      diverged.json               when its loss became nan, digests
"""

CONFIG = "config.json"
RESULTS = "results.csv"
REWIND = "rewind.json"
REPORT = "report.html"
FIGURES = "figures"
LEASES = ".leases"

TICKET = "ticket"
TRAINED = "trained"
RECORD = "record.json"
DIVERGED = "diverged.json"

CHECKPOINT = "checkpoint"
CHECKPOINT_INDEX = f"{CHECKPOINT}.index"

RECORDS = f"replicate_*/level_*/*/{RECORD}"
DIVERGED_NETWORKS = f"replicate_*/level_*/*/{DIVERGED}"

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

"""Experiments: named settings, run and stored in a run directory."""

from tf_lottery.experiment.config import Config
from tf_lottery.experiment.interpolation import interpolate
from tf_lottery.experiment.outcome import unfinished
from tf_lottery.experiment.runner import explain, run_experiment
from tf_lottery.experiment.shard import Shard
from tf_lottery.experiment.sweep import expand, members, run_sweep

__all__ = [
    "Config",
    "Shard",
    "interpolate",
    "expand",
    "explain",
    "members",
    "run_experiment",
    "run_sweep",
    "unfinished",
]

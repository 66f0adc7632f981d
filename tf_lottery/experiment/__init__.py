"""This package knows experiments: named settings, run and kept."""

from tf_lottery.experiment.config import Config
from tf_lottery.experiment.runner import run_experiment

__all__ = ["Config", "run_experiment"]

"""This package knows experiments: named settings, run and kept."""

from tf_lottery.experiment.config import Config
from tf_lottery.experiment.connect import connect
from tf_lottery.experiment.runner import explain, run_experiment

__all__ = ["Config", "connect", "explain", "run_experiment"]

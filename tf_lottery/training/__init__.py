"""Training of masked networks: from a state, to results.

Masks are inputs; pruning and levels are decided elsewhere.
"""

from tf_lottery.training.job import Job
from tf_lottery.training.recipe import Recipe
from tf_lottery.training.result import Diverged, Outcome, TrainingResult
from tf_lottery.training.state import State
from tf_lottery.training.trainer import Progress, Trainer

__all__ = [
    "Diverged",
    "Job",
    "Outcome",
    "Progress",
    "Recipe",
    "TrainingResult",
    "State",
    "Trainer",
]

"""This package knows who trains networks: this process, or several.

A crew takes jobs off a list, as many as it likes, and says which are done.
"""

from tf_lottery.crews.crew import Crew, Progress
from tf_lottery.crews.here import Here
from tf_lottery.crews.processes import Processes, side_by_side

__all__ = ["Crew", "Here", "Processes", "Progress", "side_by_side"]

"""This package knows who trains networks: this process, or several, or hosts.

A crew takes jobs off a list, as many as it likes, and says which are done.
"""

from tf_lottery.runs.executors.base import (Crew, Progress)
from tf_lottery.runs.executors.all_cores import on_all_cores
from tf_lottery.runs.executors.in_process import Here
from tf_lottery.runs.executors.process_pool import (Processes, side_by_side)
from tf_lottery.runs.executors.multi_worker import (Chief, follow, has_workers, is_chief)

__all__ = [
    "Chief",
    "Crew",
    "Here",
    "Processes",
    "Progress",
    "follow",
    "has_workers",
    "is_chief",
    "on_all_cores",
    "side_by_side",
]

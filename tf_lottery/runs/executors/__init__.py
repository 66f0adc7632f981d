"""This package knows who trains networks: this process, or several, or hosts.

A crew takes jobs off a list, as many as it likes, and says which are done.
"""

from tf_lottery.runs.executors.all_cores import all_cores_executor
from tf_lottery.runs.executors.base import Executor, Progress
from tf_lottery.runs.executors.in_process import InProcessExecutor
from tf_lottery.runs.executors.multi_worker import (
    MultiWorkerExecutor,
    has_workers,
    is_chief,
    run_worker,
)
from tf_lottery.runs.executors.process_pool import (
    ProcessPool,
    default_num_workers,
)

__all__ = [
    "MultiWorkerExecutor",
    "Executor",
    "InProcessExecutor",
    "ProcessPool",
    "Progress",
    "run_worker",
    "has_workers",
    "is_chief",
    "all_cores_executor",
    "default_num_workers",
]

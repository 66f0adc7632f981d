"""This package knows how a masked network is trained on its survivors alone.

One thread of a CPU trains a sparse ticket faster this way than all of them
train the dense network it is masked from.
"""

from tf_lottery.training.backends.sparse_cpu.training import (
    SparseTraining,
    unsupported_reason,
)

__all__ = ["SparseTraining", "unsupported_reason"]

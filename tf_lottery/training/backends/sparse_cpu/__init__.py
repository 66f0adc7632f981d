"""Training of a masked network on its surviving weights only, on a CPU.

One thread trains a sparse ticket faster this way than all threads together
train the dense network that it is masked from. See README.md in this folder.
"""

from tf_lottery.training.backends.sparse_cpu.training import (
    SparseTraining,
    unsupported_reason,
)

__all__ = ["SparseTraining", "unsupported_reason"]

"""This package knows how a network is made smaller without changing it.

A mask that prunes single weights leaves some units and filters without inputs,
or without anybody who reads them. The first give the same value for every
input, the second none that matters: both can go. A *channel* is an index of a
tensor's last axis: a unit, or a filter.

`kinds` finds, forwards, channels that are constant, and backwards those that
somebody reads. What is constant goes into the biases of those who read
it. What cannot go, for it stays in line with channels that must stay, stays
whole.
"""

from tf_lottery.export.shrinking.shrink import Shrunk, shrink

__all__ = ["Shrunk", "shrink"]

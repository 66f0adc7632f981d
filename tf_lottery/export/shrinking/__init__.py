"""Removal of dead units and filters from a network.

A mask that prunes single weights leaves some units and filters without inputs,
and some whose outputs nothing reads. The first are constant, the second
irrelevant: both can be removed. A *channel* is an index of a tensor's last
axis: a unit, or a filter.

`channel_rules` finds constant channels in a forward pass over the graph, and
channels that are read in a backward pass. Constants are folded into the biases
of the layers that read them. A dead channel that is added to one that must
stay is not removed.
"""

from tf_lottery.export.shrinking.shrink import Shrunk, shrink

__all__ = ["Shrunk", "shrink"]

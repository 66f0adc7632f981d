"""What an analysis reads of a trained network."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Placed(Protocol):
    """Something that has a network's place in a run."""

    @property
    def replicate(self) -> int:
        """Its replicate."""

    @property
    def level(self) -> int:
        """Its level."""

    @property
    def variant(self) -> str:
        """`"ticket"`, or the control's name."""


class Network(Placed, Protocol):
    """A trained network: a record of a run directory."""

    @property
    def row(self) -> Mapping[str, Any]:
        """Its row of results.csv, and its other metrics."""

    @property
    def curve(self) -> Mapping[str, Sequence[float]]:
        """Column to values over its evaluations."""

    @property
    def per_example(self) -> Mapping[str, np.ndarray]:
        """Split to the deciding metric of each example at early stop."""


class Missing(Placed, Protocol):
    """A network without results: its loss became nan or infinite."""

    @property
    def step(self) -> int:
        """The step at which that was seen."""

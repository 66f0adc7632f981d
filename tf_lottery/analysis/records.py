"""Protocols of the records that an analysis reads."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Indexed(Protocol):
    """A record with the indices of a network in a run."""

    @property
    def replicate(self) -> int:
        """Index of the replicate."""

    @property
    def level(self) -> int:
        """Index of the level."""

    @property
    def variant(self) -> str:
        """`"ticket"`, or the control's name."""


class Network(Indexed, Protocol):
    """A trained network: a record of a run directory."""

    @property
    def row(self) -> Mapping[str, Any]:
        """Row of results.csv, and other metrics."""

    @property
    def curve(self) -> Mapping[str, Sequence[float]]:
        """Column to values over the evaluations."""

    @property
    def per_example(self) -> Mapping[str, np.ndarray]:
        """Split to deciding metric at early stop, `[examples]`."""


class Missing(Indexed, Protocol):
    """A network without results, because its loss became nan or infinite."""

    @property
    def step(self) -> int:
        """First step at which the loss was not finite."""

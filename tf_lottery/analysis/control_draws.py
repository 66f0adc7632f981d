"""Averages over several draws of one control.

Draws of a control (`reinit`, `reinit.2`, `reinit.3`) share their ticket, so
they are not independent replicates. Each replicate has one mean over its draws,
and statistics are over replicates. Differs: Frankle & Carbin 2019, Fig. 5, plot
all 15 draws of five trials; n is five here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_lottery.core import variants


@dataclasses.dataclass(frozen=True)
class AveragedDraws:
    """The mean of a control's draws in one replicate, as one record.

    Attributes:
        replicate: Replicate of the draws.
        level: Level of the draws.
        variant: Name of the control, without a number.
        row: Means of the columns that all draws have.
        curve: Means of the learning curves.
        per_example: Empty, because results per example are not averaged.
    """

    replicate: int
    level: int
    variant: str
    row: Mapping[str, Any]
    curve: Mapping[str, Sequence[float]]
    per_example: Mapping[str, np.ndarray] = dataclasses.field(
        default_factory=dict
    )


def pool(networks: Sequence[Any]) -> list[Any]:
    """Returns records with one record per replicate, level and control.

    Args:
        networks: Records. A control with one draw is returned unchanged.
    """
    cells: dict[tuple[int, int, str], list[Any]] = {}
    for network in networks:
        cell = (
            network.replicate,
            network.level,
            variants.control_of(network.variant),
        )
        cells.setdefault(cell, []).append(network)
    return [
        draws[0]
        if len(draws) == 1 and draws[0].variant == cell[2]
        else AveragedDraws(*cell, _row(draws, cell[2]), _curve(draws))
        for cell, draws in cells.items()
    ]


def _row(draws: Sequence[Any], variant: str) -> dict[str, Any]:
    first = draws[0].row
    row = {}
    for column in first:
        values = [draw.row.get(column) for draw in draws]
        if all(isinstance(v, int | float) for v in values):
            row[column] = float(np.mean(values))
        elif all(value == first[column] for value in values):
            row[column] = first[column]
    return {**row, "variant": variant}


def _curve(draws: Sequence[Any]) -> dict[str, list[float]]:
    first = draws[0].curve
    alike = [d.curve for d in draws if d.curve.get("step") == first.get("step")]
    return {
        column: np.mean([curve[column] for curve in alike], axis=0).tolist()
        for column in first
        if all(column in curve for curve in alike)
    }

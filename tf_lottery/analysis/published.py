"""The paper's published curves, as bands.

The text prints few absolute values, so most are read off PNG copies of Figs. 1,
3 and 5, which show means of five trials. The error of a reading is about 0.2
points of accuracy and 400 steps for LeNet, 0.3 points and 100 steps for the
convolutional networks, whose axes are coarser. If several readings differ, the
band spans them all. Figs. 7 and 8 cannot be read.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

STOP, ACCURACY = "early_stop_step", "test_accuracy_at_early_stop"


@dataclasses.dataclass(frozen=True)
class Band:
    """One curve of the paper, with the uncertainty of reading it.

    Attributes:
        variant: `"ticket"`, or the name of a control.
        column: Column of results.csv.
        source: Figure or section of the paper.
        points: Density to the lowest and highest possible value, in the
            column's unit; from dense to sparse.
    """

    variant: str
    column: str
    source: str
    points: Mapping[float, tuple[float, float]]


def _band(
    variant: str,
    column: str,
    source: str,
    error: float,
    readings: Mapping[float, float | tuple[float, float]],
) -> Band:
    """Returns the band of readings, by percent of weights, and their error."""
    scale = 0.01 if column == ACCURACY else 1
    points = {}
    for left, reading in readings.items():
        low, high = reading if isinstance(reading, tuple) else (reading,) * 2
        points[round(left / 100, 4)] = (
            scale * (low - error),
            scale * (high + error),
        )
    return Band(variant, column, source, points)


_LENET = (
    _band(
        "ticket",
        ACCURACY,
        "Figs. 1, 3",
        0.2,
        {
            100: (97.95, 98.0),
            51.3: 98.25,
            41.1: 98.33,
            26.3: 98.4,
            21.1: 98.44,
            16.9: 98.44,
            13.5: 98.36,
            7.0: 98.28,
            3.6: 98.04,
            2.9: 97.9,
            1.9: 97.6,
            1.2: 96.9,
            0.7: 95.8,
        },
    ),
    _band(
        "ticket",
        STOP,
        "Figs. 1, 3; Sec. 2",
        400,
        {
            100: 4_700,
            64.1: 4_100,
            26.3: 3_500,
            # The text has 38 % less than dense.
            21.1: (2_900, 3_500),
            16.9: 3_500,
            13.5: (3_000, 3_300),
            10.8: 3_700,
            7.0: 4_500,
            3.6: 5_700,
            2.9: 6_800,
            1.9: 9_000,
            1.2: 15_000,
            0.7: 28_000,
        },
    ),
    # Random sparse networks: the mean of ten.
    _band(
        "shuffle",
        ACCURACY,
        "Fig. 1",
        0.2,
        {21.1: 97.66, 8.7: 97.2, 4.5: 96.3, 2.9: 95.4},
    ),
    _band(
        "shuffle",
        STOP,
        "Fig. 1",
        400,
        {
            21.1: (8_000, 9_000),
            16.9: (8_000, 9_000),
            7.0: 15_800,
            2.9: 31_000,
        },
    ),
)

_CONV_2 = (
    _band(
        "ticket",
        ACCURACY,
        "Fig. 5",
        0.3,
        {
            100: 65.7,
            80: 66.2,
            51: 67.6,
            26: 68.2,
            13.7: 68.5,
            8.8: 68.8,
            7.1: 68.9,
            4.6: 69.0,
            3.7: 68.4,
            1.9: 67.8,
            1.6: 67.5,
        },
    ),
    _band(
        "ticket",
        STOP,
        "Fig. 5",
        100,
        {
            100: 2_300,
            80: 2_000,
            51: 1_660,
            26: 1_000,
            13.7: 690,
            8.8: 690,
            7.1: 760,
            4.6: 800,
            3.7: 860,
            1.9: 1_620,
        },
    ),
)

_CONV_4 = (
    _band(
        "ticket",
        ACCURACY,
        "Fig. 5",
        0.3,
        {
            100: 73.7,
            81: 74.3,
            66: 75.5,
            54: 76.0,
            19.6: 76.9,
            13.3: 76.7,
            11.1: 77.1,
            9.2: 76.7,
            4.5: 77.0,
            2.0: 75.5,
        },
    ),
    _band(
        "ticket",
        STOP,
        "Fig. 5",
        100,
        {
            100: 2_700,
            54: 2_100,
            19.6: 1_100,
            13.3: 880,
            11.1: 920,
            9.2: 810,
            4.5: 1_450,
            2.0: 3_000,
        },
    ),
    _band("reinit", ACCURACY, "Fig. 5", 0.3, {16: 73}),
)

_CONV_6 = (
    _band(
        "ticket",
        ACCURACY,
        "Fig. 5",
        0.3,
        {
            100: 77.2,
            82: 78.2,
            68: 79.0,
            56: 79.7,
            38: 80.1,
            26: 80.1,
            22: 80.4,
            15: 80.1,
            10.5: 79.7,
            5.1: 79.4,
            3.5: 78.8,
            2.1: 77.4,
        },
    ),
    _band(
        "ticket",
        STOP,
        "Fig. 5",
        100,
        {
            100: 3_300,
            82: 3_060,
            68: 2_900,
            56: 2_600,
            38: 1_600,
            26: 1_400,
            22: 1_300,
            15: (1_240, 1_390),
            10.5: 1_400,
            5.1: 2_900,
            3.5: 4_200,
            2.1: 9_400,
        },
    ),
    _band("reinit", ACCURACY, "Fig. 5", 0.3, {15: 72}),
)

BANDS: dict[tuple[str, str], tuple[Band, ...]] = {
    ("lenet_300_100", "mnist"): _LENET,
    ("conv_2", "cifar10"): _CONV_2,
    ("conv_4", "cifar10"): _CONV_4,
    ("conv_6", "cifar10"): _CONV_6,
}
"""Bands of iteratively pruned tickets, by model and data set."""


def bands(settings: Mapping[str, Any]) -> tuple[Band, ...]:
    """Returns the paper's curves for a run; empty if there are none.

    Args:
        settings: Fields of the run's `experiment.Config`, by name.
    """
    if settings.get("schedule") != "geometric" or settings.get("model_options"):
        return ()
    name = settings.get("model", ""), settings.get("dataset", "")
    return BANDS.get(name, ())

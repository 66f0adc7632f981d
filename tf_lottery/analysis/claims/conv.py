"""Claims about Conv-2, Conv-4, Conv-6 on CIFAR-10.

Frankle & Carbin 2019, Sec. 3. Densities are computed for the paper's level,
because its labels for Conv-6 belong to slightly fewer weights than Conv-6 has.
"""

import dataclasses

from tf_lottery.analysis.claims.claim import (
    AT_EARLY_STOP,
    STOP,
    TIMES_AS_FAST,
    Claim,
    percent,
    points,
)

_POINTS = points(AT_EARLY_STOP)


@dataclasses.dataclass(frozen=True)
class _Numbers:
    """The paper's numbers for one network.

    Attributes:
        accuracy: Test accuracy of the dense network in percent (Fig. 5).
        stop: Early-stop step of the dense network (Fig. 5).
        fastest: Density of the fastest tickets (text).
        times: Lower bound of their speed as a multiple of the dense
            network's; the text says "up to" 3.5, 3.5 and 2.5.
        best: Density of the most accurate tickets (text).
        last: Density of the sparsest level above 2 %.
        lost: Lower bound of the points that reinitialized tickets at `fastest`
            lose (Fig. 5, at about 16 %); 0 if it cannot be read.
    """

    accuracy: float
    stop: int
    fastest: float
    times: float
    best: float
    last: float
    lost: float = 0.0


def _claims(numbers: _Numbers) -> tuple[Claim, ...]:
    return (
        # Twice the error of reading the figure, because the paper's mean of
        # five trials has an error too.
        Claim(
            "the dense network's early-stop step",
            "Fig. 5",
            None,
            "dense",
            "dense",
            STOP,
            numbers.stop - 200,
            numbers.stop + 200,
            None,
        ),
        Claim(
            "the dense network's test accuracy in percent",
            "Fig. 5",
            None,
            "dense",
            "dense",
            percent(AT_EARLY_STOP),
            numbers.accuracy - 0.6,
            numbers.accuracy + 0.6,
            None,
        ),
        Claim(
            f"times as fast tickets at {numbers.fastest:.1%} are as dense",
            "Sec. 3, Fig. 5",
            numbers.fastest,
            "ticket",
            "dense",
            TIMES_AS_FAST,
            numbers.times,
            direction=1.0,
        ),
        # 3.4, 3.5 and 3.3 points "at best".
        Claim(
            f"points by which tickets at {numbers.best:.1%} beat dense",
            "Sec. 3, Fig. 5",
            numbers.best,
            "ticket",
            "dense",
            _POINTS,
            2.5,
            4.5,
        ),
        Claim(
            f"points by which tickets at {numbers.last:.1%} beat dense",
            "Sec. 3, Fig. 5",
            numbers.last,
            "ticket",
            "dense",
            _POINTS,
            0.0,
        ),
        Claim(
            f"training accuracy of tickets at {numbers.last:.1%} in percent",
            "Sec. 3, Fig. 5",
            numbers.last,
            "ticket",
            "dense",
            percent("train_accuracy"),
            99.9,
            direction=None,
        ),
        Claim(
            f"times as fast tickets at {numbers.fastest:.1%} are as "
            "reinitialised ones",
            "Sec. 3, Fig. 5",
            numbers.fastest,
            "ticket",
            "reinit",
            TIMES_AS_FAST,
            1.0,
            direction=1.0,
        ),
        Claim(
            f"points by which tickets at {numbers.fastest:.1%} beat "
            "reinitialised ones",
            "Sec. 3, Fig. 5",
            numbers.fastest,
            "ticket",
            "reinit",
            _POINTS,
            numbers.lost,
        ),
    )


CONV_2 = _claims(_Numbers(65.7, 2_300, 0.0881, 2.5, 0.0457, 0.0239))
CONV_4 = _claims(_Numbers(73.7, 2_700, 0.0918, 2.5, 0.1106, 0.0234, 3.0))
CONV_6 = _claims(_Numbers(77.2, 3_300, 0.1529, 2.0, 0.2661, 0.0213, 7.0))

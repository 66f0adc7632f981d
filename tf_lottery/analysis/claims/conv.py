"""Claims about Conv-2, Conv-4, Conv-6 on CIFAR-10.

Frankle & Carbin 2019, Sec. 3. Densities are those of the level meant: the
paper's labels for Conv-6 belong to slightly fewer weights than it has.
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
    """What the paper gives for one network.

    Attributes:
        accuracy: Of the dense network in percent, read off Fig. 5.
        stop: Its early-stop step, read off Fig. 5.
        fastest: The density of the fastest tickets (text).
        times: How much faster they are, at least; the text says "up to" 3.5,
            3.5 and 2.5, in the best of levels.
        best: The density of the most accurate tickets (text).
        last: The smallest level at more than 2 %.
        lost: Points that reinitialised tickets at `fastest` lose, at least;
            read off Fig. 5, at about 16 %, where it could be.
    """

    accuracy: float
    stop: int
    fastest: float
    times: float
    best: float
    last: float
    lost: float = 0.0


def _claims(given: _Numbers) -> tuple[Claim, ...]:
    return (
        # Twice the error of reading the figure: the paper's own mean of five
        # trials has one too.
        Claim(
            "the dense network's early-stop step",
            "Fig. 5",
            None,
            "dense",
            "dense",
            STOP,
            given.stop - 200,
            given.stop + 200,
            None,
        ),
        Claim(
            "the dense network's test accuracy in percent",
            "Fig. 5",
            None,
            "dense",
            "dense",
            percent(AT_EARLY_STOP),
            given.accuracy - 0.6,
            given.accuracy + 0.6,
            None,
        ),
        Claim(
            f"times as fast tickets at {given.fastest:.1%} are as dense",
            "Sec. 3, Fig. 5",
            given.fastest,
            "ticket",
            "dense",
            TIMES_AS_FAST,
            given.times,
            direction=1.0,
        ),
        # 3.4, 3.5 and 3.3 points "at best".
        Claim(
            f"points by which tickets at {given.best:.1%} beat dense",
            "Sec. 3, Fig. 5",
            given.best,
            "ticket",
            "dense",
            _POINTS,
            2.5,
            4.5,
        ),
        Claim(
            f"points by which tickets at {given.last:.1%} beat dense",
            "Sec. 3, Fig. 5",
            given.last,
            "ticket",
            "dense",
            _POINTS,
            0.0,
        ),
        Claim(
            f"training accuracy of tickets at {given.last:.1%} in percent",
            "Sec. 3, Fig. 5",
            given.last,
            "ticket",
            "dense",
            percent("train_accuracy"),
            99.9,
            direction=None,
        ),
        Claim(
            f"times as fast tickets at {given.fastest:.1%} are as "
            "reinitialised ones",
            "Sec. 3, Fig. 5",
            given.fastest,
            "ticket",
            "reinit",
            TIMES_AS_FAST,
            1.0,
            direction=1.0,
        ),
        Claim(
            f"points by which tickets at {given.fastest:.1%} beat "
            "reinitialised ones",
            "Sec. 3, Fig. 5",
            given.fastest,
            "ticket",
            "reinit",
            _POINTS,
            given.lost,
        ),
    )


CONV_2 = _claims(_Numbers(65.7, 2_300, 0.0881, 2.5, 0.0457, 0.0239))
CONV_4 = _claims(_Numbers(73.7, 2_700, 0.0918, 2.5, 0.1106, 0.0234, 3.0))
CONV_6 = _claims(_Numbers(77.2, 3_300, 0.1529, 2.0, 0.2661, 0.0213, 7.0))

"""Claims about LeNet-300-100 on MNIST.

Frankle & Carbin 2019, Sec. 2. Absolute numbers are in its figures only; the
bands allow for errors of reading and of the mean of five trials.
"""

from tf_lottery.analysis.claims.claim import (
    AT_EARLY_STOP,
    EARLIER,
    STOP,
    TIMES_AS_LONG,
    Claim,
    percent,
    points,
)

_POINTS = points(AT_EARLY_STOP)

ITERATIVE = (
    Claim(
        "the dense network's early-stop step",
        "Fig. 3",
        None,
        "dense",
        "dense",
        STOP,
        4_000,
        6_000,
        None,
    ),
    Claim(
        "the dense network's test accuracy in percent",
        "Fig. 1",
        None,
        "dense",
        "dense",
        percent(AT_EARLY_STOP),
        97.8,
        98.1,
        None,
    ),
    # The text says 38 %, its figure shows about 25 %.
    Claim(
        "share of steps by which tickets at 21 % stop earlier than dense",
        "Sec. 2, Fig. 4a",
        0.211,
        "ticket",
        "dense",
        EARLIER,
        25,
        38,
    ),
    # The text has "more than 0.3".
    Claim(
        "points by which tickets at 13.5 % are more accurate than dense",
        "Sec. 2, Fig. 4a",
        0.135,
        "ticket",
        "dense",
        _POINTS,
        0.3,
        0.4,
    ),
    Claim(
        "points between tickets at 3.6 % and dense",
        "Sec. 2, Fig. 4a",
        0.036,
        "ticket",
        "dense",
        _POINTS,
        -0.2,
        0.2,
        None,
    ),
    Claim(
        "training accuracy of tickets at 2.3 % in percent, at the end",
        "Sec. 2, Fig. 12",
        0.0231,
        "ticket",
        "dense",
        percent("train_accuracy"),
        99.9,
        direction=None,
    ),
    Claim(
        "times as long until reinitialised tickets at 21 % stop",
        "Sec. 2, Fig. 4a",
        0.211,
        "reinit",
        "ticket",
        TIMES_AS_LONG,
        2.51,
        2.51,
        direction=1.0,
    ),
    # 0.5 in the text.
    Claim(
        "points by which tickets at 21 % beat reinitialised ones",
        "Sec. 2, Fig. 4a",
        0.211,
        "ticket",
        "reinit",
        _POINTS,
        0.45,
        0.55,
    ),
    Claim(
        "points by which dense beats reinitialised tickets at 21 %",
        "Sec. 2, Fig. 4a",
        0.211,
        "dense",
        "reinit",
        _POINTS,
        0.0,
        direction=None,
    ),
    Claim(
        "points by which reinitialised tickets at 21 % beat shuffled ones",
        "App. E, Fig. 14",
        0.211,
        "reinit",
        "shuffle",
        _POINTS,
        0.0,
    ),
)

ONE_SHOT = (
    Claim(
        "share of steps by which one-shot tickets at 21 % stop earlier",
        "Sec. 2, Fig. 4c",
        0.211,
        "ticket",
        "dense",
        EARLIER,
        0.0,
    ),
    *(
        Claim(
            f"points by which one-shot tickets at {percent_left} % beat dense",
            "Sec. 2, Fig. 4c",
            density,
            "ticket",
            "dense",
            _POINTS,
            0.0,
        )
        for percent_left, density in ((64, 0.641), (21, 0.211), (7, 0.0695))
    ),
)

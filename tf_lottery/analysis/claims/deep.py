"""Claims about the paper's two deep networks.

Frankle & Carbin 2019, Sec. 4 and 5: "Resnet-18" and VGG-19 on CIFAR-10, by
learning rate. The text does not print the values of these figures, so the
claims are its sentences. Accuracies are those at the end of training. "No
lower" allows a difference of 0.2 points, as the verdict does; a printed
accuracy allows 0.4 points, by which trainings of ResNet-20 differ
(Vandersmissen & Oramas 2023, Table 2).
"""

import math

from tf_lottery.analysis.claims.claim import AT_END, Claim, percent, points

_POINTS = points(AT_END)
_SPREAD = 0.4


def _beats(
    one: str,
    other: str,
    density: float,
    source: str,
    low: float = 0.0,
    high: float = math.inf,
) -> Claim:
    names = {"dense": "dense", "ticket": "tickets", "reinit": "reinitialised"}
    text = f"points by which {names[one]} beat {names[other]} at {density:.1%}"
    return Claim(text, source, density, one, other, _POINTS, low, high, None)


def _accurate(density: float, accuracy: float, source: str) -> Claim:
    return Claim(
        f"test accuracy of tickets at {density:.1%} in percent, at the end",
        source,
        density,
        "ticket",
        "dense",
        percent(AT_END),
        accuracy - _SPREAD,
        accuracy + _SPREAD,
        None,
    )


RESNET_WARMUP = (
    _accurate(0.2709, 90.5, "Sec. 4"),
    _beats("ticket", "dense", 0.2709, "Sec. 4, Fig. 8"),
    _beats("ticket", "dense", 0.1179, "Sec. 4, Fig. 8", -0.2),
    _beats("ticket", "reinit", 0.1179, "Sec. 4, Fig. 8"),
    _beats("dense", "reinit", 0.1179, "Sec. 4, Fig. 8"),
)

RESNET_LOW = (
    _accurate(0.4166, 89.5, "Sec. 4, Fig. 8"),
    _accurate(0.2191, 89.5, "Sec. 4, Fig. 8"),
    _beats("ticket", "reinit", 0.2191, "Sec. 4, Fig. 8"),
)

RESNET_HIGH = (
    _beats("dense", "ticket", 0.2191, "Sec. 4, Fig. 8"),
    _beats("ticket", "reinit", 0.2191, "Sec. 4, Fig. 8", -_SPREAD, _SPREAD),
)

VGG_WARMUP = (
    _beats("ticket", "dense", 0.2099, "Sec. 4, Fig. 7"),
    _beats("ticket", "dense", 0.0147, "Sec. 4 and 5, Fig. 7", -0.2),
    _beats("reinit", "dense", 0.2099, "Sec. 5, Fig. 7", -0.2),
    _beats("dense", "reinit", 0.0147, "Sec. 5, Fig. 7"),
    _beats("ticket", "reinit", 0.0147, "Sec. 5, Fig. 7"),
)

VGG_LOW = (_beats("ticket", "dense", 0.0354, "Sec. 4, Fig. 7", -1.0),)

VGG_HIGH = (
    _beats("dense", "ticket", 0.0354, "Sec. 4, Fig. 7"),
    _beats("reinit", "ticket", 0.0354, "Sec. 4, Fig. 7", -_SPREAD),
)

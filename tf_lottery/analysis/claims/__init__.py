"""The paper's claims, and whether a run bears them out.

One file per family of networks, and one line in `CLAIMS` for each setting that
the paper claims something of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_lottery.analysis.claims import conv, deep, lenet
from tf_lottery.analysis.claims.claim import (
    OUTCOMES,
    Claim,
    Finding,
    Measure,
    check_claims,
)
from tf_lottery.analysis.records import Network

_LENET = {"model": "lenet_300_100", "dataset": "mnist"}
_CONV_2, _CONV_4, _CONV_6 = (
    {"model": f"conv_{n}", "dataset": "cifar10", "schedule": "geometric"}
    for n in (2, 4, 6)
)
_RESNET, _VGG = (
    {"model": name, "dataset": "cifar10", "allocation": "global"}
    for name in ("resnet_18", "vgg_19")
)

CLAIMS: tuple[tuple[Mapping[str, Any], tuple[Claim, ...]], ...] = (
    ({**_LENET, "schedule": "geometric"}, lenet.ITERATIVE),
    ({**_LENET, "schedule": "one_shot"}, lenet.ONE_SHOT),
    (_CONV_2, conv.CONV_2),
    (_CONV_4, conv.CONV_4),
    (_CONV_6, conv.CONV_6),
    (
        {**_RESNET, "learning_rate": 0.03, "warmup": "20000it"},
        deep.RESNET_WARMUP,
    ),
    ({**_RESNET, "learning_rate": 0.01, "warmup": "0it"}, deep.RESNET_LOW),
    ({**_RESNET, "learning_rate": 0.1, "warmup": "0it"}, deep.RESNET_HIGH),
    ({**_VGG, "learning_rate": 0.1, "warmup": "10000it"}, deep.VGG_WARMUP),
    ({**_VGG, "learning_rate": 0.01, "warmup": "0it"}, deep.VGG_LOW),
    ({**_VGG, "learning_rate": 0.1, "warmup": "0it"}, deep.VGG_HIGH),
)
"""Settings that a run must have, and what is claimed of it then."""


def check(
    networks: Sequence[Network],
    settings: Mapping[str, Any],
    published: bool,
) -> list[Finding]:
    """Returns what a run says of each claim that it has networks for.

    Args:
        networks: Records of all replicates.
        settings: The run's, as `experiment.Config` has them.
        published: Whether they are a setting of the paper, not merely like
            it: at others only directions are claimed.
    """
    return [
        finding
        for needed, claims in CLAIMS
        if all(settings.get(key) == needed[key] for key in needed)
        for finding in check_claims(networks, claims, published)
    ]


def tally(findings: Sequence[Finding]) -> str:
    """Returns in one sentence how many claims had which outcome."""
    counts = [
        (outcome, sum(f.outcome == outcome for f in findings))
        for outcome in OUTCOMES
    ]
    parts = ", ".join(f"{n} {outcome}" for outcome, n in counts if n)
    return f"Of {len(findings)} claims of the paper: {parts}."


__all__ = [
    "CLAIMS",
    "Claim",
    "Finding",
    "Measure",
    "check",
    "check_claims",
    "tally",
]

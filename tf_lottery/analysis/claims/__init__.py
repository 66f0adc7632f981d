"""The paper's claims, and their check against a run.

One module per family of networks, and one line in `CLAIMS` for each of the
paper's settings.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lottery.analysis.claims import conv, deep, lenet
from tf_lottery.analysis.claims.claim import (
    Claim,
    Finding,
    Measure,
    Outcome,
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
"""Settings of a run, and the paper's claims about runs with them."""


def check(
    networks: Sequence[Network],
    settings: Mapping[str, Any],
    published: bool,
) -> list[Finding]:
    """Returns the results of a run for claims about networks that it has.

    Args:
        networks: Records of all replicates.
        settings: Fields of the run's `experiment.Config`, by name.
        published: Whether all settings are the paper's; if not, only
            directions are tested.
    """
    return [
        finding
        for needed, claims in CLAIMS
        if all(settings.get(key) == needed[key] for key in needed)
        for finding in check_claims(networks, claims, published)
    ]


def tally(findings: Sequence[Finding]) -> str:
    """Returns the number of claims with each outcome, as a sentence.

    Args:
        findings: As `check` returns.
    """
    counts = collections.Counter(f.outcome for f in findings)
    parts = ", ".join(f"{counts[o]} {o}" for o in Outcome if counts[o])
    return f"Of {len(findings)} claims of the paper: {parts}."


__all__ = [
    "CLAIMS",
    "Claim",
    "Finding",
    "Measure",
    "Outcome",
    "check",
    "check_claims",
    "tally",
]

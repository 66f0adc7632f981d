"""Two variants compared level by level, paired by replicate."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_lottery.analysis import control_draws
from tf_lottery.analysis.catch_up import CATCH_UP, NEVER, with_catch_up
from tf_lottery.analysis.deciding import Deciding, deciding
from tf_lottery.analysis.estimate import Estimate, estimate
from tf_lottery.analysis.records import Network

STOP = "early_stop_step"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One variant against another at one level, over replicates.

    Attributes:
        level: The level.
        density: Density of the first variant, in (0, 1].
        gain: Improvement of the first variant's deciding metric at early stop,
            on validation data, in the metric's unit.
        speed: Natural logarithm of the second variant's catch-up step divided
            by the first one's; above 0 if the first variant catches up with
            the dense network sooner. The catch-up step of the dense network
            is its early-stop step.
        sooner: Natural logarithm of the second variant's early-stop step
            divided by the first one's.
        replicates: Replicates in which both were trained.
        never: Number of replicates in which the first variant never catches
            up with the dense network.
        examples: Standard error of the mean gain from the choice of validation
            examples, which all replicates share: more replicates do not
            reduce it. nan if it is unknown.
    """

    level: int
    density: float
    gain: Estimate
    speed: Estimate
    sooner: Estimate
    replicates: tuple[int, ...]
    never: int
    examples: float


def compare(
    networks: Sequence[Network], one: str, other: str
) -> list[Comparison]:
    """Returns comparisons of two variants at each level from 1 on.

    Differences are taken within a replicate, so effects that its networks
    share, such as the order of their data, cancel.

    Args:
        networks: Records of all replicates. Draws of a control are averaged
            within their replicate.
        one: `"ticket"`, or the name of a control.
        other: `"dense"`, `"ticket"`, or the name of a control.

    Returns:
        A comparison for each level at which both were trained, with validation
        data, in at least one replicate.
    """
    networks = control_draws.pool(with_catch_up(networks))
    cells = {(n.replicate, n.level, n.variant): n for n in networks}
    metric = deciding([n.row for n in networks if n.level == 0])
    pairs: dict[int, list[tuple[Network, Network]]] = {}
    for (replicate, level, variant), network in sorted(cells.items()):
        if variant != one or not level:
            continue
        partner = cells.get(
            (replicate, 0, "ticket")
            if other == "dense"
            else (replicate, level, other)
        )
        if partner and _comparable(network.row, partner.row, metric):
            pairs.setdefault(level, []).append((network, partner))
    return [
        _comparison(level, group, metric)
        for level, group in sorted(pairs.items())
    ]


def _comparable(
    one: Mapping[str, Any], other: Mapping[str, Any], metric: Deciding
) -> bool:
    needed = STOP, CATCH_UP, metric.column("validation")
    return all(name in row for name in needed for row in (one, other))


def _comparison(
    level: int, pairs: Sequence[tuple[Network, Network]], metric: Deciding
) -> Comparison:
    column = metric.column("validation")
    rows = [(one.row, other.row) for one, other in pairs]
    gains = [metric.gain(one[column], other[column]) for one, other in rows]
    grain, error = _of_examples(pairs, metric)
    return Comparison(
        level,
        float(np.mean([one["density"] for one, _ in rows])),
        estimate(gains, grain),
        _log_ratio(pairs, CATCH_UP),
        _log_ratio(pairs, STOP),
        tuple(one.replicate for one, _ in pairs),
        sum(bool(one.get(NEVER)) for one, _ in rows),
        error,
    )


def _log_ratio(
    pairs: Sequence[tuple[Network, Network]], column: str
) -> Estimate:
    """Returns the log of the second step divided by the first one.

    The mean of ratios would be biased by noise; that of logarithms is not.
    """
    steps = np.array(
        [(one.row[column], other.row[column]) for one, other in pairs], float
    )
    every = _evaluated_every(pairs[0][0])
    # Steps are known up to one evaluation; a logarithm's error is relative.
    grain = every * float(np.linalg.norm(1 / steps.mean(axis=0)))
    return estimate(np.log(steps[:, 1] / steps[:, 0]).tolist(), grain)


def _evaluated_every(network: Network) -> float:
    steps = network.curve.get("step", ())
    return float(steps[1] - steps[0]) if len(steps) > 1 else 0.0


def _of_examples(
    pairs: Sequence[tuple[Network, Network]], metric: Deciding
) -> tuple[float, float]:
    """Returns a gain's grain, and its error from the choice of examples."""
    known = [[n.per_example.get("validation") for n in p] for p in pairs]
    differences = np.array(
        [
            one.astype(float) - other.astype(float)
            for one, other in known
            if one is not None and other is not None
        ]
    )  # [replicates, examples]
    if len(differences) < len(pairs):
        return 0.0, math.nan
    count = differences.shape[1]
    grain = 1 / count if metric.is_fraction else 0.0
    spread = differences.mean(axis=0).std() / math.sqrt(count)
    return grain, float(spread)

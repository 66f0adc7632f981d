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
        density: Density of the one.
        gain: By how much its deciding metric is better at early stop, on
            validation data, in the metric's unit.
        speed: Natural logarithm of the other's catch-up step over its own:
            above 0 if it catches up with the dense network sooner. The
            catch-up step of the dense network is its early-stop step.
        sooner: Natural logarithm of the other's early-stop step over its own.
        replicates: The replicates in which both were trained.
        never: In how many replicates the one never catches up with the dense
            network.
        examples: Standard error of the mean gain that comes from the choice
            of validation examples, which all replicates share: more
            replicates do not reduce it. nan where it is unknown.
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
    """Returns how two variants compare at each level from 1 on.

    What two networks of a replicate share, such as the order of their data,
    does not count: differences are taken within the replicate.

    Args:
        networks: Records of all replicates. Draws of a control are averaged
            within their replicate.
        one: `"ticket"`, or a control's name.
        other: `"dense"`, `"ticket"`, or a control's name.

    Returns:
        A comparison of each level at which both were trained, with validation
        data, in one replicate or more.
    """
    networks = control_draws.pool(with_catch_up(networks))
    cells = {(n.replicate, n.level, n.variant): n for n in networks}
    metric = deciding([n.row for n in networks if n.level == 0])
    pairs: dict[int, list[tuple[Network, Network]]] = {}
    for (replicate, level, variant), network in sorted(cells.items()):
        of_dense = other == "dense"
        place = (0, "ticket") if of_dense else (level, other)
        found = cells.get((replicate, *place))
        if (
            variant == one
            and level
            and found
            and _comparable(network.row, found.row, metric)
        ):
            pairs.setdefault(level, []).append((network, found))
    return [
        _comparison(level, found, metric)
        for level, found in sorted(pairs.items())
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
    """Returns the log of the other's step over the one's.

    Logarithms, for a mean of ratios would be moved by their own noise.
    """
    steps = np.array(
        [(one.row[column], other.row[column]) for one, other in pairs], float
    )
    every = _evaluated_every(pairs[0][0])
    # A step is known to an evaluation; the error of a logarithm is relative.
    grain = every * float(np.linalg.norm(1 / steps.mean(axis=0)))
    return estimate(np.log(steps[:, 1] / steps[:, 0]).tolist(), grain)


def _evaluated_every(network: Network) -> float:
    steps = network.curve.get("step", ())
    return float(steps[1] - steps[0]) if len(steps) > 1 else 0.0


def _of_examples(
    pairs: Sequence[tuple[Network, Network]], metric: Deciding
) -> tuple[float, float]:
    """Returns the grain of a gain, and its error by choice of examples."""
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

"""Simulated studies whose truth is known: how often verdicts are wrong.

Figures are as coarse as a run's: accuracies of 5,000 examples, steps of an
evaluation every 100.
"""

import math

import numpy as np
import pytest
from studies import Network

from tf_lottery.analysis import claims, replicates
from tf_lottery.analysis.claims.claim import TIMES_AS_FAST, percent
from tf_lottery.analysis.deciding import MARGIN

LEVELS, RUNS = 10, 500
ACCURACY_SD, STEPS_SD = 0.0015, 0.2  # between trainings; of log steps


def simulate(draw, count, gain, share, levels=LEVELS):
    """A run whose tickets truly gain so much, and take such a share of steps.

    `gain` and `share` are one number for all levels, or one for each.
    """
    shape = count, levels + 1
    gains = np.concatenate([[0.0], np.broadcast_to(gain, levels)])
    shares = np.concatenate([[1.0], np.broadcast_to(share, levels)])
    accuracy = draw.normal(0.975, 0.001, (count, 1)) + gains
    accuracy = accuracy + draw.normal(0, ACCURACY_SD, shape)
    accuracy = np.round(5_000 * accuracy) / 5_000
    steps = 5_000 * shares * np.exp(draw.normal(0, STEPS_SD, shape))
    steps = 100 * np.maximum(1, np.round(steps / 100))
    return [
        Network(
            replicate,
            level,
            "ticket",
            {
                "density": 0.8**level,
                "early_stop_step": float(steps[replicate, level]),
                "validation_accuracy_at_early_stop": float(
                    accuracy[replicate, level]
                ),
                "test_accuracy_at_early_stop": float(
                    accuracy[replicate, level]
                ),
            },
        )
        for replicate in range(count)
        for level in range(levels + 1)
    ]


def outcomes(networks):
    return [verdict.outcome for verdict in replicates.judge(networks)]


def at_most(rate, runs=RUNS):
    """The rate, and three standard errors of counting it in so many runs."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / runs)


HALF = np.arange(LEVELS) % 2 == 0
NO_WINNERS = {
    "worse by the margin, but faster": (-MARGIN, 0.5),
    "better, but no sooner": (0.006, 1.0),
    "neither": (-MARGIN, 1.0),
}


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize(("gain", "share"), NO_WINNERS.values(), ids=NO_WINNERS)
def test_a_run_without_winners_seldom_names_one(count, gain, share):
    draw = np.random.default_rng((1, count))
    wrong = [
        "winning" in outcomes(simulate(draw, count, gain, share))
        for _ in range(RUNS)
    ]
    assert np.mean(wrong) <= at_most(replicates.ALPHA / 2)


def test_losers_among_winners_are_seldom_named():
    draw = np.random.default_rng(2)
    wrong = []
    for _ in range(RUNS):
        gain = np.where(HALF, 0.006, -MARGIN)
        named = outcomes(simulate(draw, 8, gain, 0.5))
        wrong.append("winning" in np.array(named)[~HALF])
    assert np.mean(wrong) <= at_most(replicates.ALPHA / 2)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_run_of_winners_seldom_denies_one(count):
    # At the edge: as fast, and less accurate by no more than the margin.
    draw = np.random.default_rng((3, count))
    wrong = [
        "not winning" in outcomes(simulate(draw, count, -MARGIN, 1.0))
        for _ in range(RUNS)
    ]
    assert np.mean(wrong) <= at_most(replicates.ALPHA)


def test_enough_replicates_find_what_is_there():
    draw = np.random.default_rng(4)
    found = [
        outcomes(simulate(draw, 10, 0.003, 0.5)).count("winning")
        for _ in range(50)
    ]
    assert np.mean(found) > 0.9 * LEVELS


def test_a_loser_is_named_by_enough_replicates_and_never_wins():
    draw = np.random.default_rng(5)
    for _ in range(50):
        named = outcomes(simulate(draw, 10, -0.01, 2.0))
        assert set(named) == {"not winning"}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
def test_a_shuffled_ticket_is_never_called_winning(count):
    # As shuffled LeNets do: slower, and half a point worse.
    draw = np.random.default_rng((6, count))
    for _ in range(RUNS):
        named = outcomes(simulate(draw, count, -0.005, 1.8))
        assert "winning" not in named


def like_the_truth(count, gain, log_share):
    """A pilot whose sample mean and deviation are those of the truth."""
    z = np.random.default_rng(7).normal(size=(2, count))
    z = (z - z.mean(axis=1, keepdims=True)) / z.std(
        axis=1, ddof=1, keepdims=True
    )
    return networks_of(gain + 0.002 * z[0], log_share + 0.3 * z[1])


def networks_of(gains, log_shares):
    networks = []
    for replicate, pair in enumerate(zip(gains, log_shares, strict=True)):
        for level, (gain, share) in enumerate(((0.0, 0.0), pair)):
            row = {
                "density": 0.8**level,
                "early_stop_step": 5_000 * math.exp(share),
                "validation_accuracy_at_early_stop": 0.97 + gain,
            }
            networks.append(Network(replicate, level, "ticket", row))
    return networks


def power(count, gain, log_share):
    """How often so many replicates of that truth call the ticket winning."""
    draw = np.random.default_rng((8, count))
    wins = [
        outcomes(
            networks_of(
                draw.normal(gain, 0.002, count),
                draw.normal(log_share, 0.3, count),
            )
        )
        == ["winning"]
        for _ in range(RUNS)
    ]
    return np.mean(wins)


@pytest.mark.parametrize(
    "truth", [(0.01, -0.15), (0.0, -0.9)], ids=["steps", "accuracy"]
)
def test_as_many_more_as_it_says_decide_as_likely_as_not(truth):
    (verdict,) = replicates.judge(like_the_truth(4, *truth))
    assert verdict.outcome == "undecided"
    enough = 4 + verdict.needed
    assert 0.4 < power(enough, *truth) < 0.65
    assert power(max(2, enough // 2), *truth) < 0.35
    assert power(2 * enough, *truth) > 0.75


def findings(draw, count, truth, low, high):
    """What runs say of a number that truly is `truth`."""
    stated = claims.Claim(
        "", "", None, "dense", "dense", percent("x"), low, high
    )
    for values in draw.normal(truth, 0.2, (2 * RUNS, count)):
        networks = [
            Network(r, 0, "ticket", {"x": value / 100})
            for r, value in enumerate(values)
        ]
        (finding,) = claims.hold(networks, [stated], True)
        yield finding.outcome


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_claim_at_its_edge_is_seldom_settled_wrongly(count):
    draw = np.random.default_rng((9, count))
    # The truth is the edge: agreeing and not agreeing are equally wrong.
    said = list(findings(draw, count, 0.5, 0.5, math.inf))
    for outcome in ("reproduced", "not reproduced"):
        assert said.count(outcome) / len(said) <= at_most(0.025, len(said))
    assert (said.count("reproduced") > 0) == (count >= replicates.FEWEST)


def test_a_claim_is_settled_by_enough_runs_and_never_by_two():
    draw = np.random.default_rng(10)
    for truth, outcome in ((0.5, "reproduced"), (1.5, "not reproduced")):
        said = list(findings(draw, 12, truth, 0.0, 1.0))
        assert said.count(outcome) > 0.95 * len(said)
    for few in (1, 2):
        assert set(findings(draw, few, 0.5, 0.0, 1.0)) == {"not enough runs"}


def test_ratios_of_steps_are_not_moved_by_their_own_noise():
    # As noisy as early stops are: the mean of one / other is off by half.
    draw = np.random.default_rng(11)
    other, one = np.exp(draw.normal(0, 0.6, (2, 4_000)))
    networks = [
        Network(
            replicate,
            level,
            "ticket",
            {"density": 0.8**level, "early_stop_step": stop},
        )
        for replicate, pair in enumerate(zip(other, one, strict=True))
        for level, stop in enumerate(pair)
    ]
    stated = claims.Claim("", "", 0.8, "ticket", "dense", TIMES_AS_FAST, 1.0)
    (finding,) = claims.hold(networks, [stated], True)
    assert np.mean(other / one) > 1.3
    assert finding.measured.mean == pytest.approx(1.0, abs=0.05)

"""Drops against the dense network, by hand."""

import dataclasses
import math

import numpy as np
import pytest
from studies import Network

from tf_lottery.analysis import smallest
from tf_lottery.analysis.deciding import Deciding

ACCURACY = Deciding("accuracy", 1, 0.002)
LOSS = Deciding("loss", -1, 0.01, is_fraction=False)


def right(*counts):
    """Decisions of two networks: both right, lost, won, both wrong."""
    one, dense = [1, 0, 1, 0], [1, 1, 0, 0]
    return np.repeat(one, counts) == 1, np.repeat(dense, counts) == 1


def tango(lost, won, n, drop):
    """Returns the standard error that Tango's likelihood has at a drop.

    P(won) maximizes the likelihood of won, lost, and the others, where
    P(lost) = P(won) + drop: by search, not by his formula.
    """
    wins = np.linspace(0, (1 - drop) / 2, 2_000_001)[1:-1]
    others = n - lost - won
    likelihood = (
        won * np.log(wins)
        + lost * np.log(wins + drop)
        + others * np.log(1 - 2 * wins - drop)
    )
    best = wins[likelihood.argmax()]
    return math.sqrt((2 * best + drop - drop**2) / n)


@pytest.mark.parametrize("counts", [(70, 9, 4, 17), (40, 2, 7, 1)])
def test_the_error_of_decisions_is_that_of_the_likeliest_pair(counts):
    _, lost, won, _ = counts
    n = sum(counts)
    drop, most, error = smallest.of_decisions(*right(*counts), 0.05, 0.975)
    assert drop == (lost - won) / n
    assert error == pytest.approx(tango(lost, won, n, 0.05), rel=1e-4)
    # At the bound the score is the quantile.
    bound = (most - drop) / tango(lost, won, n, most)
    assert bound == pytest.approx(1.959964, rel=1e-4)


def test_confidence_of_one_half_is_the_estimate_itself():
    numbers = smallest.of_decisions(*right(70, 9, 4, 17), 0.05, 0.5)
    assert numbers[:2] == (0.05, 0.05)


def test_means_have_students_interval():
    # t of 3 degrees of freedom at 97.5 %: 3.1824; sd 1.2910.
    dense, one = np.zeros(4, "f"), np.array([1, 2, 3, 4], "f")
    drop, most, error = smallest.of_means(one, dense, LOSS, 0.975)
    assert drop == 2.5
    assert error == pytest.approx(1.2910 / 2, rel=1e-4)
    assert most == pytest.approx(2.5 + 3.1824 * 1.2910 / 2, rel=1e-4)
    better = Deciding("recall", 1, 0.01)
    assert smallest.of_means(one, dense, better, 0.975)[0] == -2.5


def test_two_examples_have_a_bound_and_one_has_none():
    numbers = smallest.of_means(np.ones(2), np.zeros(2), LOSS, 0.975)
    assert numbers == (1, 1, 0)
    numbers = smallest.of_means(np.ones(1), np.zeros(1), LOSS, 0.975)
    assert numbers == (1, math.inf, math.inf)


def test_decisions_and_values_have_tests_of_their_own():
    one, dense = right(70, 9, 4, 17)
    of_decisions = smallest.of_decisions(one, dense, 0.05, 0.975)
    assert smallest.drop_between(one, dense, ACCURACY, 0.05) == of_decisions
    as_values = smallest.drop_between(one * 1.0, dense, ACCURACY, 0.05)
    assert as_values == smallest.of_means(one, dense, ACCURACY, 0.975)
    assert as_values == smallest.drop_between(one, dense * 1.0, ACCURACY, 0.05)


def network(level, variant="ticket", split="validation"):
    one, dense = right(70, 9, 4, 17)
    row = {"density": 0.8**level, "deciding_metric": "accuracy"}
    return Network(0, level, variant, row, {split: one if level else dense})


def test_every_level_is_compared_with_the_dense_network():
    networks = [network(2), network(0), network(1), network(3, "reinit")]
    found = smallest.drops(networks, 0.05, 0.975)
    numbers = smallest.of_decisions(*right(70, 9, 4, 17), 0.05, 0.975)
    assert [dataclasses.astuple(drop) for drop in found] == [
        (1, 0.8, *numbers, 100),
        (2, 0.8**2, *numbers, 100),
    ]
    with pytest.raises(ValueError, match="measured on validation data"):
        smallest.drops([network(0), network(1, split="test")], 0.05, 0.975)


@pytest.mark.parametrize(
    ("max_drop", "confidence", "metric", "message"),
    [
        (0, 0.975, ACCURACY, r"of accuracy, in \(0, 1\); got 0"),
        (1, 0.975, ACCURACY, r"of accuracy, in \(0, 1\); got 1"),
        (math.inf, 0.975, LOSS, r"of loss, in \(0, inf\); got inf"),
        (0.01, 0.49, ACCURACY, r"must be in \[0.5, 1\); got 0.49"),
        (0.01, 1, ACCURACY, r"must be in \[0.5, 1\); got 1"),
    ],
)
def test_limits_out_of_range_are_refused(max_drop, confidence, metric, message):
    with pytest.raises(ValueError, match=message):
        smallest.require(max_drop, confidence, metric)


def test_limits_within_range_are_accepted():
    smallest.require(0.99, 0.5, ACCURACY)
    smallest.require(3.0, 0.975, LOSS)


def drop(level, lost, most, error=0.001):
    return smallest.Drop(level, 0.8**level, lost, most, error, 1_000)


def test_a_level_is_chosen_below_the_limit_and_not_at_it():
    levels = [drop(1, 0.0, 0.004), drop(2, 0.0, 0.005), drop(3, 0.0, 0.004)]
    assert smallest.choose(levels, 0.005).level == 1
    assert smallest.choose(levels, 0.0051).level == 3
    assert smallest.choose(levels, 0.004) is None


def test_a_refusal_says_what_would_settle_it():
    levels = [drop(1, 0.001, 0.009, 0.004), drop(2, 0.005, 0.02)]
    text = smallest.refusal(levels, ACCURACY, 0.005, 0.975)
    assert "within -0.50 points of the dense network's, with 97.5 %" in text
    assert "level 1 (80.0 %) -0.10 points (worst case -0.90 points)" in text
    # (1.96 * 0.004 / 0.004)^2 = 3.8415 times 1,000 examples.
    assert "About 3,842 validation examples would settle level 1" in text
    assert "level 2 is the smallest" in text


def test_a_refusal_promises_nothing_that_more_examples_would_not_give():
    for first in (drop(1, 0.005, 0.01), drop(1, 0.001, 0.01, math.inf)):
        text = smallest.refusal([first], ACCURACY, 0.005, 0.975)
        assert "would settle" not in text
        assert "level 1 is the smallest" in text
    text = smallest.refusal([drop(1, 0.006, 0.01)], ACCURACY, 0.005, 0.975)
    assert "is the smallest" not in text
    none = smallest.refusal([], ACCURACY, 0.005, 0.975)
    assert none.startswith("Only the dense network is trained")

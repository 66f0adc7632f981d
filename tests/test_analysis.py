"""Verdicts on one replicate, and the table of levels."""

import dataclasses
import re

import numpy as np
import pytest
from studies import Network

from tf_lottery.analysis import table, winning


def network(level, accuracy, stop, variant="ticket", examples=5000, seed=0):
    """A network right on a stated share of examples, alike to all others."""
    # The hardest examples are wrong, a few at random besides.
    correct = {}
    for split in ("validation", "test"):
        draw = np.random.default_rng((seed, level, len(split)))
        hardness = np.random.default_rng(1).permutation(examples)
        right = hardness < round(accuracy * examples)
        flipped = draw.choice(examples, 20, replace=False)
        right[flipped[:10]], right[flipped[10:]] = True, False
        correct[split] = right
    row = {
        "density": 0.8**level,
        "early_stop_step": stop,
        "steps": 10_000,
        "test_accuracy_at_early_stop": float(correct["test"].mean()),
        "validation_accuracy_at_early_stop": float(
            correct["validation"].mean()
        ),
    }
    return Network(0, level, variant, row, correct)


DENSE = network(0, 0.97, 5000)


def test_a_network_equals_itself_exactly():
    right = DENSE.per_example["test"]
    assert winning.difference(right, right) == winning.Difference(0, 0, 0)


def test_the_interval_is_that_of_paired_differences():
    one = np.array([True] * 90 + [False] * 10)
    other = np.array([True] * 80 + [False] * 10 + [True] * 4 + [False] * 6)
    d = winning.difference(one, other)
    # 10 better, 4 worse of 100: mean .06, variance .14 - .06**2.
    half = 1.959964 * np.sqrt(0.14 - 0.0036) / 10
    assert d.mean == pytest.approx(0.06)
    assert (d.low, d.high) == pytest.approx((0.06 - half, 0.06 + half))


def test_the_intervals_of_many_levels_hold_together():
    one, other = np.arange(100) < 90, np.arange(100) < 85
    alone, together = (winning.difference(one, other, n) for n in (1, 10))
    width = (together.high - together.mean) / (alone.high - alone.mean)
    assert width == pytest.approx(2.807034 / 1.959964)  # 99.5 % to 95 %
    tickets = [network(level, 0.98, 3000) for level in range(1, 6)]
    verdicts = winning.judge([DENSE, *tickets])
    assert {v.validation.levels for v in verdicts} == {5}
    assert "95 % interval of all 5 levels" in str(verdicts[0].validation)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        one, other = draw.random((2, 2000)) < np.array([[0.98], [0.97]])
        d = winning.difference(one, other)
        covered += d.low <= 0.01 <= d.high
    assert 0.93 < covered / 1000 < 0.97


@pytest.mark.parametrize(
    ("accuracy", "stop", "outcome", "reason"),
    [
        (0.98, 3000, "winning", ""),
        (0.98, 5000, "winning", ""),
        (0.98, 5100, "not winning", "stops at step 5,100, the dense network"),
        (0.96, 3000, "not winning", "is less accurate: -1"),
        (0.9695, 3000, "undecided", "may be less accurate"),
    ],
)
def test_a_ticket_wins_if_no_later_and_no_less_accurate(
    accuracy, stop, outcome, reason
):
    (verdict,) = winning.judge([DENSE, network(1, accuracy, stop)])
    assert verdict.outcome == outcome
    assert verdict.is_winning == (outcome == "winning")
    assert verdict.reason.startswith(reason)
    assert verdict.sooner == pytest.approx(1 - stop / 5000)


def test_test_data_decides_nothing():
    ticket = network(1, 0.98, 3000)
    spoilt = dataclasses.replace(
        ticket,
        per_example={**ticket.per_example, "test": ~ticket.per_example["test"]},
    )
    (verdict,) = winning.judge([DENSE, spoilt])
    assert verdict.is_winning
    assert verdict.test.high < 0


def test_the_smallest_that_wins_is_the_winner():
    networks = [DENSE, network(1, 0.98, 3000), network(2, 0.98, 3000)]
    networks += [network(3, 0.95, 3000), network(2, 0.99, 100, "reinit")]
    verdicts = winning.judge(networks)
    assert [v.level for v in verdicts] == [1, 2, 3]
    assert winning.winner(verdicts).level == 2
    assert winning.winner(verdicts[2:]) is None


def test_the_sentence_says_which_by_how_much_and_against_what():
    networks = [DENSE, network(1, 0.98, 3000)]
    networks.append(network(1, 0.96, 9000, "reinit", seed=3))
    line = winning.sentence(networks)
    assert line.startswith("Level 1 is a winning ticket; with 80.0 % of the")
    assert "at step 3,000, the dense network at 5,000" in line
    assert re.search(r"accuracy is 97\.\d+ %, \+[01]\.\d+ points \(95 %", line)
    assert "its control reinit stops at 9,000 with -1.9" in line


def test_a_dense_network_that_never_stopped_is_said_to():
    networks = [network(0, 0.97, 10_000), network(1, 0.98, 10_000)]
    assert "still fell when training ended" in winning.sentence(networks)
    networks[0] = DENSE
    assert "still fell" not in winning.sentence([DENSE, network(1, 0.98, 50)])


def test_a_control_that_does_as_well_is_reported_as_such():
    networks = [DENSE, network(1, 0.98, 3000)]
    networks.append(network(1, 0.98, 2900, "reinit", seed=3))
    assert "no worse: what was taken" in winning.sentence(networks)


def test_the_sentence_says_that_none_wins_and_why():
    line = winning.sentence([DENSE, network(1, 0.9, 3000)])
    assert line.startswith("No level is a winning ticket: level 1 is less")
    assert "there is only the dense network" in winning.sentence([DENSE])


def test_the_sentence_claims_nothing_where_one_replicate_cannot_tell():
    networks = [DENSE, network(1, 0.9695, 3000), network(2, 0.9, 3000)]
    line = winning.sentence(networks)
    assert line.startswith("No level is shown to be a winning ticket, and one")
    assert "Nearest is level 1, which may be less accurate" in line
    assert "at step 3,000, the dense network at 5,000" in line


def test_a_verdict_needs_a_dense_network():
    with pytest.raises(ValueError, match="no dense network"):
        winning.judge([network(1, 0.9, 10)])


def test_the_table_means_over_replicates_and_leaves_gaps():
    networks = [
        DENSE,
        dataclasses.replace(network(0, 0.95, 7000), replicate=1),
        network(1, 0.98, 3000),
        network(1, 0.96, 9000, "reinit"),
    ]
    rows = table.by_level(networks)
    assert rows[0]["ticket early_stop_step"] == 6000
    assert rows[0]["ticket accuracy"] == pytest.approx(0.96, abs=3e-3)
    assert rows[0]["reinit accuracy"] is None
    lines = table.text(networks).splitlines()
    assert lines[0].split()[:3] == ["level", "density", "ticket:"]
    assert lines[2].split()[:4] == ["1", "80.00", "%", "3,000"]
    assert len({len(line) for line in lines}) == 1


def test_the_table_has_one_column_for_all_draws_of_a_control():
    networks = [
        DENSE,
        network(1, 0.98, 3000),
        network(1, 0.95, 8000, "reinit"),
        network(1, 0.97, 9000, "reinit.2"),
    ]
    row = table.by_level(networks)[1]
    assert row["reinit early_stop_step"] == 8500
    assert row["reinit accuracy"] == pytest.approx(0.96, abs=3e-3)
    assert "reinit.2" not in table.text(networks)

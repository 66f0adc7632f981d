"""Verdicts over replicates, and claims of the paper."""

import dataclasses

import numpy as np
import pytest
from studies import drawn_again, study, with_controls

from tf_lottery.analysis import draws, replicates, winning


def outcomes(networks):
    return [verdict.outcome for verdict in replicates.judge(networks)]


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_replicates_claim_nothing(count):
    draw = np.random.default_rng(0)
    verdicts = replicates.judge(study(draw, count, gain=0.1, share=0.1))
    assert {v.outcome for v in verdicts} == {"undecided"}
    assert {v.needed for v in verdicts} == {None}


def test_as_many_more_as_it_says_decide():
    draw = np.random.default_rng(0)
    few = study(draw, 4, gain=0.001, share=0.7, levels=1)
    (verdict,) = replicates.judge(few)
    assert verdict.outcome == "undecided"
    gain = verdict.comparison.gain
    for more, decides in ((verdict.needed, True), (verdict.needed - 1, False)):
        n = 4 + more
        sides = [
            (replicates._half(e.spread, n, 1), distance)
            for e, distance in (
                (gain, gain.mean + winning.MARGIN),
                (verdict.comparison.sooner, verdict.comparison.sooner.mean),
            )
        ]
        assert all(half < distance for half, distance in sides) == decides
    assert f"About {verdict.needed} more" in replicates.sentence(few)


def test_intervals_are_students_and_share_their_error():
    one = replicates.estimate([1.0, 2.0, 3.0, 4.0])
    # t of 3 degrees of freedom at 97.5 %: 3.1824; sd 1.2910.
    assert one.high - one.mean == pytest.approx(3.1824 * 1.2910 / 2, rel=1e-4)
    ten = replicates.estimate([1.0, 2.0, 3.0, 4.0], 10)
    # At 99.75 %: 7.4533.
    assert ten.mean - ten.low == pytest.approx(7.4533 * 1.2910 / 2, rel=1e-4)


def test_networks_are_paired_by_replicate():
    draw = np.random.default_rng(0)
    networks = study(draw, 5, levels=1)
    before = replicates.compare(networks, "ticket", "dense")
    # What all networks of a replicate share says nothing of their difference.
    for network in networks:
        row = network.row
        row["validation_accuracy_at_early_stop"] -= 0.1 * network.replicate
    after = replicates.compare(networks[::-1], "ticket", "dense")
    assert after[0].gain.mean == pytest.approx(before[0].gain.mean)
    assert after[0].gain.spread == pytest.approx(before[0].gain.spread)


def test_test_data_decides_nothing():
    draw = np.random.default_rng(0)
    networks = study(draw, 8, gain=0.003, share=0.5)
    before = replicates.judge(networks)
    for network in networks:
        network.row["test_accuracy_at_early_stop"] = -network.level
    assert replicates.judge(networks) == before


def test_levels_in_a_row_are_named_by_their_ends():
    networks = study(np.random.default_rng(0), 8, gain=0.01, share=0.3)
    assert "winning: levels 1 to 10." in replicates.sentence(networks)
    assert replicates._ranges([1, 3, 4, 6, 7, 8]) == "1, 3, 4, 6 to 8"


def test_a_dense_network_that_never_stopped_is_said_to():
    networks = study(np.random.default_rng(0), 3)
    assert "still fell" not in replicates.sentence(networks)
    networks[0].row["early_stop_step"] = networks[0].row["steps"]
    assert "still fell when training ended" in replicates.sentence(networks)


def test_draws_of_a_control_are_one_control_and_no_replicates():
    networks = with_controls(np.random.default_rng(0), 4, "reinit", levels=2)
    before = replicates.compare(networks, "ticket", "reinit")
    after = replicates.compare(drawn_again(networks, 3), "ticket", "reinit")
    for one, three in zip(before, after, strict=True):
        assert three.gain.replicates == 4
        # Lower by 0, .2 and .3 points: by a sixth of a point on average.
        assert three.gain.mean == pytest.approx(one.gain.mean + 0.005 / 3)
        assert three.gain.spread == pytest.approx(one.gain.spread)


def test_draws_are_averaged_within_their_replicate():
    networks = with_controls(np.random.default_rng(0), 2, "reinit", levels=1)
    pooled = draws.pool(drawn_again(networks, 2))
    cells = [(n.replicate, n.level, n.variant) for n in pooled]
    assert len(set(cells)) == len(cells) == len(networks)
    (first,) = (
        n for n in networks if (n.replicate, n.variant) == (0, "reinit")
    )
    (mean,) = (n for n in pooled if (n.replicate, n.variant) == (0, "reinit"))
    assert mean.row["early_stop_step"] == pytest.approx(
        first.row["early_stop_step"] + 100
    )
    assert mean.row["variant"] == "reinit"
    assert mean.curve["step"] == [100, 200, 300]
    assert mean.curve["validation_accuracy"][0] == pytest.approx(0.35)


def test_what_is_drawn_once_passes_as_it_is():
    networks = with_controls(np.random.default_rng(0), 2, "reinit", levels=2)
    assert draws.pool(networks) == networks
    assert draws.pool(draws.pool(drawn_again(networks, 3))) == draws.pool(
        drawn_again(networks, 3)
    )
    # Of a run under way, perhaps only the second.
    (ticket, *_) = networks
    (alone,) = draws.pool([dataclasses.replace(ticket, variant="reinit.2")])
    assert alone.variant == "reinit"
    assert alone.row == {**ticket.row, "variant": "reinit"}

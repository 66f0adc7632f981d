"""The verdict on tickets, and its sentences."""

import dataclasses
import math

import numpy as np
import pytest
import studies
from studies import Network, caught_up, drawn_again

from tf_lottery.analysis import conclusion, control_draws, table, verdict
from tf_lottery.analysis.catch_up import catch_up_step, with_catch_up
from tf_lottery.analysis.comparison import compare
from tf_lottery.analysis.deciding import Deciding, deciding
from tf_lottery.analysis.estimate import estimate
from tf_lottery.analysis.looks import Looks

ACCURACY = "validation_accuracy_at_early_stop"


def study(*arguments, **settings):
    return caught_up(studies.study(*arguments, **settings))


def with_controls(*arguments, **settings):
    return caught_up(studies.with_controls(*arguments, **settings))


def outcomes(networks, *arguments):
    judgment = verdict.judge(networks, *arguments)
    return {v.level: v.outcome for v in judgment.verdicts}


def sentences(networks, *arguments):
    judgment = verdict.judge(networks, *arguments)
    return " ".join(conclusion.sentences(judgment, networks))


def winners(count=5, levels=10, seed=0, **settings):
    draw = np.random.default_rng(seed)
    settings = {"gain": 0.005, "share": 0.4, **settings}
    return study(draw, count, levels=levels, **settings)


# --- estimates


def test_bounds_are_students_and_one_sided():
    found = estimate([1.0, 2.0, 3.0, 4.0])
    # t of 3 degrees of freedom at 97.5 %: 3.1824; sd 1.2910.
    assert found.high - 2.5 == pytest.approx(3.1824 * 1.2910 / 2, rel=1e-4)
    assert found.is_above(0.44)
    assert not found.is_above(0.45)
    assert found.is_below(4.56)


def test_two_replicates_have_no_interval():
    found = estimate([1.0, 1.0])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert not found.is_above(-1e9)


def test_a_prediction_is_wider_than_the_interval_of_the_mean():
    found = estimate([1.0, 2.0, 3.0, 4.0])
    low, high = found.prediction(5)
    half = 3.1824 * 1.2910 * math.sqrt(1 / 4 + 1 / 5)
    assert (low, high) == pytest.approx((2.5 - half, 2.5 + half), abs=1e-3)


def test_values_that_agree_by_rounding_are_not_certain():
    assert estimate([0.0] * 5, grain=0.01).sd == pytest.approx(
        0.01 / math.sqrt(12)
    )
    assert not estimate([0.0] * 5, grain=1.0).is_above(-0.002)
    assert estimate([0.0] * 5, grain=1 / 5000).is_above(-0.002)


# --- catching up


def curve(losses, every=100):
    steps = [every * (i + 1) for i in range(len(losses))]
    return {"step": steps, "validation_loss": losses}


def network(level, losses, replicate=0, variant="ticket", **row):
    stop = curve(losses)["step"][int(np.argmin(losses))]
    row = {
        "density": 0.8**level,
        "early_stop_step": stop,
        "steps": 100 * len(losses),
        ACCURACY: 0.97,
        **row,
    }
    return Network(replicate, level, variant, row, curve=curve(losses))


def test_a_network_catches_up_at_the_dense_networks_lowest_loss():
    dense = network(0, [0.5, 0.3, 0.2, 0.4])
    assert catch_up_step(dense, dense) == 300
    assert catch_up_step(network(1, [0.5, 0.2, 0.1, 0.3]), dense) == 200
    assert catch_up_step(network(1, [0.5, 0.4, 0.3, 0.21]), dense) is None


def test_never_catching_up_counts_as_twice_the_length():
    networks = [
        network(0, [0.5, 0.3, 0.2, 0.4]),
        network(1, [0.5, 0.4, 0.3, 0.21]),
    ]
    assert with_catch_up(networks)[1].row["catch_up_step"] == 800
    (found,) = compare(networks, "ticket", "dense")
    assert found.speed.mean == pytest.approx(math.log(300 / 800))


def test_a_sentence_says_who_never_catches_up():
    falling, worse = [0.5, 0.3, 0.2, 0.4, 0.5], [0.5, 0.4, 0.3, 0.25, 0.3]
    networks = [network(0, falling), network(1, worse)]
    assert "it never reaches the dense network's lowest" in sentences(networks)
    networks += [network(0, falling, 1), network(1, falling, 1)]
    assert "(never in 1 of 2 replicates)" in sentences(networks)


# --- the rule


def test_tickets_that_are_faster_and_as_good_win():
    assert set(outcomes(winners()).values()) == {"winning"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"share": 1.25}, "is not shown to reach the dense network's lowest"),
        ({"gain": -0.002}, "is not shown to be as good"),
        ({"share": 4.0}, "reaches the dense network's lowest validation loss"),
        ({"gain": -0.02}, "is worse: -"),
    ],
)
def test_both_conditions_must_be_shown(change, reason):
    judgment = verdict.judge(winners(**change))
    first = verdict.sequence(judgment.verdicts)[0]
    assert first.outcome in ("undecided", "not winning")
    assert first.reason.startswith(reason)
    assert judgment.winner is None


def test_levels_are_tested_from_21_percent_to_sparser_then_denser():
    judgment = verdict.judge(winners(levels=9))
    order = [v.level for v in verdict.sequence(judgment.verdicts)]
    assert order == [7, 8, 9, 6, 5, 4, 3, 2, 1]
    judgment = verdict.judge(winners(levels=3))
    assert verdict.sequence(judgment.verdicts)[0].level == 3


def worse_at(networks, level):
    for n in networks:
        if n.level == level:
            n.row[ACCURACY] -= 0.003 + 0.004 * (n.replicate % 2)
    return networks


def test_the_first_failure_ends_the_tests():
    found = outcomes(worse_at(winners(), 9))
    assert [found[k] for k in (7, 8, 9, 10, 6)] == [
        "winning",
        "winning",
        "undecided",
        "not tested",
        "not tested",
    ]


def test_what_fails_clearly_is_not_winning_tested_or_not():
    networks = winners()
    for n in networks:
        if n.level == 10:
            n.row[ACCURACY] -= 0.5
    worse_at(networks, 9)
    assert outcomes(networks)[10] == "not winning"


def test_the_winner_is_the_smallest_that_wins():
    judgment = verdict.judge(worse_at(winners(), 9))
    assert judgment.winner.level == 8


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_replicates_have_no_verdict_but_a_comparison(count):
    networks = with_controls(
        np.random.default_rng(0), count, "reinit", gain=0.01, share=0.2
    )
    judgment = verdict.judge(networks)
    assert not judgment.verdicts
    text = sentences(networks)
    assert f"No verdict on {count} replicate" in text
    assert "Level 7 (21.0 % of the weights) as measured" in text
    assert "reinit stops after" in text
    assert "replicates=5" in text
    assert "winning ticket" not in text


def test_networks_that_are_still_learning_are_trained_too_short():
    falling = [
        network(k, [0.9, 0.5, 0.3, 0.2], r) for k in (0, 1) for r in (0, 1, 2)
    ]
    assert outcomes(falling) == {1: "trained too short"}
    assert "Trained too short for a verdict" in sentences(falling)
    assert "winning" not in sentences(falling)


def test_one_late_dense_network_of_five_is_noted_and_does_not_settle():
    networks = winners()
    networks[0].row["early_stop_step"] = networks[0].row["steps"]
    networks[0].row["catch_up_step"] = networks[0].row["steps"]
    assert set(outcomes(networks).values()) <= {"winning", "undecided"}
    assert "1 of 5 dense networks stopped in the last 5 %" in sentences(
        networks
    )


def test_equal_networks_do_not_win():
    equal = [
        network(k, [0.9, 0.2, 0.3, 0.3], r) for k in (0, 1) for r in range(5)
    ]
    (found,) = compare(equal, "ticket", "dense")
    assert found.speed.mean == 0
    assert outcomes(equal) == {1: "undecided"}


def test_one_validation_example_shows_nothing():
    networks = [
        dataclasses.replace(
            network(k, losses, r, **{ACCURACY: 1.0}),
            per_example={"validation": np.array([True])},
        )
        for r in range(5)
        for k, losses in ((0, [0.9, 0.5, 0.2, 0.3]), (1, [0.2, 0.1, 0.2, 0.3]))
    ]
    assert outcomes(networks) == {1: "undecided"}


def test_networks_are_paired_by_replicate():
    networks = winners()
    before = compare(networks, "ticket", "dense")
    for n in networks:
        n.row[ACCURACY] -= 0.1 * n.replicate
    after = compare(networks[::-1], "ticket", "dense")
    assert after[0].gain.mean == pytest.approx(before[0].gain.mean)
    assert after[0].gain.sd == pytest.approx(before[0].gain.sd)


def test_test_data_decides_nothing():
    networks = winners()
    before = outcomes(networks)
    for n in networks:
        n.row["test_accuracy_at_early_stop"] = -n.level
        n.per_example["test"] = ~n.per_example["test"]
    assert outcomes(networks) == before


def test_a_level_that_lacks_a_replicate_is_not_tested():
    networks = [n for n in winners() if (n.replicate, n.level) != (3, 7)]
    judgment = verdict.judge(networks)
    first = verdict.sequence(judgment.verdicts)[0]
    assert (first.level, first.outcome) == (7, "not tested")
    assert first.reason == "replicate 3 lacks it"
    assert judgment.winner is None


def test_replicates_that_lack_a_level_are_listed():
    networks = [n for n in winners() if n.level != 7 or n.replicate in (0, 4)]
    first = verdict.sequence(verdict.judge(networks).verdicts)[0]
    assert first.reason == "replicates 1, 2, 3 lack it"
    networks = [n for n in winners() if n.level != 7 or n.replicate > 1]
    first = verdict.sequence(verdict.judge(networks).verdicts)[0]
    assert first.reason == "replicates 0, 1 lack it"


@dataclasses.dataclass(frozen=True)
class Lost:
    replicate: int
    level: int
    variant: str
    step: int


def test_a_loss_that_was_not_finite_is_missing_and_named():
    networks = [n for n in winners() if n.replicate != 3 or n.level < 7]
    lost = [Lost(3, 7, "ticket", 400)]
    assert outcomes(networks, 5, lost)[7] == "not tested"
    lost.append(Lost(0, 0, "probe_16", 20))
    text = sentences(networks, 5, lost)
    assert "probe" not in text
    assert (
        "Replicate 3 lacks ticket of level 7: its loss was not finite at step "
        "400." in text
    )


def test_a_network_that_is_missing_does_not_hold_up_the_verdict():
    networks = winners(levels=8)
    lost = [Lost(3, 9, "ticket", 400)]
    assert "training is at level 8 of 9" in sentences(networks, 5, (), 9)
    assert verdict.judge(networks, 5, lost, 9).problem == ""
    assert verdict.judge(networks, 5, (), 8).problem == ""


def test_replicates_beyond_the_plan_are_not_judged():
    judgment = verdict.judge(winners(7), 5)
    assert judgment.replicates == 5
    assert {tuple(c.replicates) for c in judgment.comparisons} == {
        (0, 1, 2, 3, 4)
    }


def stopping_at(*shares):
    """The judgment on dense networks that stop after shares of their steps."""
    networks = winners(len(shares))
    for n in networks:
        if not n.level:
            n.row["early_stop_step"] = shares[n.replicate] * n.row["steps"]
            n.row["catch_up_step"] = n.row["early_stop_step"]
    return verdict.judge(networks)


@pytest.mark.parametrize(
    ("shares", "late", "is_short"),
    [
        ((0.95, 0.95, 0.95, 0.95), 0, False),
        ((0.5, 0.5, 0.96, 0.96), 2, False),
        ((0.5, 0.96, 0.96, 0.96), 3, True),
    ],
)
def test_half_of_the_dense_networks_may_stop_late(shares, late, is_short):
    judgment = stopping_at(*shares)
    outcomes = {v.outcome for v in judgment.verdicts}
    assert (outcomes == {"trained too short"}) is is_short
    notes = [n for n in judgment.notes if n.startswith(f"{late} of 4 dense")]
    assert len(judgment.notes) == len(notes) == (0 < late < 3)


def test_a_run_is_settled_when_the_first_level_is_decided():
    assert verdict.judge(winners()).is_settled
    assert verdict.judge(winners(share=4.0)).is_settled
    assert stopping_at(1, 1, 1).is_settled
    assert not verdict.judge(winners(share=1.25)).is_settled
    assert not verdict.judge(winners(2)).is_settled


def test_a_run_under_way_has_no_verdict():
    networks = winners(3)
    assert "3 of 5 replicates are begun" in sentences(networks, 5)
    assert "training is at level 10 of 12" in sentences(networks, 3, (), 12)


def test_a_verdict_needs_validation_data_and_a_dense_network():
    networks = winners()
    assert "no dense network" in sentences([n for n in networks if n.level])
    for n in networks:
        del n.row["early_stop_step"]
    assert "a verdict needs validation data" in sentences(networks)
    dense = [n for n in winners() if not n.level]
    assert "only the dense network is trained" in sentences(dense)


# --- looks


def test_two_looks_are_planned_and_share_their_error():
    looks = Looks.parse("5:8")
    assert (looks.first, looks.last, str(looks)) == (5, 8, "5:8")
    assert looks.alpha == 0.0147
    assert [looks.at(n) for n in (3, 5, 6, 8)] == [5, 5, 8, 8]
    assert Looks.parse(5) == Looks.parse("5") == Looks(5, 5)


@pytest.mark.parametrize(
    "value", [0, -1, True, "", "x", "5:", "3:4", "5:9", "8:5", 2.0]
)
def test_looks_that_cannot_be_are_refused(value):
    with pytest.raises(ValueError, match="replicates.*got"):
        Looks.parse(value)


def test_a_run_keeps_to_the_replicates_that_it_was_planned_for():
    for begun in (1, 2, 5):
        Looks.parse(5).require_continues(begun, "runs/x")
    for begun in (3, 8, "5:8"):
        with pytest.raises(ValueError, match="was begun with"):
            Looks.parse(5).require_continues(begun, "runs/x")


def test_a_run_between_its_looks_waits_for_the_second():
    assert verdict.judge(winners(5), "5:8").is_settled
    assert "6 of 8 replicates are begun" in sentences(winners(6), "5:8")
    assert outcomes(winners(8), "5:8")[7] == "winning"
    undecided = worse_at(winners(), 7)
    assert not verdict.judge(undecided, "5:8").is_settled


# --- words


def test_the_sentence_names_the_ticket_its_effects_and_controls():
    networks = with_controls(
        np.random.default_rng(0), 5, "reinit", gain=0.005, share=0.4
    )
    text = sentences(networks)
    assert "Level 10 (10.7 % of the weights) is a winning ticket over 5" in text
    assert "it reaches the dense network's lowest validation loss in 3" in text
    assert "% of its steps (at most " in text
    assert "% earlier (at least " in text
    assert "points on validation data (at least +" in text
    assert "; reinit stops after " in text
    assert "times the steps (at least " in text
    assert "Also winning: levels 1 to 9." in text
    assert (
        "Decided by validation accuracy at early stop (higher is better; "
        "margin 0.2 points)." in text
    )


def test_a_control_that_does_as_well_is_said_to():
    networks = with_controls(
        np.random.default_rng(0), 5, "reinit", gain=0.005, share=0.4
    )
    alike = {
        n.replicate: n
        for n in networks
        if n.level == 10 and n.variant == "ticket"
    }
    for n in networks:
        if n.variant == "reinit" and n.level == 10:
            n.row.update(alike[n.replicate].row)
    assert "is not shown to be worse than the ticket" in sentences(networks)


def test_undecided_says_how_many_replicates_another_run_needs():
    text = sentences(worse_at(winners(gain=0.003, levels=7), 7))
    assert "No level is shown to be a winning ticket over 5 replicates" in text
    assert "tested first, is undecided: it is not shown to be as good" in text
    assert "replicates name it with 90 % probability" in text
    assert "begin another one, with another seed" in text


def test_a_loss_decides_where_there_is_no_accuracy():
    networks = []
    for r in range(5):
        for level, loss in ((0, 0.5), (1, 0.4 + 0.001 * r)):
            found = network(level, [0.9, 0.5, loss, 0.6], r)
            row = {
                **found.row,
                "deciding_metric": "loss",
                "validation_loss_at_early_stop": loss,
            }
            networks.append(dataclasses.replace(found, row=row))
    metric = deciding([n.row for n in networks if not n.level])
    assert (metric.sign, metric.margin) == (-1, pytest.approx(0.005))
    (found,) = compare(networks, "ticket", "dense")
    assert found.gain.mean == pytest.approx(0.098)
    assert "validation loss at early stop (lower is better" in str(metric)
    assert metric.difference(found.gain.mean) == "-0.098"


def test_the_metric_is_told_in_its_unit():
    accuracy = Deciding("accuracy", 1, 0.002)
    assert accuracy.value(0.9731) == "97.31 %"
    assert accuracy.bound(0.0003) == "at least +0.03 points"
    loss = Deciding("loss", -1, 0.01, is_fraction=False)
    assert loss.bound(0.0003) == "at most -0.0003"


# --- draws and the table


def test_draws_of_a_control_are_one_control_and_no_replicates():
    networks = with_controls(np.random.default_rng(0), 4, "reinit", levels=2)
    before = compare(networks, "ticket", "reinit")
    after = compare(drawn_again(networks, 3), "ticket", "reinit")
    for one, three in zip(before, after, strict=True):
        assert three.gain.n == 4
        # Lower by 0, .2 and .3 points: by a sixth of a point on average.
        assert three.gain.mean == pytest.approx(one.gain.mean + 0.005 / 3)
        assert three.gain.sd == pytest.approx(one.gain.sd)


def test_draws_are_averaged_within_their_replicate():
    networks = with_controls(np.random.default_rng(0), 2, "reinit", levels=1)
    pooled = control_draws.pool(drawn_again(networks, 2))
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
    assert control_draws.pool(networks) == networks
    assert control_draws.pool(
        control_draws.pool(drawn_again(networks, 3))
    ) == control_draws.pool(drawn_again(networks, 3))
    # Of a run under way, perhaps only the second.
    (ticket, *_) = networks
    (alone,) = control_draws.pool(
        [dataclasses.replace(ticket, variant="reinit.2")]
    )
    assert alone.variant == "reinit"
    assert alone.row == {**ticket.row, "variant": "reinit"}


def test_the_table_has_means_intervals_and_verdicts():
    networks = with_controls(
        np.random.default_rng(0), 5, "reinit", levels=2, gain=0.01, share=0.4
    )
    lines = table.text(networks, verdict.judge(networks)).splitlines()
    assert lines[0].split()[:4] == ["level", "density", "verdict", "catches"]
    assert "reinit: early stop" in lines[0]
    cells = lines[3].split()
    assert cells[:4] == ["2", "64.00", "%", "winning"]
    stops = [
        n.row["early_stop_step"]
        for n in networks
        if n.level == 2 and n.variant == "ticket"
    ]
    found = estimate(stops)
    assert f"{found.mean:,.0f} ±{found.half_width():,.0f}" in lines[3]
    assert lines[-1].startswith("Means over n = 5 replicates, ± half of their")
    assert len({len(line) for line in lines[:-1]}) == 1


def test_the_table_leaves_gaps():
    networks = study(np.random.default_rng(0), 1, levels=1)
    alone = study(np.random.default_rng(0), 1, levels=1, variant="reinit")
    rows = table.by_level([*networks, alone[1]])
    assert rows[0]["reinit accuracy"] is None
    assert "±" not in table.text(networks)

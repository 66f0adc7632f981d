"""Verdicts over replicates, on studies whose truth is known."""

import dataclasses
import math

import numpy as np
import pytest

from tf_lottery.analysis import claims, replicates, report, winning

LEVELS = 10


@dataclasses.dataclass(frozen=True)
class Network:
    replicate: int
    level: int
    variant: str
    row: dict
    correct: dict = dataclasses.field(default_factory=dict)
    curve: dict = dataclasses.field(default_factory=dict)


def study(draw, count, gain=0.0, share=1.0, levels=LEVELS, variant="ticket"):
    """Replicates whose tickets truly gain so much and take such a share."""
    networks = []
    for replicate in range(count):
        common = draw.normal(0.98, 0.001)
        for level in range(levels + 1):
            better = gain if level else 0.0
            steps = 5_000 * (share if level else 1.0)
            accuracy = common + better + draw.normal(0, 0.0015)
            row = {
                "density": 0.8**level,
                "early_stop_step": steps * math.exp(draw.normal(0, 0.15)),
                "validation_accuracy_at_early_stop": accuracy,
                "test_accuracy_at_early_stop": accuracy,
            }
            name = variant if level else "ticket"
            networks.append(Network(replicate, level, name, row))
    return networks


def outcomes(networks):
    return [verdict.outcome for verdict in replicates.judge(networks)]


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize(
    "truth",
    [
        {"gain": -winning.MARGIN, "share": 0.5},
        {"gain": 0.005, "share": 1.0},
        {"gain": -winning.MARGIN, "share": 1.0},
    ],
    ids=["at the margin of accuracy", "as slow", "both"],
)
def test_of_runs_without_winners_at_most_one_in_twenty_names_one(count, truth):
    draw = np.random.default_rng(count)
    runs = [outcomes(study(draw, count, **truth)) for _ in range(300)]
    wrong = sum("winning" in run for run in runs) / len(runs)
    # Three standard errors above the level promised.
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("count", [3, 5])
def test_of_runs_of_winners_at_most_one_in_twenty_denies_one(count):
    draw = np.random.default_rng(count)
    runs = [
        outcomes(study(draw, count, gain=-winning.MARGIN, share=1.0))
        for _ in range(300)
    ]
    wrong = sum("not winning" in run for run in runs) / len(runs)
    assert wrong <= 0.10 + 3 * math.sqrt(0.1 * 0.9 / 300)


def test_enough_replicates_find_what_is_there():
    draw = np.random.default_rng(0)
    found = [
        outcomes(study(draw, 10, gain=0.003, share=0.6)).count("winning")
        for _ in range(20)
    ]
    assert np.mean(found) > 0.9 * LEVELS


def test_losers_are_named_and_never_called_winning():
    draw = np.random.default_rng(0)
    for _ in range(50):
        named = outcomes(study(draw, 8, gain=-0.01, share=2.0))
        assert set(named) == {"not winning"}


def test_shuffled_tickets_are_never_called_winning():
    # As shuffled LeNets do: slower, and half a point worse.
    draw = np.random.default_rng(1)
    for count in (2, 3, 5, 10):
        for _ in range(50):
            run = outcomes(study(draw, count, gain=-0.005, share=1.8))
            assert "winning" not in run


def test_one_replicate_claims_nothing():
    draw = np.random.default_rng(0)
    verdicts = replicates.judge(study(draw, 1, gain=0.1, share=0.1))
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


def test_the_report_shows_verdicts_controls_and_claims():
    draw = np.random.default_rng(0)
    networks = study(draw, 5, gain=0.003, share=0.5)
    networks += [
        n
        for n in study(draw, 5, gain=-0.005, share=2.0, variant="reinit")
        if n.level
    ]
    findings = claims.check(networks, "lenet_300_100", "mnist", True)
    page = report.render("study", networks, {}, {}, findings)
    assert "Tickets against reinit" in page
    assert "winning: levels 1" in page
    assert "reproduced: share of steps by which tickets at 21 %" in page
    assert report.sentences(networks)[0].startswith("Over 5 replicates (95%")


OUTCOMES = {
    "borne out": (0.5, 5, True, "reproduced"),
    "denied": (1.0, 20, True, "not reproduced"),
    "too few": (0.5, 1, True, "not enough runs"),
    "its direction borne out": (0.8, 8, False, "reproduced"),
}


@pytest.mark.parametrize(
    ("share", "count", "published", "outcome"), OUTCOMES.values(), ids=OUTCOMES
)
def test_a_claim_is_held_against_its_numbers(share, count, published, outcome):
    draw = np.random.default_rng(3)
    networks = study(draw, count, gain=0.003, share=share)
    found = {
        f.claim.text: f
        for f in claims.check(networks, "lenet_300_100", "mnist", published)
    }
    text = "share of steps by which tickets at 21 % stop earlier than dense"
    assert found[text].outcome == outcome
    assert str(found[text]).startswith(outcome)


def test_at_other_settings_only_directions_are_claimed():
    networks = study(np.random.default_rng(0), 3)
    findings = claims.check(networks, "lenet_300_100", "mnist", False)
    assert findings
    assert all(f.high == math.inf for f in findings)
    assert not any("dense network's" in f.claim.text for f in findings)


def test_nothing_is_claimed_of_other_networks_or_densities():
    draw = np.random.default_rng(0)
    assert not claims.check(study(draw, 3), "lenet_300_100", "cifar10", True)
    networks = study(draw, 3, levels=2)
    findings = claims.check(networks, "lenet_300_100", "mnist", True)
    assert {f.claim.density for f in findings} == {None}

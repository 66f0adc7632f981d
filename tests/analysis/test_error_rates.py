"""Error rates of verdicts on simulated studies with known true effects.

Values are as coarse as a run's: accuracies on 5,000 examples, and an evaluation
every 100 steps.
"""

import math

import numpy as np
import pytest
from studies import Network

from tf_lottery.analysis import claims, power, smallest, verdict
from tf_lottery.analysis.claims.claim import TIMES_AS_FAST, percent
from tf_lottery.analysis.deciding import MARGIN, Deciding
from tf_lottery.analysis.estimate import ALPHA, quantile
from tf_lottery.analysis.looks import Looks

pytestmark = pytest.mark.slow

LEVELS, RUNS = 4, 1_500
DENSITIES = (1.0, 0.6, 0.36, 0.216, 0.13)  # level 3 is tested first
GAIN_SD, SPEED_SD = 0.0017, 0.35  # between trainings; of log steps

# True gain and share of the dense network's steps at levels 1 to 4, and which
# of them lose.
SCENARIOS = {
    "no faster, though better": ((0.006,) * 4, (1.0,) * 4, (1, 2, 3, 4)),
    "worse by the margin, though faster": (
        (-MARGIN,) * 4,
        (0.3,) * 4,
        (1, 2, 3, 4),
    ),
    "only the first wins": (
        (0.006, -MARGIN, 0.006, -MARGIN),
        (1.0, 0.3, 0.3, 0.3),
        (1, 2, 4),
    ),
    "the last of the sequence loses": (
        (-MARGIN, 0.006, 0.006, 0.006),
        (0.3,) * 4,
        (1,),
    ),
}
COUNTS = (3, 4, 5, 8, 10)


def simulate(draw, count, gains, shares):
    """A run with a true gain, and a true share of steps, of its tickets.

    Args:
        draw: A generator.
        count: Replicates.
        gains: Of each level.
        shares: Of each level: catch-up step over the dense early-stop step.
    """
    gain = draw.normal(gains, GAIN_SD, (count, len(gains)))
    speed = draw.normal(np.log(shares), SPEED_SD, (count, len(gains)))
    return networks_of(gain, speed)


def networks_of(gains, logarithms):
    """Networks of given gains and log ratios of steps, `[count, levels]`."""
    networks = []
    for replicate, (gain, log) in enumerate(
        zip(gains, logarithms, strict=True)
    ):
        for level in range(len(gain) + 1):
            better = gain[level - 1] if level else 0.0
            steps = 5_000 * math.exp(log[level - 1]) if level else 5_000
            steps = 100 * max(1, round(steps / 100))
            row = {
                "density": DENSITIES[level],
                "early_stop_step": steps,
                "catch_up_step": steps,
                "steps": 50_000,
                "validation_accuracy_at_early_stop": round(
                    5_000 * (0.975 + better)
                )
                / 5_000,
            }
            networks.append(Network(replicate, level, "ticket", row))
    return networks


def named(networks, looks=None):
    judgment = verdict.judge(networks, looks)
    return {v.level for v in judgment.verdicts if v.is_winning}


def at_most(rate, runs=RUNS):
    """The rate, plus three standard errors of counting it in simulated runs."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / runs)


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_losing_level_is_named_in_at_most_one_run_of_forty(name, count):
    gains, shares, losers = SCENARIOS[name]
    draw = np.random.default_rng((1, count))
    wrong = [
        bool(named(simulate(draw, count, gains, shares)) & {*losers})
        for _ in range(RUNS)
    ]
    assert np.mean(wrong) <= at_most(ALPHA)


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_looks_name_a_losing_level_no_more_often_than_one(name):
    gains, shares, losers = SCENARIOS[name]
    draw = np.random.default_rng(2)
    wrong = []
    for _ in range(RUNS):
        networks = simulate(draw, 8, gains, shares)
        first = [n for n in networks if n.replicate < 5]
        judgment = verdict.judge(first, "5:8")
        found = {v.level for v in judgment.verdicts if v.is_winning}
        if not judgment.is_settled:
            found = named(networks, "5:8")
        wrong.append(bool(found & {*losers}))
    assert np.mean(wrong) <= at_most(ALPHA)


@pytest.mark.parametrize("looks", ["5:6", "5:7", "5:8", "8:12", "10:16"])
def test_every_pair_of_looks_keeps_to_its_error_rate(looks):
    # The t tests alone, for every design that `Looks` admits at its edge.
    looks = Looks.parse(looks)
    draw = np.random.default_rng(3)
    runs = 40_000
    values = draw.normal(size=(runs, looks.last))
    rejects = np.zeros(runs, bool)
    for n in (looks.first, looks.last):
        part = values[:, :n]
        error = part.std(axis=1, ddof=1) / math.sqrt(n)
        rejects |= part.mean(axis=1) > quantile(n, looks.alpha) * error
    assert rejects.mean() <= at_most(ALPHA, runs)


def test_looking_again_without_a_plan_would_err_more_often():
    # Why a run keeps to its plan: 5 replicates, then 8, both at 2.5 %.
    gains, shares, _ = SCENARIOS["worse by the margin, though faster"]
    draw = np.random.default_rng(4)
    wrong = []
    for _ in range(RUNS):
        networks = simulate(draw, 8, gains, shares)
        first = [n for n in networks if n.replicate < 5]
        wrong.append(bool(named(first) or named(networks)))
    assert np.mean(wrong) > at_most(ALPHA) - 0.005


@pytest.mark.parametrize("count", COUNTS)
def test_a_winning_level_is_seldom_called_not_winning(count):
    # At the edge: as fast, and worse by no more than the margin.
    draw = np.random.default_rng((5, count))
    wrong = []
    for _ in range(RUNS):
        networks = simulate(draw, count, (-MARGIN,) * 4, (1.0,) * 4)
        outcomes = [v.outcome for v in verdict.judge(networks).verdicts]
        wrong.append("not winning" in outcomes)
    assert np.mean(wrong) <= at_most(2 * ALPHA)


@pytest.mark.parametrize("count", COUNTS)
def test_power_is_what_it_is_said_to_be(count):
    draw = np.random.default_rng((6, count))
    gain, share = 0.001, 0.55
    effects = power.Effects(-math.log(share), SPEED_SD, gain, GAIN_SD, MARGIN)
    found = [
        3 in named(simulate(draw, count, (gain,) * 4, (share,) * 4))
        for _ in range(RUNS)
    ]
    said = power.power(effects, count)
    # Rounding to examples and steps costs a little.
    assert np.mean(found) == pytest.approx(said, abs=0.04)


def test_so_many_replicates_as_it_says_suffice():
    effects = power.Effects(0.5, 0.35, 0.001, 0.0017, MARGIN)
    enough = power.replicates(effects, 0.9)
    assert power.power(effects, enough) >= 0.9
    assert power.power(effects, enough - 1) < 0.9


@pytest.mark.parametrize(
    "effects",
    [
        power.Effects(-0.1, 0.35, 0.001, 0.0017, MARGIN),
        power.Effects(0.5, 0.35, -MARGIN, 0.0017, MARGIN),
        power.Effects(1e-4, 0.35, 0.001, 0.0017, MARGIN),
    ],
)
def test_no_number_shows_what_is_not_there(effects):
    assert power.replicates(effects) is None


# --- the smallest network, on new examples


@pytest.mark.parametrize("examples", [20, 200, 5_000])
def test_a_level_that_loses_too_much_is_chosen_in_one_case_of_forty(examples):
    draw = np.random.default_rng((7, examples))
    max_drop, runs = 0.01, 2_000
    wrong = []
    for _ in range(runs):
        # Right, lost, won; the truth is at the edge.
        kinds = draw.choice(
            3, examples, p=[0.94, 0.03 + max_drop / 2, 0.03 - max_drop / 2]
        )
        dense, one = kinds != 2, kinds != 1
        _, most, _ = smallest.of_decisions(one, dense, max_drop, 0.975)
        wrong.append(most < max_drop)
    assert np.mean(wrong) <= at_most(ALPHA, runs)


@pytest.mark.parametrize("examples", [30, 1_000])
def test_the_same_holds_for_losses(examples):
    draw = np.random.default_rng((8, examples))
    metric = Deciding("loss", -1, 0.0, is_fraction=False)
    runs, max_drop, wrong = 2_000, 0.1, []
    for _ in range(runs):
        dense = draw.gamma(4, 0.25, examples)
        one = dense + draw.normal(max_drop, 0.3, examples)
        _, most, _ = smallest.of_means(one, dense, metric, 0.975)
        wrong.append(most < max_drop)
    assert np.mean(wrong) <= at_most(ALPHA, runs)


# --- claims


def findings(draw, count, truth, low, high, runs=1_000):
    """The outcomes of simulated runs for a number whose true value is known."""
    stated = claims.Claim(
        "", "", None, "dense", "dense", percent("x"), low, high, None
    )
    for values in draw.normal(truth, 0.2, (runs, count)):
        networks = [
            Network(r, 0, "ticket", {"x": value / 100})
            for r, value in enumerate(values)
        ]
        (finding,) = claims.check_claims(networks, [stated], True)
        yield finding


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_claim_at_its_edge_is_seldom_settled_wrongly(count):
    draw = np.random.default_rng((9, count))
    # The truth is the edge: agreeing and not agreeing are equally wrong.
    said = [f.outcome for f in findings(draw, count, 0.5, 0.5, math.inf)]
    for outcome in ("shown", "contradicted"):
        assert said.count(outcome) / len(said) <= at_most(0.025, len(said))
    assert (said.count("shown") > 0) == (count >= 3)


@pytest.mark.parametrize("count", [3, 5, 10])
def test_a_true_number_agrees_in_nineteen_of_twenty_runs(count):
    draw = np.random.default_rng((10, count))
    agrees = []
    for _ in range(2_000):
        # The paper's number is a mean of five trials of the same truth.
        paper = float(draw.normal(0.5, 0.2, 5).mean())
        (found,) = findings(draw, count, 0.5, paper, paper, 1)
        agrees.append(found.number == "agrees")
    assert np.mean(agrees) == pytest.approx(0.95, abs=0.02)


def test_a_false_number_differs_with_enough_runs_and_never_with_two():
    draw = np.random.default_rng(11)
    said = [f.number for f in findings(draw, 12, 1.5, 0.4, 0.6)]
    assert said.count("differs") > 0.95 * len(said)
    for few in (1, 2):
        found = {f.outcome for f in findings(draw, few, 0.5, 0.0, 1.0)}
        assert found == {"too few replicates"}


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
    (finding,) = claims.check_claims(networks, [stated], True)
    assert np.mean(other / one) > 1.3
    assert finding.mean == pytest.approx(1.0, abs=0.05)

"""The verdict on real trainings: ten runs of the first command's preset.

`quick_lenet.npz` has results of `tf-lottery run lenet_mnist --replicates 5
--seed S` for S = 100 to 109: the validation loss at every evaluation, float32
`[run, replicate, network, 80]`, and the validation accuracy at early stop.
Networks are the dense network, the tickets of levels 1 to 4, and their
reinitialized controls.
"""

import itertools
import pathlib

import numpy as np
import pytest
from studies import Network

from tf_lottery.analysis import verdict

pytestmark = pytest.mark.slow

DENSITIES = (1.0, 0.6008, 0.3611, 0.2171, 0.1307)
STEPS = [100 * (i + 1) for i in range(80)]
REPLICATES = 50


@pytest.fixture(scope="module")
def runs():
    with np.load(pathlib.Path(__file__).parent / "quick_lenet.npz") as file:
        loss, accuracy = file["loss"], file["accuracy"]
    return loss.reshape(REPLICATES, 9, 80), accuracy.reshape(REPLICATES, 9)


def network(runs, source, which, replicate, level):
    """Network `which` of a real replicate, with other indices."""
    loss, accuracy = (part[source, which] for part in runs)
    row = {
        "density": DENSITIES[level],
        "early_stop_step": STEPS[int(np.argmin(loss))],
        "steps": STEPS[-1],
        "validation_accuracy_at_early_stop": float(accuracy),
    }
    curve = {"step": STEPS, "validation_loss": loss.tolist()}
    return Network(replicate, level, "ticket", row, curve=curve)


def study(runs, sources, offset=1):
    """Replicates: dense networks with tickets, or with controls (offset 5)."""
    return [
        network(runs, source, level and offset + level - 1, replicate, level)
        for replicate, source in enumerate(sources)
        for level in range(5)
    ]


def test_the_runs_tickets_win(runs):
    named = [
        verdict.judge(study(runs, range(i, i + 5))).winner is not None
        for i in range(0, REPLICATES, 5)
    ]
    assert sum(named) >= 9


def test_two_looks_name_a_ticket_in_almost_all_runs(runs):
    draw = np.random.default_rng(0)
    named, taken = [], []
    for _ in range(200):
        sources = draw.choice(REPLICATES, 8, replace=False)
        judgment = verdict.judge(study(runs, sources[:5]), "5:8")
        taken.append(5)
        if not judgment.is_settled:
            judgment = verdict.judge(study(runs, sources), "5:8")
            taken[-1] = 8
        named.append(judgment.winner is not None)
    assert np.mean(named) >= 0.98
    assert np.mean(taken) < 6


def test_controls_judged_as_tickets_never_win(runs):
    draw = np.random.default_rng(1)
    for _ in range(200):
        sources = draw.choice(REPLICATES, 5, replace=False)
        judgment = verdict.judge(study(runs, sources, offset=5))
        assert judgment.winner is None


def test_dense_networks_do_not_beat_each_other(runs):
    draw = np.random.default_rng(2)
    wrong = []
    for _ in range(500):
        sources = draw.choice(REPLICATES, 10, replace=False)
        pairs = enumerate(zip(sources[:5], sources[5:], strict=True))
        networks = list(
            itertools.chain.from_iterable(
                (network(runs, a, 0, r, 0), network(runs, b, 0, r, 1))
                for r, (a, b) in pairs
            )
        )
        wrong.append(verdict.judge(networks).winner is not None)
    assert np.mean(wrong) <= 0.025


def test_curves_that_are_cut_short_are_trained_too_short_or_still_right(runs):
    # At 2,000 of 8,000 steps most dense networks still learn.
    loss, accuracy = runs
    steps = STEPS[:20]

    def cut(source, which, replicate, level):
        part = loss[source, which, :20]
        row = {
            "density": DENSITIES[level],
            "early_stop_step": steps[int(np.argmin(part))],
            "steps": steps[-1],
            "validation_accuracy_at_early_stop": float(accuracy[source, which]),
        }
        curve = {"step": steps, "validation_loss": part.tolist()}
        return Network(replicate, level, "ticket", row, curve=curve)

    draw = np.random.default_rng(3)
    for _ in range(100):
        sources = draw.choice(REPLICATES, 5, replace=False)
        # Controls in the place of tickets: the truth is that none wins.
        networks = [
            cut(source, level and 4 + level, replicate, level)
            for replicate, source in enumerate(sources)
            for level in range(5)
        ]
        judgment = verdict.judge(networks)
        assert judgment.winner is None

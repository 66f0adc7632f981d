"""The catch-up step of a network, computed by hand."""

import math

import numpy as np
import pytest
import studies

from tf_lottery.analysis import catch_up
from tf_lottery.training.history import Log
from tf_lottery.training.objective import EvalResult


def network(losses, steps=None):
    steps = steps or range(100, 100 * len(losses) + 1, 100)
    curve = {"step": list(steps), "validation_loss": list(losses)}
    return studies.Network(0, 0, "ticket", {}, curve=curve)


DENSE = network([0.9, 0.5, 0.4, 0.6, 0.4])


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([0.8, 0.3, 0.2], 200),
        ([0.8, 0.4, 0.2], 200),  # as low is low enough
        ([0.4, 0.9, 0.9], 100),
        ([0.8, 0.41, 0.41], None),
        ([math.nan, math.nan, 0.1], 300),
        ([math.nan, math.nan], None),
        ([math.inf, 0.3], 200),
    ],
)
def test_the_first_evaluation_as_low_as_the_dense_networks_lowest(losses, step):
    found = catch_up.catch_up_step(network(losses), DENSE)
    assert found == step
    assert found is None or isinstance(found, float)


@pytest.mark.parametrize("seed", range(5))
def test_a_dense_networks_own_is_its_early_stop_step(seed):
    losses = np.random.default_rng(seed).integers(1, 6, 20) / 10
    log = Log()
    for number, loss in enumerate(losses, 1):
        log.add(50 * number, {}, {"validation": EvalResult({"loss": loss})})
    stop = log.summary({"validation": EvalResult({})}, {})["early_stop_step"]
    dense = network(losses, range(50, 1_001, 50))
    assert catch_up.catch_up_step(dense, dense) == stop


def test_a_network_as_good_before_training_counts_after_its_first_steps():
    # Even if training made it worse: it had caught up.
    early = network([0.3, 0.9, 0.9], [0, 50, 100])
    assert catch_up.catch_up_step(early, DENSE) == 50
    late = network([0.9, 0.9, 0.3], [0, 50, 100])
    assert catch_up.catch_up_step(late, DENSE) == 100


def test_nothing_catches_up_with_a_dense_network_that_diverged():
    dense = network([math.inf, math.nan])
    assert catch_up.catch_up_step(network([0.1, math.inf]), dense) is None


def test_a_dense_networks_lowest_is_among_its_finite_losses():
    dense = network([math.nan, 0.5, math.inf])
    assert catch_up.catch_up_step(network([0.6, 0.5]), dense) == 200


@pytest.mark.parametrize("lacking", [{}, {"step": [1], "train_loss": [2.0]}])
def test_without_validation_data_nothing_is_said(lacking):
    bare = studies.Network(0, 0, "ticket", {}, curve=lacking)
    assert not catch_up.is_measured(bare)
    assert catch_up.is_measured(DENSE)
    for pair in ((bare, DENSE), (DENSE, bare)):
        with pytest.raises(ValueError, match="Train with validation data"):
            catch_up.catch_up_step(*pair)

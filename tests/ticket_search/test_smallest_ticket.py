"""The practitioner's question: the smallest ticket that loses little."""

import keras
import numpy as np
import pytest
import toy

from tf_lottery.analysis import smallest
from tf_lottery.analysis.deciding import Deciding
from tf_lottery.lottery import search as search_
from tf_lottery.ticket_search import TicketSearch

ENTROPY = keras.metrics.SparseCategoricalCrossentropy(
    from_logits=True, name="entropy"
)


def searched(metrics=("accuracy",), fit=None, **settings):
    """A search on the toy problem, with 2,000 validation examples."""
    search = TicketSearch(toy.mlp(), **{"levels": 3, "rate": 0.3, **settings})
    search.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=list(metrics),
    )
    arguments = {
        "batch_size": 32,
        "length": "200it",
        "evaluate_every": 50,
        "validation_data": toy.digits(2_000, seed=2),
        **(fit or {}),
    }
    search.fit(*toy.digits(), verbose=0, **arguments)
    return search


@pytest.fixture(scope="module")
def plain():
    return searched()


# --- the test


def drops(*values, most=0.004):
    return [
        smallest.Drop(i + 1, 0.7 ** (i + 1), v, v + most, most / 2, 1_000)
        for i, v in enumerate(values)
    ]


def test_levels_are_tested_from_dense_to_sparse_until_one_fails():
    chosen = smallest.choose(drops(0.0, -0.01, 0.02, -0.05), 0.005)
    assert chosen.level == 2
    assert smallest.choose(drops(0.02, -0.05), 0.005) is None


def test_a_few_examples_that_agree_show_nothing():
    right = np.ones(10, bool)
    drop, most, _ = smallest.of_decisions(right, right, 0.005, 0.975)
    assert drop == 0
    assert most > 0.2
    right = np.ones(5_000, bool)
    assert smallest.of_decisions(right, right, 0.005, 0.975)[1] < 0.001


def test_one_example_shows_nothing():
    metric = Deciding("loss", -1, 0.0, is_fraction=False)
    one, dense = np.array([0.1]), np.array([0.2])
    assert smallest.of_means(one, dense, metric, 0.975)[1] == np.inf


def test_the_interval_of_proportions_is_tangos():
    # Tango 1998, Table III: 43 pairs, 1 and 0 discordant; Newcombe 1998 has
    # the same score interval, -0.0128 to 0.1124 for (b, c, n) = (2, 0, 54)...
    one = np.array([True] * 54)
    dense = one.copy()
    one[:2] = False
    drop, most, _ = smallest.of_decisions(one, dense, 0.05, 0.975)
    assert drop == pytest.approx(2 / 54)
    assert most == pytest.approx(0.1254, abs=5e-4)


def test_confidence_of_one_half_goes_by_the_estimate():
    one, dense = np.arange(100) > 2, np.arange(100) > 0
    drop, most, _ = smallest.of_decisions(one, dense, 0.05, 0.5)
    assert (drop, most) == pytest.approx((0.02, 0.02))


def test_the_stated_number_of_examples_would_settle():
    (drop,) = drops(0.001, most=0.0196)
    needed = smallest.examples_needed(drop, 0.005, 0.975)
    error = drop.error * (drop.examples / needed) ** 0.5
    assert 0.001 + 1.96 * error == pytest.approx(0.005, rel=1e-3)


# --- a search


@pytest.mark.slow
def test_the_smallest_ticket_keeps_the_accuracy(plain):
    ticket = plain.smallest_ticket(max_drop=0.05)
    assert ticket.level >= 1
    one, dense = (
        t.metrics["validation_accuracy_at_early_stop"]
        for t in (ticket, plain.tickets[0])
    )
    assert one > dense - 0.05
    with pytest.raises(ValueError, match="No ticket is shown to keep"):
        plain.smallest_ticket(max_drop=1e-4)


def test_a_refusal_ranks_the_levels_and_names_a_remedy(plain):
    with pytest.raises(ValueError, match="accuracy within") as caught:
        plain.smallest_ticket(max_drop=1e-4)
    text = str(caught.value)
    for level in (1, 2, 3):
        assert f"level {level} (" in text
    assert "worst case" in text
    assert "\n" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "metric",
    [
        "loss",
        "mae",
        keras.metrics.F1Score(name="f1", average="macro"),
        keras.metrics.AUC(name="auc", from_logits=True, multi_label=True),
        keras.metrics.OneHotMeanIoU(3),
    ],
)
def test_any_metric_of_keras_decides(metric):
    x, y = toy.digits()
    held_x, held_y = toy.digits(600, seed=2)
    search = TicketSearch(toy.mlp(), levels=2, rate=0.3)
    search.compile(
        "adam",
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="right")],
    )
    one_hot = np.eye(3, dtype="float32")
    search.fit(
        x,
        one_hot[y],
        length="100it",
        evaluate_every=20,
        validation_data=(held_x, one_hot[held_y]),
        verbose=0,
    )
    assert search.smallest_ticket(max_drop=0.9, metric=metric).level == 2
    with pytest.raises(ValueError, match="Metric 'each' has 3 values"):
        search.smallest_ticket(metric=keras.metrics.F1Score(name="each"))


@pytest.mark.slow
def test_a_metric_is_that_of_keras_evaluate():
    search = searched(metrics=["accuracy", ENTROPY], levels=1)
    from tf_lottery.training.resampling import ResampledMetric

    recipe, split = search._validation
    for name in ("loss", "entropy", "accuracy"):
        model = search.tickets[0].model()
        resampled = ResampledMetric(model, recipe, split, name)
        value = resampled.value(resampled.outputs(model))
        assert value == pytest.approx(
            search.tickets[0].metrics[f"validation_{name}_at_early_stop"],
            rel=1e-5,
        )


@pytest.mark.slow
def test_the_bootstrap_error_of_a_mean_is_its_standard_error():
    search = searched(metrics=["accuracy", ENTROPY], levels=1)
    from tf_lottery.ticket_search import metric_drops

    (drop,), _ = metric_drops.drops(
        search.tickets, *search._validation, "accuracy", 0.01, 0.975
    )
    one, dense = (
        r.per_example["validation"].astype(float) for r in search.records[1::-1]
    )
    assert drop.drop == pytest.approx((dense - one).mean(), abs=1e-6)
    exact = (dense - one).std() / len(one) ** 0.5
    assert drop.error == pytest.approx(exact, rel=0.15)


# --- targets


@pytest.mark.slow
def test_a_density_ends_the_search_at_the_first_level_below():
    search = searched(levels=None, density=0.4, rate=0.3)
    densities = [t.density for t in search.tickets]
    assert densities[-1] <= 0.4 < densities[-2]


@pytest.mark.slow
def test_a_drop_ends_the_search_at_the_first_level_that_fails():
    search = searched(levels=None, max_drop=0.03, rate=0.6)
    assert 1 < len(search.tickets) < 12
    ticket = search.smallest_ticket()
    assert ticket.level == search.tickets[-1].level - 1


def test_all_levels_that_leave_a_weight_are_counted():
    how = search_.Pruning(0, {"k": 0.5})
    from tf_lottery.core.masks import Masks

    masks = Masks({"k": np.ones((4, 4), bool)})
    assert search_.with_max_levels(masks, how).levels == 4
    assert search_.density_at(masks, how, 4) == 1 / 16
    assert search_.until_density(masks, how, 0.1).levels == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"density": 1.5}, r"`density` must be in \(0, 1\); got 1.5"),
        ({"density": 0.1, "max_drop": 0.1}, "Give one of density, max_drop"),
        ({"density": 0.1, "levels": 2}, "Give one of levels, density"),
        ({"max_drop": 0.1, "replicates": 3}, "`max_drop` ends a search by"),
        ({"density": 1e-6}, "`density` 1e-06 is out of reach"),
        ({"density": 0.1, "rates": {"*": 0.0}}, "is out of reach"),
    ],
)
def test_targets_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TicketSearch(toy.mlp(), **settings)


def test_a_target_needs_validation_data_before_anything_trains():
    with pytest.raises(ValueError, match="measured on validation data"):
        searched(levels=None, max_drop=0.1, fit={"validation_data": None})
    with pytest.raises(ValueError, match="`max_drop` must be"):
        searched(levels=None, max_drop=1.5)


class Odd(keras.metrics.Metric):
    """A metric without a known direction."""

    def __init__(self):
        super().__init__(name="odd")

    def update_state(self, *_, **__):
        pass

    def result(self):
        return 0.0


class Undefined(keras.metrics.SparseCategoricalAccuracy):
    def result(self):
        return super().result() * np.nan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_drop": -0.1}, "`max_drop` must be a difference of accuracy"),
        ({"max_drop": 1.0}, "`max_drop` must be a difference of accuracy"),
        ({"max_drop": np.nan}, "`max_drop` must be"),
        ({"min_confidence": 0.4}, "`min_confidence` must be in"),
        ({"metric": "speed"}, "There is no metric 'speed': give one of loss, "),
        ({"metric": Odd()}, "more or less of metric 'odd' is better"),
        ({"metric": Undefined(name="never")}, "Metric 'never' is nan"),
    ],
)
def test_questions_that_cannot_be_answered_are_refused(
    plain, arguments, message
):
    with pytest.raises(ValueError, match=message):
        plain.smallest_ticket(**arguments)


def test_a_search_without_validation_data_has_no_smallest_ticket():
    search = searched(fit={"validation_data": None}, levels=1)
    with pytest.raises(ValueError, match="measured on validation data"):
        search.smallest_ticket()
    unfitted = TicketSearch(toy.mlp())
    with pytest.raises(ValueError, match="call fit first"):
        unfitted.smallest_ticket()

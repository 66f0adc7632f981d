"""Arguments of `compile` and `fit`: honoured as in Keras, or refused."""

import re

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import toy

from tf_lottery import data
from tf_lottery.analysis import conclusion, table
from tf_lottery.ticket_search import TicketSearch
from tf_lottery.ticket_search.fit_arguments import (
    default_length,
    default_metrics,
)


def search(**compiled):
    made = TicketSearch(toy.mlp(), levels=1, rate=0.4)
    made.compile(**{"optimizer": "sgd", "loss": toy.loss(), **compiled})
    return made


def regression(levels=2, **settings):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(9, "relu"),
            keras.layers.Dense(1),
        ]
    )
    made = TicketSearch(model, levels=levels, **settings)
    made.compile(keras.optimizers.Adam(0.01), "mse")
    return made


def plane(examples=300):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(examples, 6)).astype("float32")
    return x, x @ np.arange(6, dtype="float32") / 5


def endless():
    while True:
        yield np.zeros((4, 6, 6, 1)), np.zeros(4)


X, Y = toy.digits(40)
STREAM = tf.data.Dataset.from_tensor_slices((X, Y)).batch(10)
REFUSED = {
    "both lengths": ({"epochs": 2, "length": "3it"}, "`epochs` or `length`"),
    "no epoch": ({"epochs": 0}, "`epochs` must be a whole number"),
    "half an epoch": ({"epochs": 1.5}, "`epochs` must be a whole number"),
    "no batch": ({"batch_size": -1}, "`batch_size` must be a whole number"),
    "later epoch": ({"initial_epoch": 2}, "same `run_dir` again"),
    "rare validation": ({"validation_freq": 2}, "`evaluate_every` takes steps"),
    "steps of arrays": ({"steps_per_epoch": 3}, "length='3it'"),
    "steps of held-out arrays": (
        {"validation_data": (X, Y), "validation_steps": 2},
        "`validation_steps` needs a stream",
    ),
    "weights twice": (
        {"class_weight": {0: 2.0}, "sample_weight": np.ones(40)},
        "`class_weight` or `sample_weight`, not both",
    ),
    "classes in a list": ({"class_weight": [1, 2, 3]}, "must map classes"),
    "weights of others": ({"sample_weight": np.ones(39)}, "39 in sample_w"),
    "validation twice": (
        {"validation_data": (X, Y), "validation_split": 0.2},
        "`validation_data` or `validation_split`, not both",
    ),
    "all held out": ({"validation_split": 0.99}, "leaves 0 of 40"),
    "split out of range": ({"validation_split": 1.5}, r"must be in \[0, 1\)"),
    "targets beside a stream": ({"x": STREAM}, "leave out `y`"),
    "a stream split": (
        {"x": STREAM, "y": None, "validation_split": 0.2},
        "`validation_split` needs arrays",
    ),
    "an endless stream": (
        {"x": STREAM.repeat(), "y": None},
        "never ends: .*`steps_per_epoch=`",
    ),
    "held-out inputs alone": ({"validation_data": X}, r"must be \(x, y\)"),
    "held-out data nested otherwise": (
        {"validation_data": ({"a": X}, Y)},
        "is nested as",
    ),
    "inputs nested otherwise": ({"x": {"a": X, "b": X}}, "do not fit model"),
    "objects": ({"x": [object()] * 40}, "must hold numbers or text"),
    "ragged lists": ({"x": [[1, 2], [3]] * 20}, "Pad examples"),
    "labels as text": ({"y": ["a"] * 40}, "must be numbers; got text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_in_a_line(name, tmp_path):
    given, said = REFUSED[name]
    made = search()
    given = {"x": X, "y": Y, "epochs": 1, "verbose": 0, **given}
    if "length" in given and "epochs" not in REFUSED[name][0]:
        given.pop("epochs")
    with pytest.raises(ValueError, match=said) as refused:
        made.fit(**given, run_dir=tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_running_eagerly_is_refused():
    with pytest.raises(ValueError, match="call model.fit with it"):
        search(run_eagerly=True)


def test_a_loss_is_needed():
    with pytest.raises(ValueError, match="A loss is needed"):
        search(loss=None).fit(X, Y, epochs=1, verbose=0)


def test_a_loss_that_does_not_fit_is_refused_in_a_line():
    made = search(loss={"a": "mse", "b": "mse"})
    with pytest.raises(ValueError, match="do not fit the model's outputs"):
        made.fit(X, Y, epochs=1, verbose=0)


def test_metrics_come_from_the_loss():
    sparse = keras.losses.SparseCategoricalCrossentropy()
    for loss in (
        "binary_crossentropy",
        "crossentropy",
        sparse,
        keras.losses.binary_focal_crossentropy,
    ):
        assert default_metrics(loss) == ["accuracy"]
    for loss in ("mse", keras.losses.Huber(), None, ["mse", sparse], toy.loss):
        assert default_metrics(loss) == []
    (metric,) = default_metrics(keras.losses.BinaryCrossentropy(True))
    assert metric.threshold == 0.0
    assert metric.name == "accuracy"


def test_a_length_of_its_own_comes_from_the_data():
    epochs = {steps: default_length(steps).epochs for steps in (1, 60, 9999)}
    assert epochs == {1: 100, 60: 50, 9999: 10}


def test_batches_are_those_of_keras_when_nothing_is_said():
    made = search()
    made.fit(X, Y, epochs=2, verbose=0)
    assert made.tickets[0].metrics["steps"] == 2 * 2  # 32 and 8 examples


def test_an_evaluation_an_epoch_at_least():
    made = search()
    made.fit(X, Y, batch_size=10, length="12it", verbose=0)
    assert made.records[0].curve["step"] == [4, 8, 12]


def test_the_cost_is_said_before_anything_trains(capsys):
    search().fit(X, Y, batch_size=10, epochs=3)
    said = capsys.readouterr().out
    assert "Trains 2 networks: levels 0 to 1, each 12 steps" in said
    assert "24 steps in all" in said


def test_verbose_0_says_nothing(capfd):
    search().fit(X, Y, epochs=1, verbose=0)
    out, _ = capfd.readouterr()
    assert not out


def test_a_regression_is_judged_by_its_loss(tmp_path):
    made = regression()
    x, y = plane()
    history = made.fit(x, y, validation_split=0.3, epochs=30, verbose=0).history
    assert not [name for name in history if "accuracy" in name]
    assert made.tickets[0].metrics["deciding_metric"] == "loss"
    losses = [r.per_example["validation"] for r in made.records]
    for values, loss in zip(losses, history["val_loss"], strict=True):
        assert len(values) == 90
        assert values.mean() == pytest.approx(loss, rel=1e-4)


def test_a_regression_that_got_worse_does_not_win():
    made = regression(levels=1, rate=0.9)
    x, y = plane()
    made.fit(x, y, validation_split=0.3, epochs=60, verbose=0)
    dense, ticket = made.tickets
    name = "validation_loss_at_early_stop"
    assert ticket.metrics[name] > 1.5 * dense.metrics[name]
    with pytest.raises(ValueError, match="keep validation loss within"):
        made.smallest_ticket(max_drop=0.1)
    (found,) = made.judgment().comparisons
    assert found.gain.mean < -0.1


def test_a_regression_is_told_by_its_loss(capsys):
    made = regression(levels=1)
    x, y = plane()
    made.fit(x, y, validation_split=0.3, epochs=5)
    losses = [t.metrics["validation_loss_at_early_stop"] for t in made.tickets]
    progress = capsys.readouterr().err
    rows = table.text(made.records).splitlines()
    assert rows[0].split()[-1] == "loss"
    for row, loss in zip(rows[1:-1], losses, strict=True):
        assert row.split()[-1] == f"{loss:.4g}"
        assert f"validation loss {loss:.4g}" in progress
    judgment = made.judgment()
    text = " ".join(conclusion.sentences(judgment, made.records))
    assert re.search(r"[+-]\d\S* of loss on validation data \(95 % int", text)
    assert "Decided by validation loss at early stop (lower is better" in text


def test_segmentation_is_judged_pixel_by_pixel():
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Conv2D(3, 3, padding="same")]
    )
    made = TicketSearch(model, levels=0)
    made.compile("sgd", toy.loss())
    x, _ = toy.digits(60)
    y = np.random.default_rng(0).integers(3, size=(60, 6, 6))
    made.fit(x, y, validation_split=0.5, epochs=1, verbose=0)
    each = made.records[0].per_example["validation"]
    outputs = made.tickets[0].model().predict(x[30:], verbose=0)
    right = (outputs.argmax(axis=-1) == y[30:]).mean(axis=(1, 2))
    assert each == pytest.approx(right)


def test_the_judged_network_is_the_one_that_is_given():
    made = search(optimizer=keras.optimizers.Adam(0.05))
    x, y = toy.digits(400)
    given = {"validation_data": toy.digits(200, seed=2), "test_data": (x, y)}
    made.fit(*toy.digits(60), epochs=40, batch_size=20, verbose=0, **given)
    ticket = made.tickets[0]
    assert ticket.metrics["early_stop_step"] < ticket.metrics["steps"]
    for at, when in (("early_stop", "_at_early_stop"), ("end", "")):
        outputs = ticket.model(at=at).predict(x, verbose=0)
        accuracy = (outputs.argmax(axis=-1) == y).mean()
        expected = ticket.metrics[f"test_accuracy{when}"]
        assert accuracy == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="Unknown value of `at` 'best'"):
        ticket.model(at="best")


@pytest.mark.parametrize(
    "given",
    [
        pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}),
        [[1, 0.5], [2, 1.5]],
        tf.constant([[1, 0.5], [2, 1.5]]),
        np.array([[1, 0.5], [2, 1.5]], "float64"),
        np.array([[1, 0.5], [2, 1.5]], object),
    ],
)
def test_arrays_come_in_many_forms(given):
    split = data.from_arrays(given, [0, 1]).train
    assert split.x.dtype == np.float32
    assert split.x.tolist() == [[1, 0.5], [2, 1.5]]
    assert split.y.dtype == np.int32


def test_a_series_is_a_column_as_in_keras():
    split = data.from_arrays(np.ones((2, 1)), pd.Series([0.5, 1.0])).train
    assert split.y.tolist() == [[0.5], [1.0]]


def test_class_weights_are_weights_of_examples():
    weights = {0: 3.0, 2: 0.5}
    vector = data.from_arrays(np.ones(4), [0, 1, 2, 0], class_weight=weights)
    one_hot = data.from_arrays(
        np.ones(4), np.eye(3)[[0, 1, 2, 0]], class_weight=weights
    )
    for given in (vector, one_hot):
        assert given.train.sample_weight.tolist() == [3.0, 1.0, 0.5, 3.0]


def test_generators_give_an_epoch():
    given = data.from_arrays(endless(), steps_per_epoch=3)
    assert len(given.train) == 12
    assert given.batch_size == 4

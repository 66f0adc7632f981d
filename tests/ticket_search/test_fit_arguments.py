"""Arguments of `compile` and `fit`: honoured as in Keras, or refused."""

import dataclasses
import inspect
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
from tf_lottery.ticket_search.settings import SearchSettings


def build_search(**compiled):
    search = TicketSearch(toy.mlp(), levels=1, rate=0.4)
    search.compile(**{"optimizer": "sgd", "loss": toy.loss(), **compiled})
    return search


def regression(levels=2, **settings):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(9, "relu"),
            keras.layers.Dense(1),
        ]
    )
    search = TicketSearch(model, levels=levels, **settings)
    search.compile(keras.optimizers.Adam(0.01), "mse")
    return search


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
def test_unsupported_arguments_are_refused_in_one_line(name, tmp_path):
    changed, message = REFUSED[name]
    search = build_search()
    arguments = {"x": X, "y": Y, "epochs": 1, "verbose": 0, **changed}
    if "length" in changed and "epochs" not in changed:
        arguments.pop("epochs")
    with pytest.raises(ValueError, match=message) as refused:
        search.fit(**arguments, run_dir=tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_running_eagerly_is_refused():
    with pytest.raises(ValueError, match="call model.fit with it"):
        build_search(run_eagerly=True)


def test_settings_are_the_arguments_of_a_search():
    arguments = inspect.signature(TicketSearch).parameters
    assert {f.name: f.default for f in dataclasses.fields(SearchSettings)} == {
        name: parameter.default
        for name, parameter in arguments.items()
        if name not in ("model", "strategy")
    }


def test_a_loss_is_needed():
    with pytest.raises(ValueError, match="A loss is needed"):
        build_search(loss=None).fit(X, Y, epochs=1, verbose=0)


def test_a_loss_that_does_not_fit_is_refused_in_one_line():
    search = build_search(loss={"a": "mse", "b": "mse"})
    with pytest.raises(ValueError, match="do not fit the model's outputs"):
        search.fit(X, Y, epochs=1, verbose=0)


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


def test_the_default_length_depends_on_the_data():
    epochs = {steps: default_length(steps).epochs for steps in (1, 60, 9999)}
    assert epochs == {1: 100, 60: 50, 9999: 10}


def test_the_default_batch_size_is_that_of_keras():
    search = build_search()
    search.fit(X, Y, epochs=2, verbose=0)
    assert search.tickets[0].metrics["steps"] == 2 * 2  # 32 and 8 examples


def test_networks_are_evaluated_at_least_once_an_epoch():
    search = build_search()
    search.fit(X, Y, batch_size=10, length="12it", verbose=0)
    assert search.records[0].curve["step"] == [4, 8, 12]


def test_the_cost_is_printed_before_anything_trains(capsys):
    build_search().fit(X, Y, batch_size=10, epochs=3)
    output = capsys.readouterr().out
    assert "Trains 2 networks: levels 0 to 1, each 12 steps" in output
    assert "24 steps in all" in output


def test_verbose_0_prints_nothing(capfd):
    build_search().fit(X, Y, epochs=1, verbose=0)
    out, _ = capfd.readouterr()
    assert not out


def test_a_regression_is_judged_by_its_loss(tmp_path):
    search = regression()
    x, y = plane()
    history = search.fit(
        x, y, validation_split=0.3, epochs=30, verbose=0
    ).history
    assert not [name for name in history if "accuracy" in name]
    assert search.tickets[0].metrics["deciding_metric"] == "loss"
    losses = [r.per_example["validation"] for r in search.records]
    for values, loss in zip(losses, history["val_loss"], strict=True):
        assert len(values) == 90
        assert values.mean() == pytest.approx(loss, rel=1e-4)


def test_a_regression_that_got_worse_does_not_win():
    search = regression(levels=1, rate=0.9)
    x, y = plane()
    search.fit(x, y, validation_split=0.3, epochs=60, verbose=0)
    dense, ticket = search.tickets
    name = "validation_loss_at_early_stop"
    assert ticket.metrics[name] > 1.5 * dense.metrics[name]
    with pytest.raises(ValueError, match="keep validation loss within"):
        search.smallest_ticket(max_drop=0.1)
    (comparison,) = search.judgment().comparisons
    assert comparison.gain.mean < -0.1


def test_a_regression_is_reported_by_its_loss(capsys):
    search = regression(levels=1)
    x, y = plane()
    search.fit(x, y, validation_split=0.3, epochs=5)
    losses = [
        t.metrics["validation_loss_at_early_stop"] for t in search.tickets
    ]
    progress = capsys.readouterr().err
    rows = table.text(search.records).splitlines()
    assert rows[0].split()[-1] == "loss"
    for row, loss in zip(rows[1:-1], losses, strict=True):
        assert row.split()[-1] == f"{loss:.4g}"
        assert f"validation loss {loss:.4g}" in progress
    judgment = search.judgment()
    text = " ".join(conclusion.sentences(judgment, search.records))
    assert re.search(r"[+-]\d\S* of loss on validation data \(95 % int", text)
    assert "Decided by validation loss at early stop (lower is better" in text


def test_segmentation_is_judged_pixel_by_pixel():
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Conv2D(3, 3, padding="same")]
    )
    search = TicketSearch(model, levels=0)
    search.compile("sgd", toy.loss())
    x, _ = toy.digits(60)
    y = np.random.default_rng(0).integers(3, size=(60, 6, 6))
    search.fit(x, y, validation_split=0.5, epochs=1, verbose=0)
    each = search.records[0].per_example["validation"]
    outputs = search.tickets[0].model().predict(x[30:], verbose=0)
    right = (outputs.argmax(axis=-1) == y[30:]).mean(axis=(1, 2))
    assert each == pytest.approx(right)


@pytest.mark.slow
def test_model_returns_the_judged_network():
    search = build_search(optimizer=keras.optimizers.Adam(0.05))
    x, y = toy.digits(400)
    splits = {"validation_data": toy.digits(200, seed=2), "test_data": (x, y)}
    search.fit(*toy.digits(60), epochs=40, batch_size=20, verbose=0, **splits)
    ticket = search.tickets[0]
    assert ticket.metrics["early_stop_step"] < ticket.metrics["steps"]
    for at, when in (("early_stop", "_at_early_stop"), ("end", "")):
        outputs = ticket.model(at=at).predict(x, verbose=0)
        accuracy = (outputs.argmax(axis=-1) == y).mean()
        expected = ticket.metrics[f"test_accuracy{when}"]
        assert accuracy == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="Unknown value of `at` 'best'"):
        ticket.model(at="best")


@pytest.mark.parametrize(
    "array",
    [
        pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}),
        [[1, 0.5], [2, 1.5]],
        tf.constant([[1, 0.5], [2, 1.5]]),
        np.array([[1, 0.5], [2, 1.5]], "float64"),
        np.array([[1, 0.5], [2, 1.5]], object),
    ],
)
def test_arrays_come_in_many_forms(array):
    split = data.from_arrays(array, [0, 1]).train
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
    for dataset in (vector, one_hot):
        assert dataset.train.sample_weight.tolist() == [3.0, 1.0, 0.5, 3.0]


def test_generators_give_an_epoch():
    dataset = data.from_arrays(endless(), steps_per_epoch=3)
    assert len(dataset.train) == 12
    assert dataset.batch_size == 4

"""Keras callbacks in a search: each one of Keras works or is refused."""

import importlib.util
import inspect
import json

import keras
import numpy as np
import pytest
import toy

from tf_lottery.ticket_search import TicketSearch
from tf_lottery.ticket_search import callbacks as bridge


def build_search(levels=1, **settings):
    search = TicketSearch(toy.mlp(), levels=levels, rate=0.4, **settings)
    search.compile(keras.optimizers.Adam(3e-3), toy.loss())
    return search


def fit(search, *callbacks, **settings):
    settings = {"validation_data": toy.digits(200, seed=2), **settings}
    return search.fit(
        *toy.digits(seed=1),
        batch_size=20,
        epochs=2,
        verbose=0,
        callbacks=list(callbacks),
        **settings,
    )


C = keras.callbacks
OBSERVED = {
    "CSVLogger": lambda folder: C.CSVLogger(folder / "log.csv"),
    "History": lambda _: C.History(),
    "LambdaCallback": lambda _: C.LambdaCallback(),
    "ModelCheckpoint": lambda folder: C.ModelCheckpoint(
        folder / "{epoch}.keras"
    ),
    "ProgbarLogger": lambda _: C.ProgbarLogger(),
    "TensorBoard": lambda folder: C.TensorBoard(folder / "board"),
    "TerminateOnNaN": lambda _: C.TerminateOnNaN(),
}
REFUSED = {
    "BackupAndRestore": lambda folder: C.BackupAndRestore(folder / "backup"),
    "EarlyStopping": lambda _: C.EarlyStopping(patience=3),
    "LearningRateScheduler": lambda _: C.LearningRateScheduler(
        lambda epoch, rate: rate / 2
    ),
    "ReduceLROnPlateau": lambda _: C.ReduceLROnPlateau(),
    "SwapEMAWeights": lambda _: C.SwapEMAWeights(),
}
NOT_TRIED = {
    "Callback": "the base class",
    "CallbackList": "a container, not a callback",
    "MonitorCallback": "the base class of those that monitor",
    "OrbaxCheckpoint": "needs orbax, which is not installed with tf_lottery",
    "RemoteMonitor": "sends to a server",
}


def test_every_callback_that_keras_ships_is_in_the_table():
    shipped = {
        name
        for name, value in vars(keras.callbacks).items()
        if inspect.isclass(value)
    }
    known = {**OBSERVED, **REFUSED, **NOT_TRIED}
    assert shipped <= known.keys()
    assert importlib.util.find_spec("orbax") is None


@pytest.mark.slow
@pytest.mark.parametrize("name", OBSERVED)
def test_observing_callbacks_change_nothing(name, tmp_path, capsys):
    watched, alone = build_search(), build_search()
    fit(watched, OBSERVED[name](tmp_path))
    fit(alone)
    for one, other in zip(watched.tickets, alone.tickets, strict=True):
        assert toy.same(one.trained, other.trained)


@pytest.mark.parametrize("name", REFUSED)
def test_callbacks_that_change_training_are_refused_before_it(name, tmp_path):
    search = build_search()
    with pytest.raises(ValueError, match=f"^{name} cannot work") as refused:
        fit(search, REFUSED[name](tmp_path), run_dir=tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not search.tickets
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_checkpoint_holds_the_network_of_its_level(tmp_path):
    search = build_search(levels=2)
    fit(search, C.ModelCheckpoint(tmp_path / "{epoch}.keras"))
    x, y = toy.digits(200, seed=2)
    for level, ticket in enumerate(search.tickets):
        # Keras counts epochs from 1 in file names.
        model = keras.models.load_model(tmp_path / f"{level + 1}.keras")
        judged = ticket.model().predict(x, verbose=0)
        np.testing.assert_array_equal(model.predict(x, verbose=0), judged)
        loss = ticket.metrics["validation_loss_at_early_stop"]
        measured, _ = model.evaluate(x, y, verbose=0)
        assert measured == pytest.approx(loss, rel=1e-5)


def test_a_checkpoint_of_the_best_level_compares_levels(tmp_path):
    search = build_search(levels=2)
    best = C.ModelCheckpoint(
        tmp_path / "best.keras", monitor="val_accuracy", save_best_only=True
    )
    history = fit(search, best).history
    x, y = toy.digits(200, seed=2)
    model = keras.models.load_model(tmp_path / "best.keras")
    right = (model.predict(x, verbose=0).argmax(axis=-1) == y).mean()
    assert right == pytest.approx(max(history["val_accuracy"]))


class Watching(C.Callback):
    """Predicts with the network whenever it is called."""

    def __init__(self):
        super().__init__()
        self.losses, self.logs = [], []

    def on_train_batch_end(self, batch, logs=None):
        x, y = toy.digits(200, seed=2)
        outputs = self.model(x, training=False)
        self.losses.append(float(toy.loss()(y, outputs)))
        self.logs.append(logs)


def test_callbacks_see_the_network_that_trains():
    watching = Watching()
    search = build_search()
    fit(search, watching)
    logged = [log["val_loss"] for log in watching.logs]
    assert len(logged) == 4  # two epochs of two levels
    assert watching.losses == pytest.approx(logged, rel=1e-5)
    assert len(set(watching.losses)) == 4
    names = {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(log.keys() == names for log in watching.logs)


def test_logs_of_levels_have_keras_names(tmp_path):
    file = tmp_path / "log.jsonl"
    logs = []
    search = build_search()
    history = fit(
        search,
        C.LambdaCallback(on_epoch_end=lambda epoch, log: logs.append(log)),
    ).history
    file.write_text(json.dumps(logs))
    for log, ticket in zip(logs, search.tickets, strict=True):
        at_stop = ticket.metrics["validation_accuracy_at_early_stop"]
        assert log["val_accuracy"] == at_stop
        assert log["density"] == ticket.density
        assert {"loss", "accuracy", "val_loss"} <= log.keys()
    assert history["val_loss"] == [log["val_loss"] for log in logs]


class Setting(C.Callback):
    """Changes something in a hook."""

    def __init__(self, hook, change):
        super().__init__()
        setattr(self, hook, lambda *_: change(self.model))


def assign_weight(model):
    model.weights[0].assign_add(np.ones(model.weights[0].shape))


def assign_rate(model):
    model.optimizer.learning_rate = 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (assign_weight, "changed the weights 'dense/kernel'"),
        (assign_rate, "changed the learning rate"),
    ],
)
@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_end"])
def test_a_callback_that_changes_a_network_is_named(change, message, hook):
    with pytest.raises(ValueError, match=f"^Setting.{hook} {message}"):
        fit(build_search(), Setting(hook, change))


def stop(model):
    model.stop_training = True


@pytest.mark.slow
def test_stopping_at_the_end_of_a_level_ends_the_search(tmp_path):
    for _ in range(2):  # resumed, too
        search = build_search(levels=3)
        fit(search, Setting("on_epoch_end", stop), run_dir=tmp_path / "run")
        assert [ticket.level for ticket in search.tickets] == [0]


def test_stopping_within_a_level_is_refused():
    with pytest.raises(ValueError, match="set model.stop_training within"):
        fit(build_search(), Setting("on_train_batch_end", stop))


def test_a_metric_that_is_not_logged_cannot_be_monitored(tmp_path):
    best = C.ModelCheckpoint(
        tmp_path / "b.keras", monitor="val_accuracy", save_best_only=True
    )
    with pytest.raises(ValueError, match="'val_accuracy', which is not logged"):
        fit(build_search(), best, validation_data=None)


def test_an_object_that_is_not_a_callback_is_refused():
    with pytest.raises(TypeError, match="must hold keras.callbacks.Callback"):
        bridge.require_supported([print], [])

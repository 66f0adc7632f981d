"""Several replicates of a search in one `fit`, in one process or more."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_lottery import masking
from tf_lottery.runs.executors import process_pool
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.ticket_search import TicketSearch, starts
from tf_lottery.training import Trainer, devices, plan

L = keras.layers


def build_search(model=None, loss=None, **settings):
    settings = {"levels": 1, "rate": 0.4, **settings}
    search = TicketSearch(toy.mlp() if model is None else model, **settings)
    search.compile(keras.optimizers.Adam(3e-3), loss or toy.loss())
    return search


def fit(search, run_dir=None, **settings):
    settings = {
        "batch_size": 20,
        "length": "24it",
        "validation_data": toy.digits(60, seed=2),
        "verbose": 0,
        **settings,
    }
    return search.fit(*toy.digits(120, seed=1), run_dir=run_dir, **settings)


def stored(path):
    """Returns the bytes of each network's files in a run directory."""
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in path.rglob("*")
        if p.name in ("trained", "best", "ticket") and p.is_file()
    }


def origins(path, replicates, name="dense/kernel"):
    run = RunDirectory.open(path)
    return [run.ticket(r, 0).origin.weights[name] for r in range(replicates)]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A run of three replicates, and its search."""
    path = tmp_path_factory.mktemp("three") / "run"
    search = build_search(
        toy.mlp(dropout=0.2), controls=["reinit"], replicates=3
    )
    history = fit(search, path)
    return path, search, history


@pytest.mark.slow
def test_replicate_0_is_the_search_without_others(three, tmp_path):
    path, search, history = three
    alone = build_search(toy.mlp(dropout=0.2), controls=["reinit"])
    expected = fit(alone, tmp_path / "run")
    files = stored(tmp_path / "run")
    assert len(files) >= 6
    assert files.items() <= stored(path).items()
    one, other = dict(history.history), dict(expected.history)
    assert one.pop("seconds") != other.pop("seconds")
    assert one == other
    for one, other in zip(search.tickets, alone.tickets, strict=True):
        assert one.start.digest == other.start.digest
        assert toy.same(one.trained, other.trained)


def test_records_are_those_of_all_replicates(three):
    _, search, _ = three
    networks = {(r.replicate, r.level, r.variant) for r in search.records}
    assert networks == {
        (replicate, *network)
        for replicate in range(3)
        for network in ((0, "ticket"), (1, "ticket"), (1, "reinit"))
    }


def test_replicates_differ_by_initial_weights_and_randomness(three):
    path, search, _ = three
    first, *others = origins(path, 3)
    limit = 2 * np.sqrt(2 / (36 + 16)) / 0.8796
    for kernel in others:
        assert not np.array_equal(kernel, first)
        assert np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(first.std(), rel=0.15)
    assert not np.array_equal(*others)
    biases = origins(path, 3, "dense/bias")
    assert all((bias == 0).all() for bias in biases)
    weights = RunDirectory.open(path).ticket(0, 0).origin.weights
    name = next(n for n in weights if n.endswith("seed_generator_state"))
    keys = origins(path, 3, name)
    assert len({int(key[0]) for key in keys}) == 3


@pytest.mark.slow
def test_same_seed_same_bytes(three, tmp_path):
    path, _, _ = three
    again = build_search(
        toy.mlp(dropout=0.2), controls=["reinit"], replicates=3
    )
    fit(again, tmp_path / "run")
    assert stored(tmp_path / "run") == stored(path)


@pytest.mark.slow
def test_an_interrupted_search_ends_as_an_uninterrupted_one(
    three, tmp_path, monkeypatch
):
    path, _, _ = three
    settings = {"controls": ["reinit"], "replicates": 3}
    count = 0
    real = Trainer.outcomes

    def outcomes(*args):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "outcomes", outcomes)
        with pytest.raises(KeyboardInterrupt):
            fit(
                build_search(toy.mlp(dropout=0.2), **settings), tmp_path / "run"
            )
        assert 0 < len(stored(tmp_path / "run")) < len(stored(path))
        count = 5
        fit(build_search(toy.mlp(dropout=0.2), **settings), tmp_path / "run")
        assert count == 5 + 9 - 4
    assert stored(tmp_path / "run") == stored(path)


def in_processes(monkeypatch):
    """Makes searches use two processes; returns steps trained in this one."""
    monkeypatch.setattr(plan, "_WORTH_PROCESSES", 0)
    monkeypatch.setattr(devices, "cores", lambda: 2)
    monkeypatch.setattr(
        tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0
    )
    lengths = []
    real = Trainer.outcomes

    def outcomes(trainer, *args):
        lengths.append(trainer.steps)
        return real(trainer, *args)

    monkeypatch.setattr(Trainer, "outcomes", outcomes)
    return lengths


@pytest.mark.slow
def test_processes_give_the_same_bytes(three, tmp_path, monkeypatch, capsys):
    path, _, _ = three
    lengths = in_processes(monkeypatch)
    search = build_search(
        toy.mlp(dropout=0.2), controls=["reinit"], replicates=3
    )
    fit(search, tmp_path / "run", verbose=1)
    assert lengths == [2]  # the two steps that processes take too
    assert "cannot be sent" not in capsys.readouterr().err
    assert stored(tmp_path / "run") == stored(path)


def threads_of(_):
    return devices.threads()


@pytest.mark.slow
def test_processes_have_the_threads_they_are_given():
    # Other threads sum in another order: convolutions differ in last bits.
    with process_pool.ProcessPool(toy.trainer, 1, 3) as executor:
        executor.broadcast(threads_of)
        assert executor.gather() == [3]


def local_model(kind):
    """Models of classes and functions that no other process can import."""

    class Scaled(L.Layer):
        def __init__(self, units):
            super().__init__()
            self.units, self.parts = units, [L.Dense(units)]
            self.kernel_initializer = keras.initializers.GlorotUniform()

        def build(self, shape):
            self.kernel = self.add_weight(
                shape=(shape[-1], self.units),
                initializer=self.kernel_initializer,
                name="kernel",
            )
            self.parts[0].build((None, self.units))

        def call(self, x):
            return keras.ops.relu(self.parts[0](x @ self.kernel))

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.flat, self.hidden = L.Flatten(), L.Dense(6, "relu")
            self.drop, self.head = L.Dropout(0.2), L.Dense(3)

        def call(self, x, training=False):
            hidden = self.hidden(self.flat(x))
            return self.head(self.drop(hidden, training=training))

    factor = 1.5
    image = keras.Input((6, 6, 1))
    flat = L.Flatten()(image)
    if kind == "lambda":
        scaled = L.Lambda(lambda x: x * factor)(flat)
        hidden = L.Dense(5, lambda x: keras.ops.tanh(factor * x))(scaled)
        return keras.Model(image, L.Dense(3)(hidden))
    if kind == "nested":
        inner = keras.Sequential([keras.Input((36,)), Scaled(5)])
        return keras.Model(image, L.Dense(3)(inner(flat)))
    model = Subclassed()
    model(np.zeros((2, 6, 6, 1), "float32"))
    return model


# As Keras says to all who look at the configuration of a lambda.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The object being serialized includes a")
@pytest.mark.parametrize("kind", ["lambda", "nested", "subclassed"])
def test_local_classes_and_functions_can_be_sent_to_processes(
    kind, tmp_path, monkeypatch, capsys
):
    class Sharper(keras.losses.Loss):
        def __init__(self, power):
            super().__init__()
            self.power = power

        def call(self, y, outputs):
            return self.power * keras.losses.sparse_categorical_crossentropy(
                y, outputs, from_logits=True
            )

    model = local_model(kind)
    fit(build_search(model, Sharper(1.5), replicates=2), tmp_path / "here")
    lengths = in_processes(monkeypatch)
    search = build_search(model, Sharper(1.5), replicates=2)
    fit(search, tmp_path / "there", verbose=1)
    assert lengths == [2], capsys.readouterr().err
    assert stored(tmp_path / "there") == stored(tmp_path / "here")
    assert len(stored(tmp_path / "here")) >= 4
    first, second = origins(
        tmp_path / "here", 2, next(iter(masking.kernels(model)))
    )
    assert not np.array_equal(first, second)


@pytest.mark.slow
def test_a_model_trained_by_fit_can_be_sent_to_processes(
    tmp_path, monkeypatch, capsys
):
    model = toy.convnet()
    model.compile("adam", toy.loss())
    model.fit(*toy.digits(40), verbose=0)
    fit(build_search(model, replicates=2), tmp_path / "here")
    assert in_processes(monkeypatch) == []
    fit(build_search(model, replicates=2), tmp_path / "there", verbose=1)
    output = capsys.readouterr()
    assert "cannot be sent" not in output.err
    assert "start from the same weights" in output.out
    assert stored(tmp_path / "there") == stored(tmp_path / "here")


@pytest.mark.slow
def test_what_cannot_be_sent_trains_in_this_process_and_is_reported(
    tmp_path, monkeypatch, capsys
):
    lock = threading.Lock()

    def locked(y, outputs):
        with lock:
            return toy.loss()(y, outputs)

    fit(build_search(loss=locked, replicates=2), tmp_path / "here")
    lengths = in_processes(monkeypatch)
    fit(build_search(loss=locked, replicates=2), tmp_path / "run", verbose=1)
    lines = [
        line
        for line in capsys.readouterr().err.splitlines()
        if "cannot be sent" in line
    ]
    assert len(lines) == 1
    assert "train in this process, in turn" in lines[0]
    assert "lock" in lines[0]
    assert lengths == [24] * 4
    assert stored(tmp_path / "run") == stored(tmp_path / "here")


@pytest.mark.slow
def test_what_trains_differently_in_processes_trains_in_this_one(
    tmp_path, monkeypatch, capsys
):
    def patched_loss(y, outputs):
        is_here = hasattr(toy, "_is_here")
        return toy.loss()(y, outputs) * (2.0 if is_here else 1.0)

    monkeypatch.setattr(toy, "_is_here", True, raising=False)
    lengths = in_processes(monkeypatch)
    fit(build_search(loss=patched_loss, replicates=2), verbose=1)
    assert "two training steps give another result" in capsys.readouterr().err
    assert lengths == [2] + [24] * 4


@pytest.mark.slow
def test_callbacks_see_replicate_0_alone(monkeypatch):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            kernel = masking.variables_by_path(self.model)["dense/kernel"]
            seen.append((step, kernel.numpy().sum()))

        def on_epoch_end(self, level, logs=None):
            seen.append(level)

    fit(build_search(), callbacks=[Watch()])
    alone = list(seen)
    seen.clear()
    lengths = in_processes(monkeypatch)
    fit(build_search(replicates=2), callbacks=[Watch()])
    assert seen == alone
    assert lengths == [24] * 4  # where the callback can see them


def test_a_callback_ends_all_replicates_at_its_level(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, level, logs=None):
            self.model.stop_training = level == 1

    search = build_search(levels=3, replicates=2)
    fit(search, tmp_path / "run", callbacks=[Stop()])
    networks = sorted((r.replicate, r.level) for r in search.records)
    assert networks == [(0, 0), (0, 1), (1, 0), (1, 1)]


def trained(model):
    model.compile("sgd", toy.loss())
    model.fit(*toy.digits(60), epochs=2, verbose=0)
    return model


def moved(model, path, value):
    masking.variables_by_path(model)[path].assign_add(value)
    return model


def recurrent():
    inputs = keras.Input((6, 6))
    return keras.Model(inputs, L.Dense(3)(L.LSTM(4)(inputs)))


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (toy.mlp, None),
        (toy.convnet, None),
        (recurrent, None),
        (lambda: trained(toy.mlp()), "dense/bias"),
        (
            lambda: moved(
                toy.convnet(),
                "batch_normalization/moving_mean",
                np.full(4, 0.1),
            ),
            "batch_normalization/moving_mean",
        ),
        (
            lambda: moved(
                toy.convnet(), "conv2d/kernel", np.full((3, 3, 1, 4), 0.5)
            ),
            "conv2d/kernel",
        ),
        (
            lambda: moved(recurrent(), "lstm/lstm_cell/bias", np.ones(16)),
            "lstm/lstm_cell/bias",
        ),
    ],
)
def test_pretrained_weights_are_distinguished_from_fresh_ones(model, path):
    built = model()
    assert starts.pretrained(built, masking.fresh_copy(built)) == path


@pytest.mark.parametrize(
    "initializer",
    [
        "glorot_uniform",
        "he_normal",
        "lecun_uniform",
        keras.initializers.VarianceScaling(2.0, "fan_avg", "uniform"),
        keras.initializers.VarianceScaling(2.0, "fan_out"),
        keras.initializers.TruncatedNormal(0.3, 0.1),
        keras.initializers.RandomUniform(-0.2, 0.5),
    ],
)
@pytest.mark.parametrize("shape", [(40, 50), (3, 3, 20, 10), (2000,)])
def test_the_support_of_an_initializer_is_where_it_draws(initializer, shape):
    initializer = keras.initializers.get(initializer)
    low, high = masking.support(initializer, shape)
    drawn = np.array(initializer(shape))
    assert low <= drawn.min()
    assert drawn.max() <= high
    # And no wider than that: 1,800 draws come near both ends.
    assert drawn.max() - drawn.min() > 0.9 * (high - low)


def test_an_unbounded_initializer_draws_anything():
    for name in ("random_normal", "orthogonal"):
        initializer = keras.initializers.get(name)
        assert masking.support(initializer, (3, 3)) == (-np.inf, np.inf)


@pytest.mark.parametrize("source", ["pretrained", "initial_weights"])
def test_pretrained_weights_are_kept_by_all_replicates(
    source, tmp_path, capsys
):
    model = toy.mlp()
    settings = {"replicates": 2}
    if source == "pretrained":
        trained(model)
    else:
        other = toy.mlp(seed=5)
        other.save_weights(tmp_path / "my.weights.h5")
        settings["initial_weights"] = tmp_path / "my.weights.h5"
    search = build_search(model, **settings)
    fit(search, tmp_path / "run", verbose=1)
    expected = (model if source == "pretrained" else other).layers[1].kernel
    for kernel in origins(tmp_path / "run", 2):
        assert np.array_equal(kernel, expected.numpy())
    run = RunDirectory.open(tmp_path / "run")
    ends = [r.row["train_loss"] for r in run.records() if r.level == 0]
    assert ends[0] != ends[1]
    shown = capsys.readouterr().out
    assert "The 2 replicates start from the same weights" in shown


@pytest.mark.slow
def test_a_line_states_how_replicates_differ(capsys):
    fit(build_search(levels=0, replicates=2), verbose=1)
    shown = capsys.readouterr().out
    assert "The 2 replicates differ by initial weights" in shown
    assert "Trains 2 replicates of 1 networks" in shown
    assert "48 steps in all" in shown
    fit(build_search(levels=0), verbose=1)
    assert "replicate" not in capsys.readouterr().out


def test_frozen_layers_keep_their_weights(tmp_path):
    model = toy.mlp()
    model.layers[1].trainable = False
    model.layers[1].bias.assign(np.ones(16))
    fit(build_search(model, levels=0, replicates=2), tmp_path / "run")
    frozen = origins(tmp_path / "run", 2)
    assert np.array_equal(*frozen)
    drawn = origins(tmp_path / "run", 2, "dense_1/kernel")
    assert not np.array_equal(*drawn)


def test_replicates_need_no_validation_data():
    search = build_search(levels=1, replicates=2)
    fit(search, validation_data=None)
    assert sorted((r.replicate, r.level) for r in search.records) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]


@pytest.mark.parametrize("replicates", [0, -1, 2.0, "3"])
def test_replicates_are_a_whole_number(replicates):
    with pytest.raises(ValueError, match="`replicates` must be a whole number"):
        build_search(replicates=replicates)


def test_a_weight_without_an_initializer_is_refused_before_training():
    class Own(L.Layer):
        def build(self, shape):
            self.table = self.add_weight(
                shape=(shape[-1], 3), initializer="he_normal", name="table"
            )

        def call(self, x):
            return x @ self.table

    layers = [keras.Input((6, 6, 1)), L.Flatten(), L.Dense(4), Own()]
    search = build_search(keras.Sequential(layers), replicates=2)
    with pytest.raises(ValueError, match="`table_initializer`.*theta_0") as no:
        fit(search)
    assert "\n" not in str(no.value)
    assert not search.tickets


def test_the_same_network_twice_is_refused():
    search = build_search(trained(toy.mlp()), replicates=2)
    with pytest.raises(ValueError, match="the same network 2 times"):
        fit(search, shuffle=False)
    fresh = build_search(levels=0, replicates=2)
    fit(fresh, shuffle=False)


def test_a_random_criterion_draws_again_in_each_replicate(tmp_path):
    search = build_search(criterion="random", replicates=2)
    fit(search, tmp_path / "run")
    run = RunDirectory.open(tmp_path / "run")
    one, other = (run.ticket(r, 1).masks for r in range(2))
    assert one.counts == other.counts
    assert one != other


def test_the_search_leaves_the_model_as_it_was():
    model = toy.convnet()
    before = [v.numpy().copy() for v in model.variables]
    fit(build_search(model, levels=0, replicates=2))
    for value, variable in zip(before, model.variables, strict=True):
        assert np.array_equal(value, variable.numpy())

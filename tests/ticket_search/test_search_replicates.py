"""Several replicates of a search in one `fit`, in processes and in turn."""

import threading

import keras
import numpy as np
import pytest
import toy

from tf_lottery import masking
from tf_lottery.runs.executors import process_pool
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.ticket_search import TicketSearch, starts
from tf_lottery.training import Trainer

L = keras.layers


def search(model=None, loss=None, **settings):
    settings = {"levels": 1, "rate": 0.4, **settings}
    made = TicketSearch(toy.mlp() if model is None else model, **settings)
    made.compile(keras.optimizers.Adam(3e-3), loss or toy.loss())
    return made


def fit(made, run_dir=None, **settings):
    settings = {
        "batch_size": 20,
        "length": "24it",
        "validation_data": toy.digits(60, seed=2),
        "verbose": 0,
        **settings,
    }
    return made.fit(*toy.digits(120, seed=1), run_dir=run_dir, **settings)


def kept(path):
    """Returns what a run keeps of its networks, by file."""
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
    made = search(toy.mlp(dropout=0.2), controls=["reinit"], replicates=3)
    history = fit(made, path)
    return path, made, history


def test_replicate_0_is_the_search_without_others(three, tmp_path):
    path, made, history = three
    alone = search(toy.mlp(dropout=0.2), controls=["reinit"])
    expected = fit(alone, tmp_path / "run")
    files = kept(tmp_path / "run")
    assert len(files) >= 6
    assert files.items() <= kept(path).items()
    one, other = dict(history.history), dict(expected.history)
    assert one.pop("seconds") != other.pop("seconds")
    assert one == other
    for one, other in zip(made.tickets, alone.tickets, strict=True):
        assert one.start.digest == other.start.digest
        assert toy.same(one.trained, other.trained)


def test_records_are_those_of_all_replicates(three):
    _, made, _ = three
    found = {(r.replicate, r.level, r.variant) for r in made.records}
    assert found == {
        (replicate, *network)
        for replicate in range(3)
        for network in ((0, "ticket"), (1, "ticket"), (1, "reinit"))
    }


def test_replicates_differ_by_initial_weights_and_randomness(three):
    path, made, _ = three
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


def test_same_seed_same_bytes(three, tmp_path):
    path, _, _ = three
    again = search(toy.mlp(dropout=0.2), controls=["reinit"], replicates=3)
    fit(again, tmp_path / "run")
    assert kept(tmp_path / "run") == kept(path)


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
            fit(search(toy.mlp(dropout=0.2), **settings), tmp_path / "run")
        assert 0 < len(kept(tmp_path / "run")) < len(kept(path))
        count = 5
        fit(search(toy.mlp(dropout=0.2), **settings), tmp_path / "run")
        assert count == 5 + 9 - 4
    assert kept(tmp_path / "run") == kept(path)


def in_processes(monkeypatch):
    """Has searches use two processes, however short; returns what trains."""
    monkeypatch.setattr(process_pool, "_WORTH_IT", 0)
    monkeypatch.setattr(process_pool, "_cores", lambda: 2)
    monkeypatch.setattr(
        process_pool.tf.config.threading,
        "get_intra_op_parallelism_threads",
        lambda: 0,
    )
    lengths = []
    real = Trainer.outcomes

    def outcomes(trainer, *args):
        lengths.append(trainer.steps)
        return real(trainer, *args)

    monkeypatch.setattr(Trainer, "outcomes", outcomes)
    return lengths


def test_processes_come_to_the_same_bytes(three, tmp_path, monkeypatch, capsys):
    path, _, _ = three
    lengths = in_processes(monkeypatch)
    made = search(toy.mlp(dropout=0.2), controls=["reinit"], replicates=3)
    fit(made, tmp_path / "run", verbose=1)
    assert lengths == [2]  # the two steps that processes take too
    assert "cannot be sent" not in capsys.readouterr().err
    assert kept(tmp_path / "run") == kept(path)


def threads_of(_):
    return process_pool.threads_here()


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
@pytest.mark.filterwarnings("ignore:The object being serialized includes a")
@pytest.mark.parametrize("kind", ["lambda", "nested", "subclassed"])
def test_what_was_defined_in_a_function_travels(
    kind, tmp_path, monkeypatch, capsys
):
    class Sharper(keras.losses.Loss):
        def __init__(self, power):
            super().__init__()
            self.power = power

        def call(self, y, found):
            return self.power * keras.losses.sparse_categorical_crossentropy(
                y, found, from_logits=True
            )

    model = local_model(kind)
    fit(search(model, Sharper(1.5), replicates=2), tmp_path / "here")
    lengths = in_processes(monkeypatch)
    made = search(model, Sharper(1.5), replicates=2)
    fit(made, tmp_path / "there", verbose=1)
    assert lengths == [2], capsys.readouterr().err
    assert kept(tmp_path / "there") == kept(tmp_path / "here")
    assert len(kept(tmp_path / "here")) >= 4
    first, second = origins(
        tmp_path / "here", 2, next(iter(masking.kernels(model)))
    )
    assert not np.array_equal(first, second)


def test_a_model_that_fit_has_trained_travels(tmp_path, monkeypatch, capsys):
    model = toy.convnet()
    model.compile("adam", toy.loss())
    model.fit(*toy.digits(40), verbose=0)
    fit(search(model, replicates=2), tmp_path / "here")
    assert in_processes(monkeypatch) == []
    fit(search(model, replicates=2), tmp_path / "there", verbose=1)
    said = capsys.readouterr()
    assert "cannot be sent" not in said.err
    assert "start from the same weights" in said.out
    assert kept(tmp_path / "there") == kept(tmp_path / "here")


def test_what_cannot_travel_trains_here_and_a_line_says_so(
    tmp_path, monkeypatch, capsys
):
    lock = threading.Lock()

    def locked(y, found):
        with lock:
            return toy.loss()(y, found)

    fit(search(loss=locked, replicates=2), tmp_path / "here")
    lengths = in_processes(monkeypatch)
    fit(search(loss=locked, replicates=2), tmp_path / "run", verbose=1)
    said = [
        line
        for line in capsys.readouterr().err.splitlines()
        if "cannot be sent" in line
    ]
    assert len(said) == 1
    assert "train in this process, in turn" in said[0]
    assert "lock" in said[0]
    assert lengths == [24] * 4
    assert kept(tmp_path / "run") == kept(tmp_path / "here")


def test_what_trains_otherwise_in_a_process_trains_here(
    tmp_path, monkeypatch, capsys
):
    def here_alone(y, found):
        here = hasattr(toy, "_is_here")
        return toy.loss()(y, found) * (2.0 if here else 1.0)

    monkeypatch.setattr(toy, "_is_here", True, raising=False)
    lengths = in_processes(monkeypatch)
    fit(search(loss=here_alone, replicates=2), verbose=1)
    assert "two training steps give another result" in capsys.readouterr().err
    assert lengths == [2] + [24] * 4


def test_callbacks_see_replicate_0_alone(monkeypatch):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            kernel = masking.variables_by_path(self.model)["dense/kernel"]
            seen.append((step, kernel.numpy().sum()))

        def on_epoch_end(self, level, logs=None):
            seen.append(level)

    fit(search(), callbacks=[Watch()])
    alone = list(seen)
    seen.clear()
    lengths = in_processes(monkeypatch)
    fit(search(replicates=2), callbacks=[Watch()])
    assert seen == alone
    assert lengths == [24] * 4  # where the callback can see them


def test_a_callback_ends_all_replicates_at_its_level(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, level, logs=None):
            self.model.stop_training = level == 1

    made = search(levels=3, replicates=2)
    fit(made, tmp_path / "run", callbacks=[Stop()])
    found = sorted((r.replicate, r.level) for r in made.records)
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1)]


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
def test_pretrained_weights_are_told_from_fresh_ones(model, path):
    made = model()
    assert starts.pretrained(made, masking.renewed(made)) == path


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
    found = keras.initializers.get(initializer)
    low, high = masking.support(found, shape)
    drawn = np.array(found(shape))
    assert low <= drawn.min()
    assert drawn.max() <= high
    # And no wider than that: 1,800 draws come near both ends.
    assert drawn.max() - drawn.min() > 0.9 * (high - low)


def test_an_unbounded_initializer_draws_anything():
    for name in ("random_normal", "orthogonal"):
        found = keras.initializers.get(name)
        assert masking.support(found, (3, 3)) == (-np.inf, np.inf)


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
    made = search(model, **settings)
    fit(made, tmp_path / "run", verbose=1)
    expected = (model if source == "pretrained" else other).layers[1].kernel
    for kernel in origins(tmp_path / "run", 2):
        assert np.array_equal(kernel, expected.numpy())
    run = RunDirectory.open(tmp_path / "run")
    ends = [r.row["train_loss"] for r in run.records() if r.level == 0]
    assert ends[0] != ends[1]
    shown = capsys.readouterr().out
    assert "The 2 replicates start from the same weights" in shown


def test_a_line_says_what_replicates_differ_by(capsys):
    fit(search(levels=0, replicates=2), verbose=1)
    shown = capsys.readouterr().out
    assert "The 2 replicates differ by initial weights" in shown
    assert "Trains 2 replicates of 1 networks" in shown
    assert "48 steps in all" in shown
    fit(search(levels=0), verbose=1)
    assert "replicate" not in capsys.readouterr().out


def test_frozen_layers_keep_their_weights(tmp_path):
    model = toy.mlp()
    model.layers[1].trainable = False
    model.layers[1].bias.assign(np.ones(16))
    fit(search(model, levels=0, replicates=2), tmp_path / "run")
    frozen = origins(tmp_path / "run", 2)
    assert np.array_equal(*frozen)
    drawn = origins(tmp_path / "run", 2, "dense_1/kernel")
    assert not np.array_equal(*drawn)


def test_replicates_need_no_validation_data():
    made = search(levels=1, replicates=2)
    fit(made, validation_data=None)
    assert sorted((r.replicate, r.level) for r in made.records) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]


@pytest.mark.parametrize("replicates", [0, -1, 2.0, "3"])
def test_replicates_are_a_whole_number(replicates):
    with pytest.raises(ValueError, match="`replicates` must be a whole number"):
        search(replicates=replicates)


def test_a_weight_without_an_initializer_is_refused_before_training():
    class Own(L.Layer):
        def build(self, shape):
            self.table = self.add_weight(
                shape=(shape[-1], 3), initializer="he_normal", name="table"
            )

        def call(self, x):
            return x @ self.table

    layers = [keras.Input((6, 6, 1)), L.Flatten(), L.Dense(4), Own()]
    made = search(keras.Sequential(layers), replicates=2)
    with pytest.raises(ValueError, match="`table_initializer`.*theta_0") as no:
        fit(made)
    assert "\n" not in str(no.value)
    assert not made.tickets


def test_the_same_network_twice_is_refused():
    made = search(trained(toy.mlp()), replicates=2)
    with pytest.raises(ValueError, match="the same network 2 times"):
        fit(made, shuffle=False)
    fresh = search(levels=0, replicates=2)
    fit(fresh, shuffle=False)


def test_a_random_criterion_draws_anew_in_each_replicate(tmp_path):
    made = search(criterion="random", replicates=2)
    fit(made, tmp_path / "run")
    run = RunDirectory.open(tmp_path / "run")
    one, other = (run.ticket(r, 1).masks for r in range(2))
    assert one.counts == other.counts
    assert one != other


def test_the_search_leaves_the_model_as_it_was():
    model = toy.convnet()
    before = [v.numpy().copy() for v in model.variables]
    fit(search(model, levels=0, replicates=2))
    for value, variable in zip(before, model.variables, strict=True):
        assert np.array_equal(value, variable.numpy())

"""`TicketSearch`: `compile`, `fit`, tickets, records and callbacks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from sample_searches import Trainings, fit, prepare

from tf_lottery import controls, masking, pruning
from tf_lottery.core.masks import Masks
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.ticket_search import TicketSearch


def small_functional():
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    y = keras.layers.Conv2D(4, 3, padding="same")(x)
    x = keras.layers.Flatten()(keras.layers.Add()([x, y]))
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


def nested():
    inner = keras.Sequential(
        [keras.Input((36,)), keras.layers.Dense(9, "relu")], name="inner"
    )
    layers = [keras.Input((6, 6, 1)), keras.layers.Flatten(), inner]
    return keras.Sequential([*layers, keras.layers.Dense(3)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [toy.mlp, toy.convnet, small_functional, nested]
)
def test_tickets_of_any_small_model_are_found(model):
    search = prepare(model())
    history = fit(search)
    assert [t.level for t in search.tickets] == history.epoch == [0, 1, 2]
    assert history.history["density"] == [t.density for t in search.tickets]
    assert history.history["density"][2] == pytest.approx(0.36, abs=0.02)
    for before, after in zip(search.tickets, search.tickets[1:], strict=False):
        assert after.masks <= before.masks
        assert after.metrics["test_accuracy"] > 0.3
    for ticket in search.tickets:
        for path, mask in ticket.masks.items():
            assert (ticket.trained[path][~mask] == 0).all()


@pytest.mark.slow
def test_the_users_model_is_left_as_it_was():
    model = toy.convnet()
    before = [w.numpy().copy() for w in model.weights]
    search = prepare(model)
    fit(search)
    for value, weight in zip(before, model.weights, strict=True):
        assert np.array_equal(value, weight.numpy())
    origin = search.tickets[0].origin.weights["conv2d/kernel"]
    assert np.array_equal(origin, before[0])


@pytest.mark.slow
def test_the_users_optimizer_is_left_as_it_was():
    optimizer = keras.optimizers.Adam(3e-3)
    search = prepare()
    search.compile(optimizer, toy.loss())
    fit(search)
    assert not optimizer.built
    assert type(optimizer) is keras.optimizers.Adam


@pytest.mark.slow
def test_rates_by_role_and_by_pattern():
    search = prepare(rates={"output": 0.1, "dense_1/*": 0.0})
    fit(search)
    counts = search.tickets[2].masks.counts
    assert counts["dense/kernel"] == 576 - 230 - 138
    assert counts["dense_1/kernel"] == 128
    assert counts["dense_2/kernel"] == 24 - 2 - 2


@pytest.mark.slow
def test_excluded_kernels_carry_no_mask():
    search = prepare(exclude="dense_2/*")
    fit(search)
    assert set(search.tickets[2].masks) == {"dense/kernel", "dense_1/kernel"}
    model = search.tickets[2].build()
    kinds = [type(layer).__qualname__ for layer in model.layers]
    assert kinds == ["Flatten", "MaskedDense", "MaskedDense", "Dense"]


@pytest.mark.slow
@pytest.mark.parametrize("rewind", ["0it", "12it", "1ep"])
def test_tickets_restart_from_theta_k(rewind, tmp_path):
    search = prepare(toy.mlp(dropout=0.2), rewind=rewind)
    fit(search, tmp_path / "run")
    step = {"0it": 0, "12it": 12, "1ep": 24}[rewind]
    plain = toy.trainer(toy.mlp(dropout=0.2), length=f"{max(step, 1)}it")
    theta = plain.state.weights
    if step:
        ones = masking.get_masks(plain.model)
        theta = toy.train(plain, plain.state, ones).trained
    for ticket in search.tickets[1:]:
        assert ticket.origin.step == step
        for path, value in theta.items():
            mask = ticket.masks.get(path, True)
            assert np.array_equal(ticket.start.weights[path], value * mask)
    prefix = tmp_path / f"run/replicate_0/theta_{step}/checkpoint"
    model = toy.mlp(dropout=0.2, seed=99)
    tf.train.Checkpoint(model=model).read(str(prefix)).expect_partial()
    restored = masking.variables_by_path(model)["dense/kernel"].numpy()
    assert np.array_equal(restored, theta["dense/kernel"])


@pytest.mark.slow
def test_same_seed_same_tickets(tmp_path):
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        search = prepare(toy.mlp(dropout=0.2), seed=seed, controls=["reinit"])
        fit(search, tmp_path / name)
        paths = sorted((tmp_path / name).glob("*/level_*/*/t*"))
        files.append([p.read_bytes() for p in paths if p.name == "trained"])
    assert len(files[0]) == 5
    assert files[0] == files[1]
    assert all(one != other for one, other in zip(*files[1:], strict=True))


@pytest.mark.slow
def test_the_second_launch_trains_nothing(tmp_path, monkeypatch):
    first, second = prepare(controls=["reinit"]), prepare(controls=["reinit"])
    one = fit(first, tmp_path / "run").history
    trainings = Trainings(monkeypatch)
    two = fit(second, tmp_path / "run").history
    assert trainings.count == 0
    assert one == two
    for a, b in zip(first.tickets, second.tickets, strict=True):
        assert a.start.digest == b.start.digest
        assert toy.same(a.trained, b.trained)


@pytest.mark.slow
@pytest.mark.parametrize("rewind", ["0it", "12it"])
@pytest.mark.parametrize("stop_at", [1, 2, 4])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    stop_at, rewind, tmp_path, monkeypatch
):
    settings = {"controls": ["reinit", "shuffle"], "rewind": rewind}
    fit(prepare(**settings), tmp_path / "whole")
    with monkeypatch.context() as patch:
        Trainings(patch, stop_at)
        with pytest.raises(KeyboardInterrupt):
            fit(prepare(**settings), tmp_path / "run")
    fit(prepare(**settings), tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def contents(path):
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in path.rglob("trained")
        if p.is_file()
    }


@pytest.mark.slow
def test_a_deleted_level_is_trained_again_and_nothing_else(
    tmp_path, monkeypatch
):
    fit(prepare(), tmp_path / "run")
    before = contents(tmp_path / "run")
    for file in (tmp_path / "run/replicate_0/level_1/ticket").iterdir():
        file.unlink()
    trainings = Trainings(monkeypatch)
    fit(prepare(), tmp_path / "run")
    assert trainings.count == 1
    assert contents(tmp_path / "run") == before


@pytest.mark.slow
@pytest.mark.parametrize("rewind", ["0it", "4it"])
def test_every_control_is_trained_at_every_level(rewind, tmp_path, monkeypatch):
    settings = {
        "controls": list(controls.CONTROLS),
        "rewind": rewind,
        "rates": {"output": 0.0},
    }
    length = {"length": "8it", "evaluate_every": 4}
    search = prepare(toy.convnet(), **settings)
    fit(search, tmp_path / "run", **length)
    rows = {(r.level, r.variant): r.row for r in search.records}
    assert rows.keys() == {(0, "ticket"), (0, "data_order")} | {
        (level, variant)
        for level in (1, 2)
        for variant in ("ticket", *controls.CONTROLS)
    }
    for (level, variant), row in rows.items():
        ticket = search.tickets[level]
        if variant == "small_dense":
            assert row["weights_kept"] <= ticket.masks.kept
            assert row["density"] == row["weights_kept"] / ticket.masks.size
        else:
            assert row["weights_kept"] == ticket.masks.kept
            assert row["density"] == ticket.density
    trainings = Trainings(monkeypatch)
    fit(prepare(toy.convnet(), **settings), tmp_path / "run", **length)
    assert trainings.count == 0


@pytest.mark.slow
def test_the_random_criterion_uses_the_seed_of_the_search():
    masks = {}
    for seed in (0, 1):
        search = prepare(levels=1, criterion="random", seed=seed)
        fit(search, length="2it", evaluate_every=1)
        (_, ticket) = search.tickets
        weights = {path: ticket.origin.weights[path] for path in ticket.masks}
        scores = pruning.Random(seed)(weights, weights)
        masks[seed] = ticket.masks
        assert masks[seed] == pruning.prune(
            scores, Masks.ones(ticket.masks.shapes), 0.6
        )
    assert masks[0] != masks[1]


@pytest.mark.slow
def test_a_run_may_grow(tmp_path, monkeypatch):
    fit(prepare(levels=1), tmp_path / "run")
    trainings = Trainings(monkeypatch)
    fit(prepare(levels=2, controls=["shuffle"]), tmp_path / "run")
    assert trainings.count == 3


def test_a_shorter_search_ignores_levels_of_a_longer_one(tmp_path):
    fit(prepare(levels=2), tmp_path / "run")
    search = prepare(levels=1)
    fit(search, tmp_path / "run")
    assert len(search.tickets) == 2
    assert len(search._wanted_records()) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": 0.3}, "rates.dense/kernel is 0.4 there and 0.3 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"rewind": "5it"}, 'rewind is "0it" there and "5it" here'),
        ({"schedule": "one_shot"}, "schedule"),
    ],
)
def test_another_configuration_is_refused(changed, message, tmp_path):
    fit(prepare(), tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        fit(prepare(**changed), tmp_path / "run")
    assert contents(tmp_path / "run") == before


@pytest.mark.slow
def test_other_data_or_another_model_is_refused(tmp_path):
    fit(prepare(), tmp_path / "run")
    with pytest.raises(ValueError, match="another configuration: data"):
        fit(prepare(), tmp_path / "run", test_data=toy.digits(10))
    with pytest.raises(ValueError, match="another configuration: kernels"):
        fit(prepare(toy.convnet()), tmp_path / "run")
    with pytest.raises(ValueError, match="batch_size is 20 there and 10 here"):
        fit(prepare(), tmp_path / "run", batch_size=10)


@pytest.mark.slow
def test_theta_0_can_come_from_a_file(tmp_path):
    source = toy.mlp(seed=77)
    source.save_weights(tmp_path / "mine.weights.h5")
    search = prepare(initial_weights=tmp_path / "mine.weights.h5", levels=1)
    fit(search)
    origin = search.tickets[1].origin.weights["dense/kernel"]
    assert np.array_equal(origin, source.layers[1].kernel.numpy())


@pytest.mark.slow
def test_networks_that_still_learn_have_no_winning_ticket():
    # The README's example, which a test runs, has one.
    search = prepare(levels=1, rate=0.3, replicates=3)
    fit(search)
    outcomes = {v.outcome for v in search.judgment().verdicts}
    assert outcomes == {"trained too short"}
    with pytest.raises(ValueError, match="Trained too short for a verdict"):
        search.winning_ticket()


@pytest.mark.slow
def test_one_replicate_names_no_winning_ticket_and_says_what_does():
    search = prepare(levels=2)
    fit(search, length="200it")
    with pytest.raises(ValueError, match="takes 3 replicates or more"):
        search.winning_ticket()


def test_a_verdict_needs_validation_data():
    search = prepare(levels=1)
    with pytest.raises(ValueError, match="call fit first"):
        search.winning_ticket()
    fit(search, validation_data=None)
    with pytest.raises(ValueError, match="needs validation data"):
        search.winning_ticket()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": -1}, "`levels` must be a whole number of 0 or more"),
        ({"rate": 1.0}, r"`rate` must be in \[0, 1\)"),
        ({"rates": {"outptu/kernel": 0.1}}, "matches no kernel"),
        ({"criterion": "magnitud"}, "Did you mean 'magnitude'"),
        ({"allocation": "layer"}, "Unknown allocation"),
        ({"schedule": "cubic"}, "Unknown schedule"),
        ({"controls": ["reint"]}, "Did you mean 'reinit'"),
        ({"rewind": "500"}, "is not a length of training"),
        ({"seed": -1}, "`seed` must be"),
        ({"include": "nothing*"}, "matches no kernel"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_trains(settings, message):
    with pytest.raises(ValueError, match=message):
        prepare(**settings)


def test_rewinding_beyond_the_end_is_refused():
    with pytest.raises(ValueError, match="`rewind` is 40it, but training ends"):
        fit(prepare(rewind="40it"))


def test_fit_before_compile_is_refused():
    with pytest.raises(ValueError, match="Call compile"):
        fit(TicketSearch(toy.mlp()))


def test_a_loss_is_needed():
    search = TicketSearch(toy.mlp(), levels=0)
    search.compile("adam")
    with pytest.raises(ValueError, match="A loss is needed"):
        fit(search)


@pytest.mark.slow
def test_progress_is_shown_on_demand(capsys):
    fit(prepare(levels=1), verbose=True)
    shown = capsys.readouterr().err
    assert "level  1  ticket" in shown
    assert "test accuracy" in shown
    fit(prepare(levels=1), verbose=False)
    assert "level" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_directory_can_be_read_without_the_search(tmp_path):
    search = prepare()
    fit(search, tmp_path / "run")
    ticket = RunDirectory.open(tmp_path / "run").ticket(0, 2)
    assert ticket.start.digest == search.tickets[2].start.digest
    x, _ = toy.digits(20)
    one = ticket.model()(x)
    assert np.array_equal(one, search.tickets[2].model()(x))


@pytest.mark.slow
def test_a_level_is_an_epoch_to_callbacks(tmp_path):
    seen = []
    search = prepare(levels=2)
    fit(
        search,
        callbacks=[
            keras.callbacks.CSVLogger(tmp_path / "levels.csv"),
            keras.callbacks.TensorBoard(tmp_path / "board"),
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda level, _: seen.append(level),
                on_epoch_end=lambda level, logs: seen.append((level, logs)),
            ),
        ],
    )
    assert seen[::2] == [0, 1, 2]
    for (level, logs), ticket in zip(seen[1::2], search.tickets, strict=True):
        assert level == ticket.level
        assert logs["density"] == ticket.density
        assert logs["test_accuracy"] == ticket.metrics["test_accuracy"]
    lines = (tmp_path / "levels.csv").read_text().splitlines()
    assert len(lines) == 1 + 3
    assert {"density", "dead_units", "val_loss", "validation_loss"} <= {
        *lines[0].split(",")
    }
    assert list((tmp_path / "board").rglob("events.*"))


@pytest.mark.slow
def test_an_evaluation_is_a_batch_to_callbacks(tmp_path):
    seen = []
    search = prepare(levels=1, controls=["reinit"])
    log = lambda step, logs: seen.append((step, logs))  # noqa: E731
    fit(
        search,
        run_dir=tmp_path,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=log)],
    )
    curves = [r.curve for r in search.records if r.variant == "ticket"]
    for column, name in (("loss", "loss"), ("validation_loss", "val_loss")):
        expected = [value for curve in curves for value in curve[column]]
        assert [logs[name] for _, logs in seen] == expected
    steps = [step for curve in curves for step in curve["step"]]
    assert [step for step, _ in seen] == steps


@pytest.mark.slow
def test_units_without_inputs_are_counted_as_dead():
    counts = []
    search = prepare(levels=1, rate=0.97)
    log = lambda _, logs: counts.append(logs["dead_units"])  # noqa: E731
    fit(search, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=log)])
    masks = search.tickets[1].masks.values()
    dead = sum(int((mask.sum(axis=0) == 0).sum()) for mask in masks)
    assert counts == [0, dead]
    assert dead > 0

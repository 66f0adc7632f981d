"""Linear mode connectivity, and the step that tickets restart from."""

import functools
import json

import numpy as np
import pytest
import sample_searches
import toy

from tf_lottery import experiment, masking
from tf_lottery.lottery import stability
from tf_lottery.lottery.stability import LinearPath
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training import Job, batch_norm

prepare, fit = sample_searches.prepare, sample_searches.fit


def trained(trainer, seed, step=0):
    """Two copies of a network that part at a step, by the seed of one."""
    masks = masking.get_masks(trainer.model)
    first = Job(trainer.state, masks, 0, capture=(step,))
    (one,) = trainer.train([first])
    (other,) = trainer.train([Job(one.captured[0], masks, seed)])
    return one.trained, other.trained


def errors_of(trainer):
    return lambda weights, between: trainer.errors(
        weights, reestimate_batch_norm=between
    )


def test_the_ends_of_a_line_are_the_networks_themselves():
    trainer = toy.trainer(toy.convnet())
    ends = trained(trainer, seed=1)
    line = stability.interpolate(*ends, errors_of(trainer), points=5)
    assert line.alphas == (0, 0.25, 0.5, 0.75, 1)
    assert line.errors.keys() == {"train", "validation", "test"}
    for index, weights in zip((0, -1), ends, strict=True):
        for split, error in trainer.errors(weights).items():
            assert line.errors[split][index] == error
    assert line.distance > 0


@pytest.mark.slow
def test_errors_are_what_training_says_they_are():
    trainer = toy.trainer()
    run = toy.train(trainer, trainer.state, masking.get_masks(trainer.model))
    errors = trainer.errors(run.trained)
    for split, error in errors.items():
        accuracy = run.metrics[f"{split}_accuracy"]
        assert error == pytest.approx(1 - accuracy, abs=1e-9)


@pytest.mark.slow
def test_a_network_and_itself_have_no_barrier():
    trainer = toy.trainer()
    same = trained(trainer, seed=0, step=0)
    line = stability.interpolate(*same, errors_of(trainer), points=4)
    assert line.distance == 0
    for split in line.errors:
        assert line.barrier(split) == 0


def test_points_lie_where_they_are_said_to_lie():
    one = {"w": np.array([0.0, 4.0], "float32"), "seed": np.array([7, 0])}
    other = {"w": np.array([4.0, 0.0], "float32"), "seed": np.array([9, 0])}
    seen = []

    def errors(weights, reestimate_batch_norm):
        seen.append((*weights["w"], weights["seed"][0], reestimate_batch_norm))
        return {"test": 0.1 + (0.3 if weights["w"][0] == 1 else 0)}

    line = stability.interpolate(one, other, errors, points=5)
    assert seen == [
        (0, 4, 7, False),
        (1, 3, 7, True),
        (2, 2, 7, True),
        (3, 1, 7, True),
        (4, 0, 9, False),
    ]
    assert line.barrier("test") == pytest.approx(0.3)
    assert line.distance == pytest.approx(np.sqrt(32))


def test_reestimated_statistics_are_those_of_the_data():
    model = toy.convnet()
    trainer = toy.trainer(model)
    weights = trainer.state.weights
    before = [v.numpy() for v in model.variables]
    estimated = batch_norm.reestimated(model, weights, trainer._splits["train"])
    x = trainer.data.train.x
    outputs = model.layers[1](x).numpy()  # of the convolution
    name = "batch_normalization/moving_"
    np.testing.assert_allclose(
        estimated[f"{name}mean"],
        outputs.mean(axis=(0, 1, 2)),
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        estimated[f"{name}variance"], outputs.var(axis=(0, 1, 2)), rtol=1e-3
    )
    for path in weights.keys() - {f"{name}mean", f"{name}variance"}:
        assert np.array_equal(estimated[path], weights[path])
    for old, new in zip(before, model.variables, strict=True):
        assert np.array_equal(old, new.numpy())
    assert model.layers[2].momentum == 0.99


def test_without_normalization_nothing_is_estimated():
    trainer = toy.trainer()
    weights = trainer.state.weights
    assert batch_norm.reestimated(trainer.model, weights, []) is weights


def test_a_point_between_is_measured_with_reestimated_statistics():
    trainer = toy.trainer(toy.convnet())
    masks = masking.get_masks(trainer.model)
    run = toy.train(trainer, trainer.state, masks)
    weights = dict(run.trained)
    name = "batch_normalization/moving_variance"
    weights[name] = 1e4 * weights[name]
    broken = trainer.errors(weights, ["test"])["test"]
    reestimated = trainer.errors(weights, ["test"], reestimate_batch_norm=True)[
        "test"
    ]
    intact = trainer.errors(run.trained, ["test"])["test"]
    assert reestimated == pytest.approx(intact, abs=0.05)
    assert broken > reestimated + 0.1


@pytest.mark.parametrize("stable_from", range(9))
def test_bisection_finds_the_first_stable_step(stable_from):
    steps = list(range(9))
    step, measured = stability.first_stable(
        steps, lambda k: 0.3 if k < stable_from else 0.001
    )
    assert step == stable_from
    assert len(measured) <= 4


def test_training_that_is_never_stable_is_named():
    with pytest.raises(ValueError, match="step 40 on.*30.0 points.*Give a"):
        stability.first_stable([0, 20, 40], lambda _: 0.3)


def test_a_barrier_is_the_rise_over_the_mean_of_the_ends():
    line = LinearPath(
        (0, 0.5, 1), {"a": (0.1, 0.1, 0.3), "b": (0.2, 0.7, 0.4)}, 1
    )
    assert line.barrier("a") == pytest.approx(0.1)
    assert line.barrier("b") == pytest.approx(0.4)


@pytest.mark.slow
def test_copies_of_the_dense_network_part_at_step_k(tmp_path):
    search = prepare(levels=1, rewind="10it", controls=["data_order"])
    fit(search, tmp_path / "run", length="20it")
    records = {(r.level, r.variant): r for r in search.records}
    assert records.keys() == {
        (level, variant)
        for level in (0, 1)
        for variant in ("ticket", "data_order")
    }
    directory = RunDirectory.open(tmp_path / "run")
    copies = [
        directory.ticket(0, 0, variant) for variant in ("ticket", "data_order")
    ]
    assert [copy.origin.step for copy in copies] == [0, 10]
    assert not toy.same(copies[0].trained, copies[1].trained)
    theta_k = search.tickets[1].origin.weights
    assert toy.same(copies[1].start.weights, theta_k)


@pytest.mark.slow
@pytest.mark.parametrize("rewind_mode", ["weights", "learning_rate"])
def test_the_first_stable_step_is_found(rewind_mode, tmp_path, monkeypatch):
    barriers = {0: 0.4, 1: 0.3, 2: 0.1, 4: 0.01, 8: 0.0}
    taken = []

    class Known(LinearPath):
        def barrier(self, split):
            assert split == "validation"
            return barriers[taken[-1]]

    real = stability.interpolate

    def connect(one, other, errors, points=3):
        line = real(one, other, errors, points)
        return Known(line.alphas, line.errors, line.distance)

    real_candidates = stability.candidates
    assert real_candidates(16) == (0, 1, 2, 4, 8)
    monkeypatch.setattr(stability, "interpolate", connect)
    folder = tmp_path / "run"

    real_first = stability.first_stable

    def first(steps, barrier):
        def measured(step):
            taken.append(step)
            return barrier(step)

        return real_first(steps, measured)

    monkeypatch.setattr(stability, "first_stable", first)
    settings = {"levels": 1, "rewind": "auto", "rewind_mode": rewind_mode}
    search = prepare(**settings)
    fit(search, folder, length="16it")
    assert search.tickets[1].origin.step == 4
    record = json.loads((folder / "rewind.json").read_text())
    assert record["step"] == 4
    assert record["barriers"] == {str(k): barriers[k] for k in sorted(taken)}
    assert record["steps_trained"] == sum(16 - k for k in taken)
    probes = {r.variant for r in search.records if r.level == 0} - {"ticket"}
    assert probes == {f"probe_{k}" for k in taken}
    monkeypatch.undo()
    trainings = sample_searches.Trainings(monkeypatch)
    again = prepare(**settings)
    fit(again, folder, length="16it")
    assert trainings.count == 0
    assert again.tickets[1].origin.digest == search.tickets[1].origin.digest
    # The same as if the step had been given.
    fixed = prepare(levels=1, rewind="4it", rewind_mode=rewind_mode)
    fit(fixed, length="16it")
    assert fixed.tickets[1].start.digest == search.tickets[1].start.digest


def test_dead_certain_training_is_stable_from_the_start(tmp_path):
    """Copies that cannot differ: all data in every batch."""
    x, y = toy.digits(40)
    search = prepare(levels=0, rewind="auto")
    search.fit(
        x,
        y,
        batch_size=40,
        length="8it",
        evaluate_every=4,
        validation_data=toy.digits(50, seed=2),
        run_dir=tmp_path / "run",
        verbose=False,
    )
    record = RunDirectory.open(tmp_path / "run").load_rewind()
    assert record["step"] == 0
    assert all(abs(barrier) < 0.02 for barrier in record["barriers"].values())


TINY = {"length": "20it", "levels": 1, "evaluate_every": 10}


@pytest.mark.slow
def test_a_run_is_connected_level_by_level(tmp_path, monkeypatch):
    three = functools.partial(stability.interpolate, points=3)
    monkeypatch.setattr(stability, "interpolate", three)
    config = experiment.Config().replace(
        {**TINY, "controls": "data_order", "model_options": {"units": [9, 5]}}
    )
    directory = experiment.run_experiment(config, tmp_path / "r", verbose=False)
    lines = list(experiment.interpolate(directory))
    assert [levels for *levels, _ in lines] == [[0, 0], [0, 1]]
    for _, _, line in lines:
        assert line.errors.keys() == {"train", "validation", "test"}
        assert all(0 <= e <= 1 for e in line.errors["test"])
    monkeypatch.setattr(stability, "interpolate", None)  # lines are stored
    again = list(experiment.interpolate(RunDirectory.open(tmp_path / "r"), 1))
    assert again == lines[1:]
    with pytest.raises(ValueError, match="Unknown level.*'3'"):
        list(experiment.interpolate(directory, 3))


@pytest.mark.slow
def test_a_run_without_copies_says_how_to_get_them(tmp_path):
    config = experiment.Config().replace({**TINY, "levels": 0, "controls": ""})
    directory = experiment.run_experiment(config, tmp_path / "r", verbose=False)
    with pytest.raises(ValueError, match="--controls data_order"):
        list(experiment.interpolate(directory))


def test_a_search_is_no_run_of_a_preset(tmp_path):
    fit(prepare(levels=0), tmp_path / "run", length="2it", evaluate_every=1)
    directory = RunDirectory.open(tmp_path / "run")
    with pytest.raises(ValueError, match="Use stability.interpolate"):
        list(experiment.interpolate(directory))


@pytest.mark.slow
def test_fine_tuning_goes_on_with_the_optimizer(tmp_path):
    settings = {"levels": 2, "rewind_mode": "nothing"}
    search = prepare(**settings)
    fit(search, tmp_path / "run", length="16it")
    before, ticket = search.tickets[1:]
    for path, mask in ticket.masks.items():
        kept = np.where(mask, before.trained[path], 0)
        assert np.array_equal(ticket.start.weights[path], kept)
    assert ticket.start.step == 0
    assert ticket.start.slots["iteration"] == 32
    assert any(
        np.any(slot)
        for name, slot in ticket.start.slots.items()
        if "momentum" in name
    )
    again = prepare(**settings)
    for folder in (tmp_path / "run/replicate_0/level_2/ticket").iterdir():
        folder.unlink()
    fit(again, tmp_path / "run", length="16it")
    assert again.tickets[2].start.digest == ticket.start.digest
    assert toy.same(again.tickets[2].trained, ticket.trained)


@pytest.mark.slow
def test_fine_tuning_in_a_sweep_is_fine_tuning_alone(tmp_path):
    config = experiment.Config().replace({**TINY, "controls": ""})
    configs = experiment.expand(config, {"rewind_mode": ["weights", "nothing"]})
    _, tuned = experiment.run_sweep(configs, tmp_path / "s", verbose=False)
    alone = experiment.run_experiment(
        configs["rewind_mode=nothing"], tmp_path / "a", verbose=False
    )
    one, other = (run.ticket(0, 1) for run in (tuned, alone))
    assert one.start.slots["iteration"] == 20
    assert one.start.digest == other.start.digest
    assert toy.same(one.trained, other.trained)


def test_a_barrier_needs_accuracy():
    trainer = toy.trainer(metrics=())
    with pytest.raises(ValueError, match=r'compile\(..., metrics=\["accuracy'):
        trainer.errors(trainer.state.weights)


def test_the_copy_that_decides_is_not_the_one_that_is_shown(tmp_path):
    settings = {"levels": 1, "rewind": "auto", "controls": ["data_order"]}
    search = prepare(**settings)
    fit(search, tmp_path / "run", length="8it", evaluate_every=4)
    dense = {r.variant: r for r in search.records if r.level == 0}
    step = RunDirectory.open(tmp_path / "run").load_rewind()["step"]
    probe, shown = dense[f"probe_{step}"], dense["data_order"]
    assert probe.digests["start"] == shown.digests["start"]
    assert probe.digests["trained"] != shown.digests["trained"]


@pytest.mark.slow
def test_learning_rate_rewinding_restarts_random_streams():
    search = prepare(
        toy.mlp(dropout=0.3), levels=1, rewind_mode="learning_rate"
    )
    fit(search, length="8it", evaluate_every=4)
    dense, ticket = search.tickets
    streams = [p for p in dense.trained if p.endswith("seed_generator_state")]
    assert streams
    for path, value in ticket.start.weights.items():
        where = dense.origin.weights if path in streams else dense.trained
        kept = ticket.masks.get(path, True)
        assert np.array_equal(value, where[path] * kept)

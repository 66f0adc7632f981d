"""Experiments: settings, presets, optimizers, runs and sweeps."""

import csv
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
import sample_searches
from tfds_copies import prepare_small_copy

from tf_lottery import experiment, masking
from tf_lottery.core.errors import UserError
from tf_lottery.experiment import presets
from tf_lottery.experiment.config import Config
from tf_lottery.experiment.optimizer import optimizer
from tf_lottery.experiment.preparation import Preparer, build_trainer
from tf_lottery.training import Job, plan

TINY = Config().replace(
    {"length": "40it", "levels": 1, "evaluate_every": 20, "rate": 0.5}
)

DIGESTS = {
    "{}": "44136fa355b3",
    '{"rate": 0.1}': "d1723cd57b88",
    '{"levels": 3, "replicates": 5, "controls": "shuffle"}': "44136fa355b3",
    '{"length": "8000it", "rates": {"output": 0.1}}': "ecfc6c0df8f6",
}


def test_names_of_runs_never_change():
    import json

    digests = {
        text: Config().replace(json.loads(text)).digest for text in DIGESTS
    }
    assert digests == DIGESTS


def test_only_what_differs_from_the_default_determines_the_name():
    config = Config().replace({"rate": 0.1, "levels": 3, "batch_size": 60})
    assert config.fingerprint() == {"rate": 0.1}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rate", "0.1", 0.1),
        ("batch_size", "128", 128),
        ("controls", "reinit,shuffle", ("reinit", "shuffle")),
        ("controls", "", ()),
        ("rates", '{"output": 0.1}', {"output": 0.1}),
        ("optimizer", "sgd", "sgd"),
        ("learning_rate", "1", 1.0),
    ],
)
def test_settings_are_read_from_text(name, text, value):
    assert getattr(Config().replace({name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("batchsize", "1", "Unknown setting 'batchsize'.*'batch_size'"),
        ("batch_size", "many", "`batch_size` must be a whole number"),
        ("batch_size", "1.5", "`batch_size` must be a whole number"),
        ("rate", "high", "`rate` must be a number"),
        ("rates", "0.1", "`rates` must be a mapping"),
        ("length", "100", "is not a length of training"),
    ],
)
def test_wrong_settings_are_refused(name, text, message):
    with pytest.raises(UserError, match=message):
        Config().replace({name: text})


def test_the_paper_scale_is_the_papers_lenet():
    config = presets.get("lenet_mnist", "paper")
    assert config.optimizer == "adam"
    assert config.learning_rate == 1.2e-3
    assert config.batch_size == 60
    assert config.length == "50000it"
    assert config.evaluate_every == 100
    assert (config.rate, config.rates) == (0.2, {"output": 0.1})
    assert (config.allocation, config.rewind) == ("layerwise", "0it")
    assert config.replicates == 5


# By level, in percent: what the paper's rates come to, as on its axes.
DENSITIES = {
    "lenet_mnist": {1: 80.04, 3: 51.28, 7: 21.07, 15: 3.58, 21: 0.96},
    "conv_2_cifar10": {1: 80.10, 3: 51.41, 7: 21.23, 11: 8.81, 21: 1.02},
    "conv_4_cifar10": {1: 81.08, 4: 43.63, 12: 9.18, 21: 2.01},
    "conv_6_cifar10": {1: 82.54, 7: 26.61, 10: 15.29, 21: 2.13},
    "resnet_18_cifar10": {2: 64.43, 4: 41.66, 6: 27.09, 10: 11.79, 16: 3.96},
    "vgg_19_cifar10": {1: 80.01, 6: 26.23, 15: 3.54, 19: 1.47, 24: 0.50},
}


@pytest.mark.parametrize("name", presets.PRESETS)
@pytest.mark.parametrize("scale", ["quick", "paper"])
def test_every_preset_prunes_its_network_to_its_last_level(name, scale):
    from tf_lottery import models
    from tf_lottery.lottery import search
    from tf_lottery.pruning import rates

    config = presets.get(name, scale)
    model = models.build_model(config.model, **config.model_options)
    masks = masking.get_masks(model)
    how = search.Pruning(
        config.levels,
        rates.rates_by_path(masking.kernels(model), config.rate, config.rates),
        allocation=config.allocation,
    )
    whole = sum(masks[p].size for p, rate in how.rates.items() if not rate)
    total = sum(mask.size for mask in masks.values())
    for level in range(config.levels + 1):
        kept = search.budgets(masks, how, level)
        assert min(kept.values()) >= 1
        if scale == "paper" and level in DENSITIES[name]:
            share = 100 * (whole + sum(kept.values())) / total
            assert round(share, 2) == DENSITIES[name][level]
    if (name, scale) == ("lenet_mnist", "paper"):
        assert sum(kept.values()) == 2556


SETTINGS = {
    "conv_2_cifar10": ("adam", 2e-4, 0.0, 60, "20000it", 0.0, "layerwise"),
    "conv_4_cifar10": ("adam", 3e-4, 0.0, 60, "25000it", 0.0, "layerwise"),
    "conv_6_cifar10": ("adam", 3e-4, 0.0, 60, "30000it", 0.0, "layerwise"),
    "resnet_18_cifar10": ("sgd", 0.03, 0.9, 128, "30000it", 1e-4, "global"),
    "vgg_19_cifar10": ("sgd", 0.1, 0.9, 64, "160ep", 1e-4, "global"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_paper_scale_is_the_papers(name):
    c = presets.get(name, "paper")
    assert SETTINGS[name] == (
        c.optimizer,
        c.learning_rate,
        c.momentum,
        c.batch_size,
        c.length,
        c.weight_decay,
        c.allocation,
    )


def test_published_runs_are_recognized_by_their_settings():
    paper = dataclasses.asdict(presets.get("conv_2_cifar10", "paper"))
    assert presets.is_published(paper)
    assert presets.is_published({**paper, "seed": 3, "levels": 2})
    assert not presets.is_published({**paper, "learning_rate": 0.1})
    assert not presets.is_published({})
    quick = dataclasses.asdict(presets.get("lenet_mnist", "quick"))
    assert not presets.is_published(quick)


def test_the_rate_warms_up_and_falls_to_a_tenth_at_each_milestone():
    config = presets.get("vgg_19_cifar10", "paper")
    sgd = optimizer(config, steps_per_epoch=703)
    assert sgd.momentum == 0.9
    schedule = sgd._learning_rate
    for step, expected in (
        (0, 0.0),
        (1, 0.1 / 10_000),
        (5_000, 0.05),
        (10_000, 0.1),
        (56_239, 0.1),
        (56_240, 0.01),
        (84_360, 0.001),
        (112_479, 0.001),
    ):
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5)
        again = type(schedule).from_config(schedule.get_config())
        assert float(again(step)) == float(schedule(step))
    assert float(sgd.learning_rate) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.9}, "`momentum` is for the optimizer 'sgd'"),
        (
            {"optimizer": "sgd", "milestones": ("20it", "10it")},
            r"`milestones` must rise; got steps \[20, 10\]",
        ),
    ],
)
def test_impossible_optimizers_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        optimizer(Config().replace(settings), 10)


@pytest.mark.slow
def test_weight_decay_shrinks_kernels_by_its_share_of_the_rate():
    """PyTorch's: the gradient of a kernel grows by weight_decay · w."""
    ends = {}
    for decay in (0.0, 0.5):
        config = Config(
            optimizer="sgd",
            learning_rate=0.1,
            length="1it",
            weight_decay=decay,
            model_options={"units": (4,)},
        )
        trainer = build_trainer(config)
        start = trainer.initial(trainer.model, 0)
        ones = masking.get_masks(trainer.model)
        (run,) = trainer.train([Job(start, ones)])
        ends[decay] = run.trained
    for path, start_value in start.weights.items():
        shrunk = 0.1 * 0.5 * start_value if path.endswith("kernel") else 0.0
        np.testing.assert_allclose(
            ends[0.5][path], ends[0.0][path] - shrunk, atol=1e-6
        )


def test_a_penalised_network_is_not_trained_without_its_penalty():
    config = Config(weight_decay=0.5)
    trainer = build_trainer(config)
    none = {
        path: np.zeros(mask.shape, bool)
        for path, mask in masking.get_masks(trainer.model).items()
    }
    assert "kernel_regularizer" in plan.why_not_sparse(trainer, [none])


def test_an_unknown_preset_or_scale_lists_the_known():
    with pytest.raises(ValueError, match="Did you mean 'lenet_mnist'"):
        presets.get("lenet_mnis", "quick")
    with pytest.raises(ValueError, match="Known: quick, paper"):
        presets.get("lenet_mnist", "huge")


@pytest.mark.slow
def test_an_experiment_runs_every_replicate_under_its_own_seed(tmp_path):
    config = TINY.replace({"replicates": 2, "controls": "reinit,shuffle"})
    directory = experiment.run_experiment(
        config, tmp_path / "run", "toy", verbose=False
    )
    with open(tmp_path / "run" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(r["replicate"], r["level"], r["variant"]) for r in rows] == [
        (replicate, level, variant)
        for replicate in "01"
        for level, variant in (
            ("0", "ticket"),
            ("1", "ticket"),
            ("1", "reinit"),
            ("1", "shuffle"),
        )
    ]
    starts = {
        record.digests["start"]
        for record in directory.records()
        if record.variant != "shuffle"
    }
    assert len(starts) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "lenet"}, "Unknown model.*lenet_300_100"),
        ({"dataset": "mnits"}, "Did you mean 'mnist'"),
        ({"optimizer": "adamm"}, "Unknown optimizer 'adamm'"),
        ({"controls": "reinits"}, "Did you mean 'reinit'"),
        ({"replicates": 0}, "`replicates` must be a whole number of 1 or more"),
        ({"learning_rate": 0}, "`learning_rate` must be above 0"),
        ({"batch_size": 60_000}, "only 55000 training examples"),
        ({"initial_weights": "/nowhere/w.keras"}, "No file '/nowhere/w.keras'"),
    ],
)
def test_wrong_settings_are_refused_before_anything_trains(
    settings, message, tmp_path
):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        experiment.run_experiment(
            TINY.replace(settings), tmp_path / "run", verbose=False
        )
    assert not list(tmp_path.rglob("trained"))


FASHION = TINY.replace(
    {"dataset": "fashion_mnist", "batch_size": 10, "controls": ""}
)


def records_of(folder):
    return {p: p.read_bytes() for p in folder.rglob("record.json")}


@pytest.mark.slow
def test_a_run_follows_its_data_to_another_folder(tmp_path):
    old, new, run = (tmp_path / n for n in ("old", "new", "run"))
    prepare_small_copy("fashion_mnist", old)
    experiment.run_experiment(FASHION, run, verbose=False, data_dir=old)
    before = records_of(run)
    assert len(before) == 3  # of theta_0 and two networks
    shutil.move(old, new)
    experiment.run_experiment(FASHION, run, verbose=False, data_dir=new)
    assert records_of(run) == before  # with the seconds that it took


@pytest.mark.slow
def test_a_run_refuses_other_data_of_the_same_name(tmp_path):
    run = tmp_path / "run"
    for train in (40, 50):
        sizes = {"train": train, "test": 7}
        prepare_small_copy("fashion_mnist", tmp_path / f"{train}", sizes)
    experiment.run_experiment(
        FASHION, run, verbose=False, data_dir=tmp_path / "40"
    )
    before = records_of(run)
    with pytest.raises(ValueError, match="holds another config.*: data is"):
        experiment.run_experiment(
            FASHION, run, verbose=False, data_dir=tmp_path / "50"
        )
    assert records_of(run) == before


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"rate": 0.1}, [""]),
        ({"rate": "[0.1, 0.2]"}, ["rate=0.1", "rate=0.2"]),
        ({"optimizer": ["adam", "sgd"]}, ["optimizer=adam", "optimizer=sgd"]),
        ({"controls": ["reinit", "shuffle"]}, [""]),
        ({"controls": [["reinit"], []]}, ["controls=reinit", "controls="]),
        (
            {"model_options": '[{"units": [25, 9]}, {"sigma": 0.1}]'},
            ["model_options=units=25-9", "model_options=sigma=0.1"],
        ),
        (
            {"rate": [0.1, 0.2], "length": ["2it", "1ep"], "seed": "3"},
            [
                "rate=0.1,length=2it",
                "rate=0.1,length=1ep",
                "rate=0.2,length=2it",
                "rate=0.2,length=1ep",
            ],
        ),
    ],
)
def test_lists_of_values_are_sweeps(settings, labels):
    assert list(experiment.expand(Config(), settings)) == labels


def test_a_sweep_of_one_value_twice_is_refused():
    with pytest.raises(ValueError, match="are both 'rate=0.1'"):
        experiment.expand(Config(), {"rate": [0.1, 0.1]})
    with pytest.raises(ValueError, match="looks like a list"):
        experiment.expand(Config(), {"rate": "[0.1, 0.2"})


@pytest.mark.slow
def test_networks_that_runs_of_a_sweep_share_are_trained_once(
    tmp_path, monkeypatch
):
    trainings = sample_searches.Trainings(monkeypatch)
    config = TINY.replace({"levels": 2, "controls": ""})
    settings = {"schedule": ["geometric", "one_shot"], "rewind": ["0it", "5it"]}
    configs = experiment.expand(config, settings)
    runs = experiment.run_sweep(configs, tmp_path / "s", verbose=False)
    # The dense network; level 1 of both steps k, and level 2 of both schedules.
    assert trainings.count == 1 + 2 + 2 * 2
    assert all(len(results(run)) == 3 for run in runs)
    for run, each in [*zip(runs, configs.values(), strict=True)][1:3]:
        alone = experiment.run_experiment(
            each, tmp_path / "alone" / run.name, verbose=False
        )
        for one, other in zip(run.records(), alone.records(), strict=True):
            assert one.digests == other.digests
            for name, values in one.curve.items():
                # Losses are summed up to where a state is captured.
                np.testing.assert_allclose(values, other.curve[name], 1e-6)
    before = trainings.count
    experiment.run_sweep(configs, tmp_path / "s", verbose=False)
    assert trainings.count == before
    assert list(experiment.members(tmp_path / "s")) == sorted(configs)


def results(run):
    with open(pathlib.Path(run.address) / "results.csv") as file:
        return list(csv.DictReader(file))


def test_experiments_that_train_alike_share_a_trainer():
    preparer = Preparer()
    one, other = (
        preparer.prepare(TINY.replace({"rate": rate})) for rate in (0.1, 0.2)
    )
    assert one.trainer is other.trainer
    unlike = preparer.prepare(TINY.replace({"learning_rate": 0.1}))
    assert unlike.trainer is not one.trainer


@pytest.mark.slow
def test_runs_with_other_training_settings_share_nothing(tmp_path, monkeypatch):
    trainings = sample_searches.Trainings(monkeypatch)
    config = TINY.replace({"levels": 0, "controls": ""})
    configs = experiment.expand(config, {"learning_rate": [1e-3, 2e-3]})
    one, two = experiment.run_sweep(configs, tmp_path / "s", verbose=False)
    assert trainings.count == 2
    assert one.records()[0].digests != two.records()[0].digests


def test_all_runs_of_a_sweep_are_checked_before_anything_trains(tmp_path):
    for settings, message in (
        ({"rewind": ["0it", "50it"]}, "Rewind to an earlier step"),
        ({"criterion": ["magnitude", "magnitud"]}, "Did you mean 'magnitude'"),
    ):
        configs = experiment.expand(TINY, settings)
        with pytest.raises(ValueError, match=message):
            experiment.run_sweep(configs, tmp_path / "s", verbose=False)
        assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_a_sweep_does_not_go_into_another_one(tmp_path):
    folder = tmp_path / "s"

    def sweep(config, **settings):
        """Begins all of its runs, and trains none."""
        configs = experiment.expand(config, settings)
        no_replicate = experiment.Shard(98, 99)
        experiment.run_sweep(configs, folder, verbose=False, shard=no_replicate)

    sweep(TINY, rate=[0.1, 0.2])
    before = sorted(folder.rglob("*"))
    for config, settings, message in (
        (TINY, {"seed": [0, 1]}, "holds a sweep of rate, and .* one of seed"),
        (
            TINY.replace({"batch_size": 30}),
            {"rate": [0.3, 0.4]},
            "under another setting of batch_size",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            sweep(config, **settings)
    assert sorted(folder.rglob("*")) == before
    # It may grow: by values, and by what any run grows by.
    sweep(TINY.replace({"replicates": 2}), rate=[0.2, 0.3])
    assert [*experiment.members(folder)] == [f"rate=0.{n}" for n in (1, 2, 3)]


@pytest.mark.slow
def test_a_sweep_does_not_go_into_a_run(tmp_path):
    config = TINY.replace({"levels": 0, "length": "2it"})
    experiment.run_experiment(config, tmp_path / "r", verbose=False)
    configs = experiment.expand(config, {"rate": [0.1, 0.2]})
    with pytest.raises(ValueError, match="holds a single run"):
        experiment.run_sweep(configs, tmp_path / "r", verbose=False)

"""Experiments: named settings, run and kept."""

import csv
import shutil

import pytest
from tfds_copies import prepare_small_copy

from tf_lottery import experiment
from tf_lottery.experiment import presets
from tf_lottery.experiment.config import Config

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

    found = {
        text: Config().replace(json.loads(text)).digest for text in DIGESTS
    }
    assert found == DIGESTS


def test_only_what_differs_from_the_default_determines_the_name():
    config = Config().replace({"rate": 0.1, "levels": 3, "batch_size": 60})
    assert config.identity() == {"rate": 0.1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (("rate", "0.1"), 0.1),
        (("batch_size", "128"), 128),
        (("controls", "reinit,shuffle"), ("reinit", "shuffle")),
        (("controls", ""), ()),
        (("rates", '{"output": 0.1}'), {"output": 0.1}),
        (("optimizer", "sgd"), "sgd"),
        (("learning_rate", "1"), 1.0),
    ],
)
def test_settings_are_read_from_text(text, value):
    name, given = text
    assert getattr(Config().replace({name: given}), name) == value


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("batchsize", "1", "Unknown setting 'batchsize'.*'batch_size'"),
        ("batch_size", "many", "`batch_size` must be a whole number"),
        ("batch_size", "1.5", "`batch_size` must be a whole number"),
        ("rate", "high", "`rate` must be a number"),
        ("rates", "0.1", "`rates` must be a mapping"),
        ("length", "100", "is not a length of training"),
    ],
)
def test_wrong_settings_are_refused(name, given, message):
    with pytest.raises(ValueError, match=message):
        Config().replace({name: given})


def test_the_paper_scale_is_the_papers_lenet():
    config = presets.find("lenet_mnist", "paper")
    assert config.optimizer == "adam"
    assert config.learning_rate == 1.2e-3
    assert config.batch_size == 60
    assert config.length == "50000it"
    assert config.evaluate_every == 100
    assert (config.rate, config.rates) == (0.2, {"output": 0.1})
    assert (config.allocation, config.rewind) == ("layerwise", "0it")
    assert config.replicates == 5


@pytest.mark.parametrize("name", presets.PRESETS)
@pytest.mark.parametrize("scale", ["quick", "paper"])
def test_every_preset_prunes_its_network_to_its_last_level(name, scale):
    from tf_lottery import masking, models, search
    from tf_lottery.pruning import rates
    from tf_lottery.tickets import Ticket
    from tf_lottery.training import State

    config = presets.find(name, scale)
    model = models.build_model(config.model)
    masks = masking.get_masks(model)
    how = search.Pruning(
        config.levels,
        rates.rates_by_path(masking.kernels(model), config.rate, config.rates),
    )
    dense = Ticket(level=0, masks=masks, origin=State(0, {}, {}))
    for level in range(config.levels + 1):
        kept = search.budgets(dense, how, level)
        assert min(kept.values()) >= 1
    if (name, scale) == ("lenet_mnist", "paper"):
        assert sum(kept.values()) == 2556


def test_an_unknown_preset_or_scale_lists_the_known():
    with pytest.raises(ValueError, match="Did you mean 'lenet_mnist'"):
        presets.find("lenet_mnis", "quick")
    with pytest.raises(ValueError, match="Known: quick, paper"):
        presets.find("lenet_mnist", "huge")


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
        ({"replicates": 0}, "`replicates` must be 1 or more"),
        ({"learning_rate": 0}, "`learning_rate` must be above 0"),
        ({"batch_size": 60_000}, "only 55000 training examples"),
        ({"theta_0": "/nowhere/w.keras"}, "No file '/nowhere/w.keras'"),
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


def test_a_run_follows_its_data_to_another_folder(tmp_path):
    here, there, run = (tmp_path / n for n in ("here", "there", "run"))
    prepare_small_copy("fashion_mnist", here)
    experiment.run_experiment(FASHION, run, verbose=False, data_dir=here)
    before = records_of(run)
    assert len(before) == 2
    shutil.move(here, there)
    experiment.run_experiment(FASHION, run, verbose=False, data_dir=there)
    assert records_of(run) == before  # with the seconds that it took


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

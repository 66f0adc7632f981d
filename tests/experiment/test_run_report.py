"""From a run directory to its report, of runs and of sweeps."""

import functools
import pathlib
import shutil

import pytest

from tf_lottery import experiment
from tf_lottery.experiment import report
from tf_lottery.lottery import stability
from tf_lottery.runs.run_directory import RunDirectory

TINY = experiment.Config().replace(
    {
        "model_options": {"units": [9, 5]},
        "length": "60it",
        "evaluate_every": 20,
        "levels": 2,
        "rate": 0.5,
        "controls": "",
    }
)


def pictures(folder):
    return {path.name for path in (folder / "figures").iterdir()}


@pytest.fixture(scope="module")
def stable_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stable") / "run"
    config = TINY.replace({"controls": "data_order,reinit*2", "rewind": "20it"})
    directory = experiment.run_experiment(config, folder, verbose=False)
    three = functools.partial(stability.interpolate, points=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stability, "interpolate", three)
        lines = list(experiment.interpolate(directory))
    return directory, lines


@pytest.mark.slow
def test_copies_of_the_dense_network_are_not_held_against_it(stable_run):
    directory, _ = stable_run
    rows = directory.records()
    assert (0, "data_order") in {(r.level, r.variant) for r in rows}
    lines = report.write(directory.address)
    head, dense, *others, _ = lines[0].splitlines()
    assert len(others) == 2
    named = [word for word in head.split() if word.endswith(":")]
    assert named == ["ticket:", "data_order:", "reinit:"]
    # Of the dense network there is one.
    assert len(dense.split()) == 6


@pytest.mark.slow
def test_barriers_are_drawn_where_they_were_measured(stable_run):
    directory, measured = stable_run
    assert [level for _, level, _ in measured] == [0, 1, 2]
    report.write(directory.address)
    path = pathlib.Path(directory.address)
    assert {"connectivity.png", "connectivity.svg"} <= pictures(path)
    page = (path / "report.html").read_text()
    assert "Two copies trained under different orders" in page
    assert "The run is under way" not in page


def report_under(path, metadata):
    """Returns the report of a run that was continued with other metadata."""
    fingerprint = RunDirectory.open(path).config["fingerprint"]
    with RunDirectory.open_or_create(path, fingerprint, metadata).owned():
        pass
    report.write(path)
    return (pathlib.Path(path) / "report.html").read_text()


@pytest.mark.slow
def test_a_run_that_misses_a_draw_is_under_way(stable_run, tmp_path):
    directory, _ = stable_run
    settings = {**TINY_SETTINGS, "controls": ["data_order", "reinit*3"]}
    metadata = {**directory.config["metadata"], "settings": settings}
    page = report_under(directory.address, metadata)
    assert "The run is under way: 11 are planned" in page


@pytest.mark.slow
@pytest.mark.parametrize(("gpu", "asks"), [("none", False), ("A100", True)])
def test_the_command_asks_for_the_same_bytes_where_they_cost(
    stable_run, tmp_path, gpu, asks
):
    directory, _ = stable_run
    shutil.copytree(directory.address, tmp_path / "run")
    metadata = {
        **directory.config["metadata"],
        "preset": "lenet_mnist",
        "hardware": {"GPU": gpu},
        "deterministic": True,
    }
    page = report_under(tmp_path / "run", metadata)
    assert ("--deterministic" in page) == asks


TINY_SETTINGS = {"replicates": 1, "levels": 2}


@pytest.mark.slow
def test_a_sweep_is_reported_as_one(tmp_path):
    configs = experiment.expand(TINY, {"rate": [0.5, 0.75]})
    experiment.run_sweep(configs, tmp_path / "s", verbose=False)
    lines = report.write(tmp_path / "s")
    assert [line for line in lines if line in configs] == list(configs)
    assert lines[-1] == str(tmp_path / "s" / "report.html")
    page = (tmp_path / "s" / "report.html").read_text()
    for label in configs:
        assert f'href="./{label}/report.html"' in page
        assert (tmp_path / "s" / label / "report.html").exists()
    assert {"accuracy.png", "early_stop_step.svg"} <= pictures(tmp_path / "s")


def test_what_holds_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        report.write(tmp_path)
    config = TINY.replace({"levels": 0})
    directory = RunDirectory.open_or_create(
        tmp_path / "r", config.fingerprint(), {}
    )
    with pytest.raises(ValueError, match="holds no trained network"):
        report.write(directory.address)

"""A run directory from a stranger: one line that names the file."""

import os

import memory
import pytest
import sample_runs

from tf_lottery.core.errors import UserError
from tf_lottery.core.storage import sealed_json
from tf_lottery.experiment import report
from tf_lottery.runs import foreign_files

RECORD = "replicate_0/level_1/ticket/record.json"


@pytest.fixture
def run(tmp_path):
    directory = sample_runs.open_run(tmp_path / "run")
    sample_runs.fill(directory)
    directory.save_line(
        0,
        1,
        {
            "alphas": [0.0, 1.0],
            "errors": {"test": [0.1, 0.1]},
            "distance": 1.5,
            "between": ["0" * 64, "1" * 64],
        },
    )
    sample_runs.check_diverged_network(
        sample_runs.open_run(tmp_path / "other"),
        lambda: sample_runs.open_run(tmp_path / "other"),
    )
    return tmp_path / "run"


def refused(run, path):
    """Returns the line by which `report` refuses a run, naming a file."""
    before = sample_runs.tree(run)
    held, error = memory.peak(report.write, run)
    assert isinstance(error, UserError)
    line = str(error)
    assert line.isprintable()
    assert len(line) < len(str(path)) + 300
    assert repr(str(path)) in line
    assert held < 32 * 2**20
    # Nothing is written before all is checked.
    assert sample_runs.tree(run) == before
    return line


def test_what_runs_write_is_sound(run):
    foreign_files.require_no_links(run)
    foreign_files.require_no_links(run.parent)
    foreign_files.require_no_links(run / "missing")


def test_figures_are_not_written_through_a_link(run, tmp_path):
    (tmp_path / "precious").mkdir()
    (run / "figures").symlink_to(tmp_path / "precious")
    assert "is a link" in refused(run, run / "figures")
    assert not list((tmp_path / "precious").iterdir())


@pytest.mark.parametrize("name", ["config.json", RECORD, "report.html", "x"])
def test_no_file_is_read_or_written_through_a_link(run, name):
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to("/etc/passwd")
    assert "is a link" in refused(run, run / name)


def test_a_run_of_a_sweep_is_no_link(run):
    sweep = run.parent / "sweep"
    sweep.mkdir()
    (sweep / "rate=0.1").symlink_to(run)
    assert "is a link" in refused(sweep, sweep / "rate=0.1")


def test_a_pipe_is_not_waited_for(run):
    os.remove(run / RECORD)
    os.mkfifo(run / RECORD)
    assert "is a link, a pipe" in refused(run, run / RECORD)


def test_a_run_may_be_reached_through_a_link(run):
    (run.parent / "link").symlink_to(run)
    foreign_files.require_no_links(run.parent / "link")


def test_a_name_cannot_reach_the_terminal(run):
    sweep = run.parent / "sweep"
    (sweep / "a=\x1b[2J").mkdir(parents=True)
    assert r"a=\x1b[2J" in refused(sweep, sweep / "a=\x1b[2J")


def changed(path, *keys, value):
    content = sealed_json.unseal(path.read_bytes(), "")
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_bytes(sealed_json.seal(content))


def test_a_metric_may_have_several_values(run):
    content = sealed_json.unseal((run / RECORD).read_bytes(), "")
    content["row"]["f1"] = [0.5, float("nan"), None]
    content["curve"]["f1"] = [[0.5, 1]] * len(content["curve"]["loss"])
    foreign_files.record(content)


CHANGES = {
    "a row of another network": (RECORD, "row", "level", 2),
    "a record of another network": (RECORD, "network", "level", 2),
    "an endless level": (RECORD, "network", "level", 10**9),
    "a folder": (RECORD, "network", "variant", "../../../.."),
    "an escape": (RECORD, "network", "variant", "\x1b[31m"),
    "a list for a number": (RECORD, "row", "steps", [1]),
    "a number beyond floats": (RECORD, "row", "steps", 10**400),
    "seconds that are no number": (RECORD, "row", "seconds", float("nan")),
    "steps that are words": (RECORD, "row", "early_stop_step", "ticket"),
    "a density of nothing": (RECORD, "row", "density", 0),
    "no row": (RECORD, "row", None),
    "a curve of other lengths": (RECORD, "curve", "loss", [1, 2]),
    "a curve of words": (RECORD, "curve", "loss", ["a"]),
    "a metric of words": (RECORD, "row", "loss", [[1.0], ["a"]]),
    "no digests": (RECORD, "digests", {}),
    "a preset that is long": ("config.json", "metadata", "preset", "a" * 999),
    "settings of a list": ("config.json", "metadata", "settings", [1]),
    "replicates beyond time": ("config.json", "replicates", 10**9),
    "a path of words": (
        "replicate_0/level_1/line.json",
        "errors",
        {"test": ["a", "b"]},
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_of_other_content_is_refused(run, change):
    name, *keys, value = change
    changed(run / name, *keys, value=value)
    refused(run, run / name)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'"' + b"a" * 9_999],
)
@pytest.mark.parametrize("name", ["config.json", RECORD])
def test_a_file_that_is_no_json_of_a_run_is_refused(run, name, data):
    (run / name).write_bytes(data)
    refused(run, run / name)

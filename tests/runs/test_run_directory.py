"""A run directory is whole, refuses what it is not, and forgets nothing."""

import csv
import dataclasses
import json
import math
import os
import pathlib

import pytest
import sample_tickets
import toy
from sample_runs import (
    FINGERPRINT,
    directory,
    diverges_and_comes_back,
    fill,
    found_tickets,
    tree,
)

from tf_lottery.runs import layout, run_directory
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training import Diverged


def test_a_kept_run_is_given_back(tmp_path):
    kept = directory(tmp_path / "run")
    for ticket, run in fill(kept):
        loaded = kept.load(0, ticket)
        assert toy.same(loaded.trained, run.trained)
        assert toy.same(loaded.per_example, run.per_example)
        assert loaded.metrics == run.metrics
        assert loaded.curve == run.curve


def test_only_the_very_ticket_is_given_back(tmp_path):
    kept = directory(tmp_path / "run")
    (dense, _), *_ = fill(kept)
    assert kept.load(1, dense) is None
    other = sample_tickets.dense_ticket(seed=5)
    assert kept.load(0, other) is None


def test_every_file_keeps_pruned_weights_at_zero(tmp_path):
    kept = directory(tmp_path / "run")
    for ticket, _ in fill(kept):
        stored = kept.ticket(0, ticket.level)
        assert stored.masks == ticket.masks
        for weights in (stored.start.weights, stored.trained):
            for path, mask in ticket.masks.items():
                assert (weights[path][~mask] == 0).all()
                assert (weights[path][mask] != 0).all()


def test_results_have_one_row_per_network(tmp_path):
    fill(directory(tmp_path / "run"))
    with open(tmp_path / "run" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(layout.COLUMNS)
    assert [row["level"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["weights_kept"] == str(32 + 20)
    assert float(rows[1]["density"]) == (32 + 20) / 80
    assert rows[1]["preset"] == "toy"


def test_records_carry_digests_of_start_and_result(tmp_path):
    kept = directory(tmp_path / "run")
    found = fill(kept)
    for record, (ticket, _) in zip(kept.records(), found, strict=True):
        assert record.digests["masks"] == ticket.masks.digest
        assert record.digests["start"] == ticket.start.digest
        assert len(record.digests["trained"]) == 64


def test_the_same_configuration_opens_it_again(tmp_path):
    fill(directory(tmp_path / "run"))
    assert len(directory(tmp_path / "run").records()) == 3
    assert len(RunDirectory.open(tmp_path / "run").records()) == 3


def test_another_configuration_is_refused_by_name_and_harms_nothing(tmp_path):
    fill(directory(tmp_path / "run"))
    before = tree(tmp_path)
    other = {**FINGERPRINT, "optimizer": {"name": "sgd", "beta": [0.9]}}
    message = 'optimizer.name is "adam" there and "sgd" here'
    with pytest.raises(ValueError, match=message):
        directory(tmp_path / "run", other)
    with pytest.raises(ValueError, match="rate is 0.2 there and the default"):
        directory(tmp_path / "run", {"optimizer": FINGERPRINT["optimizer"]})
    assert tree(tmp_path) == before


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        directory(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Cannot write to .*another run"):
        directory(tmp_path / "file" / "run")


def test_no_run_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.json").write_text("{ half")
    with pytest.raises(ValueError, match="no readable config.json"):
        RunDirectory.open(tmp_path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    kept = directory(tmp_path / "run")
    (_, _), (ticket, run), _ = fill(kept)
    before = tree(tmp_path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("tf_lottery.runs.network_files.as_json", fail)
    with pytest.raises(OSError, match="disk full"):
        kept.save(0, ticket, run)
    assert tree(tmp_path) == before


def test_what_a_killed_process_left_half_written_does_no_harm(tmp_path):
    kept = directory(tmp_path / "run")
    (_, _), (ticket, run), _ = fill(kept)
    unfinished = tmp_path / "run/replicate_0/level_1/.ticket.unfinished"
    partial = unfinished / ".ticket.0123456789ab"
    partial.mkdir(parents=True)
    (partial / "record.json").write_text("{ half")
    assert len(kept.records()) == 3
    kept.save(0, ticket, run)
    assert not unfinished.exists()


def test_results_are_brought_up_to_date_when_a_run_is_opened(tmp_path):
    fill(directory(tmp_path / "run"))
    whole = (tmp_path / "run" / "results.csv").read_bytes()
    (tmp_path / "run" / "results.csv").unlink()
    directory(tmp_path / "run")
    assert (tmp_path / "run" / "results.csv").read_bytes() == whole


def test_a_damaged_file_is_named(tmp_path):
    kept = directory(tmp_path / "run")
    (ticket, _), *_ = fill(kept)
    file = tmp_path / "run/replicate_0/level_0/ticket/trained"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="level_0/ticket/trained.*damaged"):
        kept.load(0, ticket)


def test_the_report_and_its_figures_lie_in_the_directory(tmp_path):
    kept = directory(tmp_path / "run")
    run_directory.write_report(kept.path, "<p>hello", {"accuracy.png": b"png"})
    assert (tmp_path / "run/report.html").read_text() == "<p>hello"
    assert (tmp_path / "run/figures/accuracy.png").read_bytes() == b"png"


def test_config_says_what_determines_the_run(tmp_path):
    directory(tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config == {
        "fingerprint": FINGERPRINT,
        "metadata": {"preset": "toy"},
        "replicates": 1,
    }


def levels_in_results(path):
    with open(path / "run" / "results.csv") as file:
        return [row["level"] for row in csv.DictReader(file)]


def test_results_hold_what_every_process_kept(tmp_path):
    one, other = directory(tmp_path / "run"), directory(tmp_path / "run")
    (dense, *_, last) = found_tickets()
    one.save(0, *dense)
    other.save(0, *last)
    assert levels_in_results(tmp_path) == ["0", "2"]


def test_results_miss_nothing_kept_while_they_were_written(
    tmp_path, monkeypatch
):
    one, other = directory(tmp_path / "run"), directory(tmp_path / "run")
    (dense, *_, last) = found_tickets()
    real = run_directory.array_file.write_bytes

    def write(path, content):
        if path.name == "results.csv":
            monkeypatch.setattr(run_directory.array_file, "write_bytes", real)
            other.save(0, *last)
        real(path, content)

    monkeypatch.setattr(run_directory.array_file, "write_bytes", write)
    one.save(0, *dense)
    assert levels_in_results(tmp_path) == ["0", "2"]


def test_results_follow_a_network_that_another_process_trained_anew(tmp_path):
    one, other = directory(tmp_path / "run"), directory(tmp_path / "run")
    (dense, run), (ticket, _), _ = found_tickets()
    one.save(0, dense, run)
    better = {**run.metrics, "test_accuracy": 0.5}
    other.save(0, dense, dataclasses.replace(run, metrics=better))
    one.save(0, ticket, run)
    with open(tmp_path / "run" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["test_accuracy"] for row in rows] == ["0.5", "0.25"]


def write_text(text, meanwhile=lambda: None):
    def write(prefix):
        meanwhile()
        prefix.write_text(text)

    return write


@pytest.mark.parametrize(("step", "kept"), [(0, "other"), (5, "one")])
def test_the_first_theta_0_and_the_last_theta_k_stay(tmp_path, step, kept):
    one, other = directory(tmp_path / "run"), directory(tmp_path / "run")

    def meanwhile():
        other.save_checkpoint(0, step, write_text("other"))

    one.save_checkpoint(0, step, write_text("one", meanwhile))
    assert one.load_checkpoint(0, step, pathlib.Path.read_text) == kept
    folder = tmp_path / "run" / "replicate_0"
    assert os.listdir(folder) == [f"theta_{step}"]


def test_a_run_that_another_process_is_just_beginning_is_no_stranger(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.0123456789ab").write_text("{")
    assert directory(tmp_path / "run").records() == []


def test_what_diverged_is_kept_in_place_of_a_record(tmp_path):
    kept = directory(tmp_path / "run")
    diverges_and_comes_back(kept, lambda: directory(tmp_path / "run"))


def test_a_siblings_divergence_is_taken_over(tmp_path):
    theirs = directory(tmp_path / "theirs")
    (dense, _), *_ = found_tickets()
    theirs.save_diverged(0, dense, Diverged(0, 10, math.nan))
    kept = RunDirectory.open_or_create(
        tmp_path / "own", FINGERPRINT, {"preset": "toy"}, reusable_runs=[theirs]
    )
    assert kept.load_diverged(0, dense).last == 10
    assert len(directory(tmp_path / "own").diverged()) == 1

"""Run directories: what they store, and what they refuse."""

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
    check_diverged_network,
    fill,
    open_run,
    trained_tickets,
    tree,
)

from tf_lottery.runs import layout, run_directory
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training import Diverged


def test_a_saved_network_is_loaded_unchanged(tmp_path):
    directory = open_run(tmp_path / "run")
    for ticket, result in fill(directory):
        loaded = directory.load(0, ticket)
        assert toy.same(loaded.trained, result.trained)
        assert toy.same(loaded.per_example, result.per_example)
        assert loaded.metrics == result.metrics
        assert loaded.curve == result.curve


def test_a_network_is_loaded_for_the_same_ticket_only(tmp_path):
    directory = open_run(tmp_path / "run")
    (dense, _), *_ = fill(directory)
    assert directory.load(1, dense) is None
    other = sample_tickets.dense_ticket(seed=5)
    assert directory.load(0, other) is None


def test_every_file_keeps_pruned_weights_at_zero(tmp_path):
    directory = open_run(tmp_path / "run")
    for ticket, _ in fill(directory):
        stored = directory.ticket(0, ticket.level)
        assert stored.masks == ticket.masks
        for weights in (stored.start.weights, stored.trained):
            for path, mask in ticket.masks.items():
                assert (weights[path][~mask] == 0).all()
                assert (weights[path][mask] != 0).all()


def test_results_have_one_row_per_network(tmp_path):
    fill(open_run(tmp_path / "run"))
    with open(tmp_path / "run" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(layout.COLUMNS)
    assert [row["level"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["weights_kept"] == str(32 + 20)
    assert float(rows[1]["density"]) == (32 + 20) / 80
    assert rows[1]["preset"] == "toy"


def test_records_carry_digests_of_start_and_result(tmp_path):
    directory = open_run(tmp_path / "run")
    trained = fill(directory)
    for record, (ticket, _) in zip(directory.records(), trained, strict=True):
        assert record.digests["masks"] == ticket.masks.digest
        assert record.digests["start"] == ticket.start.digest
        assert len(record.digests["trained"]) == 64


def test_a_run_is_opened_again_with_the_same_configuration(tmp_path):
    fill(open_run(tmp_path / "run"))
    assert len(open_run(tmp_path / "run").records()) == 3
    assert len(RunDirectory.open(tmp_path / "run").records()) == 3


def test_another_configuration_is_refused_by_the_setting_that_differs(tmp_path):
    fill(open_run(tmp_path / "run"))
    before = tree(tmp_path)
    other = {**FINGERPRINT, "optimizer": {"name": "sgd", "beta": [0.9]}}
    message = 'optimizer.name is "adam" there and "sgd" here'
    with pytest.raises(ValueError, match=message):
        open_run(tmp_path / "run", other)
    with pytest.raises(ValueError, match="rate is 0.2 there and the default"):
        open_run(tmp_path / "run", {"optimizer": FINGERPRINT["optimizer"]})
    assert tree(tmp_path) == before


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        open_run(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Cannot write to .*another run"):
        open_run(tmp_path / "file" / "run")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.json").write_text("{ half")
    with pytest.raises(ValueError, match="no readable config.json"):
        RunDirectory.open(tmp_path)


def test_a_write_that_fails_changes_nothing(tmp_path, monkeypatch):
    directory = open_run(tmp_path / "run")
    (_, _), (ticket, result), _ = fill(directory)
    before = tree(tmp_path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("tf_lottery.runs.network_files.as_json", fail)
    with pytest.raises(OSError, match="disk full"):
        directory.save(0, ticket, result)
    assert tree(tmp_path) == before


def test_files_that_a_killed_process_left_are_ignored(tmp_path):
    directory = open_run(tmp_path / "run")
    (_, _), (ticket, result), _ = fill(directory)
    unfinished = tmp_path / "run/replicate_0/level_1/.ticket.unfinished"
    partial = unfinished / ".ticket.0123456789ab"
    partial.mkdir(parents=True)
    (partial / "record.json").write_text("{ half")
    assert len(directory.records()) == 3
    directory.save(0, ticket, result)
    assert not unfinished.exists()


def test_results_are_written_when_a_run_is_opened(tmp_path):
    fill(open_run(tmp_path / "run"))
    expected = (tmp_path / "run" / "results.csv").read_bytes()
    (tmp_path / "run" / "results.csv").unlink()
    open_run(tmp_path / "run")
    assert (tmp_path / "run" / "results.csv").read_bytes() == expected


def test_a_damaged_file_is_named(tmp_path):
    directory = open_run(tmp_path / "run")
    (ticket, _), *_ = fill(directory)
    file = tmp_path / "run/replicate_0/level_0/ticket/trained"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="level_0/ticket/trained.*damaged"):
        directory.load(0, ticket)


def test_the_report_and_its_figures_are_written_to_the_directory(tmp_path):
    directory = open_run(tmp_path / "run")
    run_directory.write_report(
        directory.path, "<p>hello", {"accuracy.png": b"png"}
    )
    assert (tmp_path / "run/report.html").read_text() == "<p>hello"
    assert (tmp_path / "run/figures/accuracy.png").read_bytes() == b"png"


def test_config_holds_the_fingerprint(tmp_path):
    open_run(tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config == {
        "fingerprint": FINGERPRINT,
        "metadata": {"preset": "toy"},
        "replicates": 1,
    }


def levels_in_results(path):
    with open(path / "run" / "results.csv") as file:
        return [row["level"] for row in csv.DictReader(file)]


def test_results_hold_the_networks_of_all_processes(tmp_path):
    one, other = open_run(tmp_path / "run"), open_run(tmp_path / "run")
    (dense, *_, last) = trained_tickets()
    one.save(0, *dense)
    other.save(0, *last)
    assert levels_in_results(tmp_path) == ["0", "2"]


def test_results_hold_networks_saved_while_they_were_written(
    tmp_path, monkeypatch
):
    one, other = open_run(tmp_path / "run"), open_run(tmp_path / "run")
    (dense, *_, last) = trained_tickets()
    real = run_directory.array_file.write_bytes

    def write(path, content):
        if path.name == "results.csv":
            monkeypatch.setattr(run_directory.array_file, "write_bytes", real)
            other.save(0, *last)
        real(path, content)

    monkeypatch.setattr(run_directory.array_file, "write_bytes", write)
    one.save(0, *dense)
    assert levels_in_results(tmp_path) == ["0", "2"]


def test_results_hold_the_latest_training_of_a_network(tmp_path):
    one, other = open_run(tmp_path / "run"), open_run(tmp_path / "run")
    (dense, result), (ticket, _), _ = trained_tickets()
    one.save(0, dense, result)
    better = {**result.metrics, "test_accuracy": 0.5}
    other.save(0, dense, dataclasses.replace(result, metrics=better))
    one.save(0, ticket, result)
    with open(tmp_path / "run" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["test_accuracy"] for row in rows] == ["0.5", "0.25"]


def write_text(text, meanwhile=lambda: None):
    def write(prefix):
        meanwhile()
        prefix.write_text(text)

    return write


@pytest.mark.parametrize(("step", "expected"), [(0, "other"), (5, "one")])
def test_the_first_theta_0_and_the_last_theta_k_stay(tmp_path, step, expected):
    one, other = open_run(tmp_path / "run"), open_run(tmp_path / "run")

    def meanwhile():
        other.save_checkpoint(0, step, write_text("other"))

    one.save_checkpoint(0, step, write_text("one", meanwhile))
    assert one.load_checkpoint(0, step, pathlib.Path.read_text) == expected
    folder = tmp_path / "run" / "replicate_0"
    assert os.listdir(folder) == [f"theta_{step}"]


def test_a_run_that_another_process_is_creating_is_opened(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.0123456789ab").write_text("{")
    assert open_run(tmp_path / "run").records() == []


def test_a_divergence_is_stored_in_place_of_a_record(tmp_path):
    directory = open_run(tmp_path / "run")
    check_diverged_network(directory, lambda: open_run(tmp_path / "run"))


def test_the_divergence_of_a_reusable_run_is_copied(tmp_path):
    reusable = open_run(tmp_path / "reusable")
    (dense, _), *_ = trained_tickets()
    reusable.save_diverged(0, dense, Diverged(0, 10, math.nan))
    directory = RunDirectory.open_or_create(
        tmp_path / "own",
        FINGERPRINT,
        {"preset": "toy"},
        reusable_runs=[reusable],
    )
    assert directory.load_diverged(0, dense).last == 10
    assert len(open_run(tmp_path / "own").diverged()) == 1

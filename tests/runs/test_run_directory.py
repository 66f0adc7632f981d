"""Run directories: what they store, and what they refuse."""

import concurrent.futures
import contextlib
import csv
import dataclasses
import errno
import json
import math
import os
import pathlib
import shutil

import pytest
import sample_tickets
import tensorflow as tf
import toy
from sample_runs import (
    FINGERPRINT,
    check_diverged_network,
    fill,
    open_run,
    trained_tickets,
    tree,
)

from tf_lottery.core.errors import UserError
from tf_lottery.core.storage.folder import StorageError
from tf_lottery.core.storage.local_folder import LocalFolder
from tf_lottery.core.storage.lock import LockedError, LostLockError
from tf_lottery.core.storage.sealed_json import DamagedFileError
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
    with pytest.raises(ValueError, match="Cannot write .*Choose another"):
        open_run(tmp_path / "file" / "run")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.json").write_text("{ half")
    with pytest.raises(ValueError, match="config.json' is damaged: it is no"):
        RunDirectory.open(tmp_path)


def test_a_write_that_fails_changes_nothing(tmp_path, monkeypatch):
    directory = open_run(tmp_path / "run")
    (_, _), (ticket, result), _ = fill(directory)
    before = tree(tmp_path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("tf_lottery.lottery.ticket_file.encode", fail)
    with pytest.raises(OSError, match="disk full"):
        directory.save(0, ticket, result)
    assert tree(tmp_path) == before


def test_what_killed_processes_left_is_removed(tmp_path):
    directory = open_run(tmp_path / "run")
    fill(directory)
    expected = tree(tmp_path)
    left = [
        "replicate_0/level_1/.ticket.unfinished/0123_40",
        "replicate_0/level_1/ticket/.ticket.0123456789ab",
        "replicate_0/theta_0/.checkpoint.index.0123456789ab",
        ".config.json.0123456789ab",
        ".results.csv.0123456789ab",
    ]
    kept = ["replicate_0/level_7/.ticket.unfinished/0123_40"]
    for name in left + kept:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("{ half")
    assert len(directory.records()) == 3
    with open_run(tmp_path / "run").owned():
        pass
    assert tree(tmp_path).keys() == expected.keys() | {f"run/{kept[0]}"}


def test_a_shard_removes_only_what_was_left_of_its_replicates(tmp_path):
    directory = open_run(tmp_path / "run")
    left = [f"replicate_{r}/theta_0/.a.0123456789ab" for r in range(4)]
    for name in [*left, ".results.csv.0123456789ab"]:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("{ half")
    with directory.owned((1, 3)):
        pass
    after = {name.removeprefix("run/") for name in tree(tmp_path)}
    assert after == {
        "config.json",
        "results.csv",
        ".results.csv.0123456789ab",
        *(name for name in left if not name.startswith("replicate_1")),
    }


def test_other_files_are_not_counted_one_by_one(tmp_path, monkeypatch):
    (tmp_path / "home" / "deep").mkdir(parents=True)
    monkeypatch.setattr(LocalFolder, "files", None)
    with pytest.raises(UserError, match="is not empty and holds no run"):
        open_run(tmp_path / "home")


def test_results_are_written_when_a_run_begins(tmp_path):
    fill(open_run(tmp_path / "run"))
    expected = (tmp_path / "run" / "results.csv").read_bytes()
    (tmp_path / "run" / "results.csv").unlink()
    with open_run(tmp_path / "run").owned():
        pass
    assert (tmp_path / "run" / "results.csv").read_bytes() == expected


NETWORK = "replicate_0/level_1/ticket"


def damage(path, how):
    """Damages a file, in one of the ways that `DAMAGES` names."""
    data = bytearray(path.read_bytes())
    if how == "missing":
        return path.unlink()
    if how == "flipped":
        data[len(data) // 2] ^= 1
    return path.write_bytes(
        {"empty": b"", "truncated": data[: len(data) // 2]}.get(how, data)
    )


DAMAGES = ["missing", "empty", "truncated", "flipped"]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["ticket", "trained", "record.json"])
def test_a_damaged_network_is_untrained_and_named(tmp_path, name, how, caplog):
    directory = open_run(tmp_path / "run")
    _, (ticket, result), _ = fill(directory)
    damage(tmp_path / "run" / NETWORK / name, how)
    assert directory.load(0, ticket) is None
    if (name, how) == ("record.json", "missing"):
        assert [record.level for record in directory.records()] == [0, 2]
    else:
        named = f"{NETWORK}/{name}' is damaged"
        assert named in caplog.text
        with pytest.raises(DamagedFileError, match=named):
            directory.ticket(0, 1)
    if name != "ticket" and how != "missing":
        with pytest.raises(DamagedFileError, match=named):
            directory.records()
    directory.save(0, ticket, result)
    assert toy.same(directory.load(0, ticket).trained, result.trained)
    assert len(directory.records()) == 3


@pytest.mark.parametrize("name", ["ticket", "trained", "record.json"])
def test_a_file_of_another_network_is_not_used(tmp_path, name):
    directory = open_run(tmp_path / "run")
    _, (ticket, _), _ = fill(directory)
    run = tmp_path / "run"
    shutil.copy(run / "replicate_0/level_2/ticket" / name, run / NETWORK / name)
    assert directory.load(0, ticket) is None
    with pytest.raises(DamagedFileError, match=f"{NETWORK}/"):
        directory.ticket(0, 1)


def test_a_network_copied_over_another_is_not_used(tmp_path):
    directory = open_run(tmp_path / "run")
    _, (ticket, _), _ = fill(directory)
    run = tmp_path / "run"
    shutil.rmtree(run / NETWORK)
    shutil.copytree(run / "replicate_0/level_2/ticket", run / NETWORK)
    assert directory.load(0, ticket) is None
    with pytest.raises(DamagedFileError, match="copied from another folder"):
        directory.records()


def test_a_changed_digit_of_a_record_is_seen(tmp_path):
    directory = open_run(tmp_path / "run")
    fill(directory)
    record = tmp_path / "run" / NETWORK / "record.json"
    text = record.read_text()
    assert '"test_accuracy": 0.25' in text
    record.write_text(text.replace("0.25", "0.95"))
    with pytest.raises(DamagedFileError, match="differs from its checksum"):
        directory.rows()


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_theta_counts_as_missing(tmp_path, how):
    directory = open_run(tmp_path / "run")
    directory.save_checkpoint(0, 5, write_text("θ5"))
    assert directory.has_checkpoint(0, 5)
    damage(tmp_path / "run/replicate_0/theta_5/checkpoint", how)
    assert not directory.has_checkpoint(0, 5)
    with pytest.raises(DamagedFileError, match="theta_5/checkpoint' is dam"):
        directory.load_checkpoint(0, 5, pathlib.Path.read_text)


@pytest.mark.parametrize("how", DAMAGES[1:])
@pytest.mark.parametrize("name", ["config.json", "rewind.json"])
def test_damaged_json_is_named(tmp_path, name, how, caplog):
    directory = open_run(tmp_path / "run")
    directory.save_rewind({"step": 5, "steps_trained": 9, "barriers": {}})
    damage(tmp_path / "run" / name, how)
    if name == "rewind.json":
        assert directory.load_rewind() is None
        assert "rewind.json' is damaged" in caplog.text
    else:
        for function in (RunDirectory.open, open_run):
            with pytest.raises(DamagedFileError, match="config.json' is dam"):
                function(tmp_path / "run")


def test_a_full_disk_is_one_line_with_the_path(tmp_path, monkeypatch):
    directory = open_run(tmp_path / "run")
    (_, _), (ticket, result), _ = trained_tickets()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=f"{NETWORK}/.*left on.*Make room"):
        directory.save(0, ticket, result)
    monkeypatch.undo()
    assert directory.load(0, ticket) is None
    assert not [name for name in tree(tmp_path) if "/." in name]
    directory.save(0, ticket, result)
    assert directory.load(0, ticket) is not None


def test_tensorflow_s_error_of_a_full_disk_is_one_line(tmp_path):
    directory = open_run(tmp_path / "run")

    def write(prefix):
        tf.io.write_file(f"{prefix}/no/such", "")
        tf.io.write_file(f"{prefix}/no", "")

    with pytest.raises(StorageError, match="TensorFlow cannot write a check"):
        directory.save_checkpoint(0, 0, write)


def test_a_second_process_is_told_who_owns_the_run(tmp_path):
    directory, other = open_run(tmp_path / "run"), open_run(tmp_path / "run")
    owner = f"process {os.getpid()} on .* works on '{tmp_path}/run'"
    with directory.owned():
        for shard in ((0, 1), (1, 2)):
            with (
                pytest.raises(LockedError, match=owner),
                other.owned(shard),
            ):
                pass
    with directory.owned((0, 2)), other.owned((1, 2)):
        pass
    assert not list((tmp_path / "run/.locks").iterdir())


def test_a_run_that_was_removed_is_not_written_again(tmp_path):
    directory = open_run(tmp_path / "run")
    (dense, result), *_ = trained_tickets()
    with directory.owned():
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(LostLockError, match="lock file was removed"):
            directory.save(0, dense, result)
    assert not (tmp_path / "run").exists()


def test_of_two_settings_begun_at_once_one_is_refused(tmp_path):
    def begin(rate):
        with contextlib.suppress(UserError):
            return open_run(tmp_path / str(trial), {"rate": rate}).config

    for trial in range(20):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            configs = list(pool.map(begin, (0.1, 0.2, 0.3, 0.4)))
        begun = [config for config in configs if config]
        assert len(begun) == 1
        assert RunDirectory.open(tmp_path / str(trial)).config == begun[0]


def test_the_report_and_its_figures_are_written_to_the_directory(tmp_path):
    directory = open_run(tmp_path / "run")
    run_directory.write_report(
        directory.address, "<p>hello", {"accuracy.png": b"png"}
    )
    assert (tmp_path / "run/report.html").read_text() == "<p>hello"
    assert (tmp_path / "run/figures/accuracy.png").read_bytes() == b"png"


def test_config_holds_the_fingerprint(tmp_path):
    open_run(tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert len(config.pop("sha256")) == 64
    assert config == {
        "fingerprint": FINGERPRINT,
        "metadata": {"preset": "toy"},
        "replicates": 1,
    }


def levels_in_results(path):
    with open(path / "run" / "results.csv") as file:
        return [row["level"] for row in csv.DictReader(file)]


def test_the_results_of_all_shards_are_written_together(tmp_path):
    one, other = open_run(tmp_path / "run"), open_run(tmp_path / "run")
    (dense, *_, last) = trained_tickets()
    one.save(0, *dense)
    other.save(1, *last)
    one.write_results()
    assert levels_in_results(tmp_path) == ["0", "2"]


def test_results_hold_the_latest_training_of_a_network(tmp_path):
    directory = open_run(tmp_path / "run")
    (dense, result), (ticket, _), _ = trained_tickets()
    directory.save(0, dense, result)
    better = {**result.metrics, "test_accuracy": 0.5}
    directory.save(0, dense, dataclasses.replace(result, metrics=better))
    directory.save(0, ticket, result)
    with open(tmp_path / "run" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["test_accuracy"] for row in rows] == ["0.5", "0.25"]


def write_text(text):
    return lambda prefix: prefix.write_text(text)


def test_a_checkpoint_is_replaced(tmp_path):
    directory = open_run(tmp_path / "run")
    for text in ("θ5", "again"):
        directory.save_checkpoint(0, 5, write_text(text))
        assert directory.load_checkpoint(0, 5, pathlib.Path.read_text) == text
    assert not directory.has_checkpoint(0, 6)


def test_a_run_that_another_process_is_creating_is_opened(tmp_path):
    (tmp_path / "run" / ".locks").mkdir(parents=True)
    (tmp_path / "run" / ".config.json.0123456789ab").write_text("{")
    (tmp_path / "run" / ".locks" / "0_of_1.0").write_text("{")
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

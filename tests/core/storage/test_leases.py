"""Leases: one process does a thing, and another one if that one died."""

import os
import subprocess
import sys
import threading
import time

import pytest
from sample_runs import by, took_at_once

from tf_lottery.core.storage.leases import Leases


def leave_behind(folder, who, name="dense"):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.0").write_text(who)


@pytest.fixture
def dead(tmp_path):
    """The folder, with the lease of a process of this machine that is gone."""
    folder = tmp_path / "leases"
    code = """
import pathlib, sys
from tf_lottery.core.storage.leases import Leases
Leases(pathlib.Path(sys.argv[1])).acquire("dense")
"""
    subprocess.run([sys.executable, "-c", code, folder], check=True)
    assert os.listdir(folder) == ["dense.0"]
    return folder


def test_a_lease_is_taken_by_one_until_it_is_released(tmp_path):
    one, other = Leases(tmp_path / "leases"), Leases(tmp_path / "leases")
    assert one.is_free("dense")
    assert one.acquire("dense")
    assert not one.acquire("dense")
    assert not other.acquire("dense")
    assert not other.is_free("dense")
    assert other.acquire("dense.2")
    one.release("dense")
    assert other.is_free("dense")
    assert other.acquire("dense")


def test_leases_are_released_whatever_happens(tmp_path):
    def fail(leases):
        with leases:
            assert leases.acquire("dense")
            raise ValueError("The loss became nan.")

    with pytest.raises(ValueError, match="nan"):
        fail(Leases(tmp_path / "leases"))
    assert not os.listdir(tmp_path / "leases")


def test_a_process_that_is_gone_is_not_waited_for(dead):
    leases = Leases(dead, expiry=1e9)
    assert leases.is_free("dense")
    assert leases.acquire("dense")
    leases.release("dense")
    assert not os.listdir(dead)


def test_what_stands_still_on_another_machine_is_taken_over_in_time(tmp_path):
    leave_behind(tmp_path, "elsewhere 1 ")
    leases = Leases(tmp_path, expiry=0.05)
    assert not leases.acquire("dense")
    assert leases.holder("dense") == "process 1 on elsewhere"
    by(lambda: leases.acquire("dense"))


def test_the_same_process_number_in_another_container_is_another(dead):
    host, number, _ = (dead / "dense.0").read_text().split(" ")
    leave_behind(dead, f"{host} {number} pid:[1]")
    assert not Leases(dead).is_free("dense")


def test_what_moves_is_not_taken_over(tmp_path):
    leave_behind(tmp_path, "elsewhere 1 ")
    leases = Leases(tmp_path, expiry=0.02)
    end = time.monotonic() + 0.2
    for beat in range(1_000_000):
        os.utime(tmp_path / "dense.0", ns=(beat, beat))
        assert not leases.acquire("dense")
        if time.monotonic() > end:
            break


def test_a_holder_moves_its_lease(tmp_path):
    with Leases(tmp_path, expiry=0.06) as leases:
        assert leases.acquire("dense")
        os.utime(tmp_path / "dense.0", ns=(0, 0))
        by(lambda: (tmp_path / "dense.0").stat().st_mtime_ns > 0)


def test_of_many_one_takes_over(dead, monkeypatch):
    looked = threading.Barrier(8)
    real = Leases._is_alive

    def look(leases, path):
        """All have seen that it is free before any of them takes it."""
        alive = real(leases, path)
        looked.wait()
        return alive

    monkeypatch.setattr(Leases, "_is_alive", look)

    assert sorted(took_at_once(dead)) == [False] * 7 + [True]


def test_who_was_thought_dead_harms_nobody(tmp_path):
    slow = Leases(tmp_path)
    assert slow.acquire("dense")
    leave_behind(tmp_path, "elsewhere 1 ")
    slow.release("dense")
    assert (tmp_path / "dense.0").read_text() == "elsewhere 1 "

"""Leases are held by one process, and taken over if it dies."""

import os
import subprocess
import sys
import threading
import time

import pytest
from sample_runs import acquire_in_parallel, wait_until

from tf_lottery.core.storage.leases import Leases


def write_lease(folder, owner, name="dense"):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.0").write_text(owner)


@pytest.fixture
def dead(tmp_path):
    """The folder with a lease of a process of this machine that has ended."""
    folder = tmp_path / "leases"
    code = """
import pathlib, sys
from tf_lottery.core.storage.leases import Leases
Leases(pathlib.Path(sys.argv[1])).acquire("dense")
"""
    subprocess.run([sys.executable, "-c", code, folder], check=True)
    assert os.listdir(folder) == ["dense.0"]
    return folder


def test_a_lease_is_held_by_one_process_until_it_is_released(tmp_path):
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


def test_leases_are_released_after_an_exception(tmp_path):
    def fail(leases):
        with leases:
            assert leases.acquire("dense")
            raise ValueError("The loss became nan.")

    with pytest.raises(ValueError, match="nan"):
        fail(Leases(tmp_path / "leases"))
    assert not os.listdir(tmp_path / "leases")


def test_a_lease_of_an_ended_process_is_free_at_once(dead):
    leases = Leases(dead, expiry=1e9)
    assert leases.is_free("dense")
    assert leases.acquire("dense")
    leases.release("dense")
    assert not os.listdir(dead)


def test_a_lease_without_heartbeats_is_taken_over(tmp_path):
    write_lease(tmp_path, "elsewhere 1 ")
    leases = Leases(tmp_path, expiry=0.05)
    assert not leases.acquire("dense")
    assert leases.holder("dense") == "process 1 on elsewhere"
    wait_until(lambda: leases.acquire("dense"))


def test_an_equal_process_number_in_another_container_is_alive(dead):
    host, number, _ = (dead / "dense.0").read_text().split(" ")
    write_lease(dead, f"{host} {number} pid:[1]")
    assert not Leases(dead).is_free("dense")


def test_a_lease_with_heartbeats_is_not_taken_over(tmp_path):
    write_lease(tmp_path, "elsewhere 1 ")
    leases = Leases(tmp_path, expiry=0.02)
    end = time.monotonic() + 0.2
    for beat in range(1_000_000):
        os.utime(tmp_path / "dense.0", ns=(beat, beat))
        assert not leases.acquire("dense")
        if time.monotonic() > end:
            break


def test_a_holder_sends_heartbeats(tmp_path):
    with Leases(tmp_path, expiry=0.06) as leases:
        assert leases.acquire("dense")
        os.utime(tmp_path / "dense.0", ns=(0, 0))
        wait_until(lambda: (tmp_path / "dense.0").stat().st_mtime_ns > 0)


def test_only_one_of_many_processes_takes_a_lease_over(dead, monkeypatch):
    barrier = threading.Barrier(8)
    real = Leases._is_alive

    def is_alive(leases, path):
        """All see that the lease is free before one of them takes it."""
        alive = real(leases, path)
        barrier.wait()
        return alive

    monkeypatch.setattr(Leases, "_is_alive", is_alive)

    assert sorted(acquire_in_parallel(dead)) == [False] * 7 + [True]


def test_a_slow_process_does_not_release_the_lease_of_its_successor(tmp_path):
    slow = Leases(tmp_path)
    assert slow.acquire("dense")
    write_lease(tmp_path, "elsewhere 1 ")
    slow.release("dense")
    assert (tmp_path / "dense.0").read_text() == "elsewhere 1 "

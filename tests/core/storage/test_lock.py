"""A lock has one owner, and passes to the next process if that one dies."""

import concurrent.futures
import json
import os
import subprocess
import sys
import threading

import pytest
from sample_runs import wait_until

from tf_lottery.core.storage import lock
from tf_lottery.core.storage.folder import open_folder
from tf_lottery.core.storage.lock import Lock, LockedError, LostLockError

ELSEWHERE = {"host": "elsewhere", "process": 1}


@pytest.fixture(params=["disk", "memory"])
def folder(request, tmp_path):
    address = f"memory://locks/{tmp_path.name}"
    return open_folder(tmp_path if request.param == "disk" else address)


def write_lock(folder, owner, beat=0, number=0):
    content = json.dumps({"owner": owner, "beat": beat}).encode()
    folder.write(f".locks/dense.{number}", content)


def acquire_in_parallel(folder, count=8):
    """Returns, for each of several locks, whether it was acquired and kept."""
    held = threading.Barrier(count)

    def acquire(_):
        try:
            with Lock(folder, "dense"):
                held.wait()
                return True
        except LockedError:
            held.wait()
            return False

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(acquire, range(count)))


@pytest.fixture
def dead(tmp_path):
    """A folder with the lock of a process of this machine that has ended."""
    code = """
import os, sys
from tf_lottery.core.storage.folder import open_folder
from tf_lottery.core.storage.lock import Lock
Lock(open_folder(sys.argv[1]), "dense").__enter__()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert os.listdir(tmp_path / ".locks") == ["dense.0"]
    return open_folder(tmp_path)


def test_a_lock_has_one_owner_until_its_context_ends(folder):
    with Lock(folder, "dense"), Lock(folder, "other"):
        message = f"process {os.getpid()} on .* works on .*Wait until"
        with pytest.raises(LockedError, match=message), Lock(folder, "dense"):
            pass
        assert lock.names(folder) == ["dense", "other"]
    with Lock(folder, "dense"):
        pass
    assert folder.files() == {}


def test_a_lock_is_released_after_an_exception(folder):
    with pytest.raises(ZeroDivisionError), Lock(folder, "dense"):
        raise ZeroDivisionError
    assert folder.files() == {}


def test_only_one_of_many_processes_acquires_a_lock(folder):
    assert sorted(acquire_in_parallel(folder)) == [False] * 7 + [True]


def test_the_lock_of_an_ended_process_is_free_at_once(dead):
    with Lock(dead, "dense", expiry=1e9):
        assert list(dead.files()) == [".locks/dense.1"]
    assert dead.files() == {}


def test_a_process_number_that_was_given_again_does_not_hold_the_lock(dead):
    content = json.loads(dead.read(".locks/dense.0"))["owner"]
    write_lock(dead, {**content, "process": os.getpid()})
    with Lock(dead, "dense", expiry=1e9):
        pass


def test_a_process_that_nobody_waited_for_is_dead(tmp_path):
    code = """
import os, sys
from tf_lottery.core.storage.folder import open_folder
from tf_lottery.core.storage.lock import Lock
Lock(open_folder(sys.argv[1]), "dense").__enter__()
os._exit(0)
"""
    zombie = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    with Lock(open_folder(tmp_path), "dense", expiry=1e9):
        pass
    zombie.wait()


def test_an_equal_process_number_in_another_container_is_waited_for(dead):
    content = json.loads(dead.read(".locks/dense.0"))["owner"]
    write_lock(dead, {**content, "namespace": "pid:[1]"})
    said = []
    with Lock(dead, "dense", said.append, expiry=0.05):
        pass
    assert len(said) == 1


def test_only_one_of_many_processes_takes_a_lock_over(dead, monkeypatch):
    barrier = threading.Barrier(8)
    real = Lock._is_alive

    def is_alive(one, number):
        """All see that the lock is free before one of them takes it."""
        alive = real(one, number)
        barrier.wait()
        return alive

    monkeypatch.setattr(Lock, "_is_alive", is_alive)
    assert sorted(acquire_in_parallel(dead)) == [False] * 7 + [True]


def test_an_owner_elsewhere_without_heartbeats_loses_the_lock(folder):
    write_lock(folder, ELSEWHERE)
    said = []
    with Lock(folder, "dense", said.append, expiry=0.05) as mine:
        mine.check()
    (sentence,) = said
    assert sentence.startswith("process 1 on elsewhere has worked on ")


def test_an_owner_elsewhere_with_heartbeats_keeps_it(folder):
    write_lock(folder, ELSEWHERE)
    ended = threading.Event()

    def beat():
        for number in range(1_000_000):
            if ended.wait(0.01):
                return
            write_lock(folder, ELSEWHERE, number)

    heart = threading.Thread(target=beat)
    heart.start()
    with (
        pytest.raises(LockedError, match="process 1 on elsewhere works on"),
        Lock(folder, "dense", expiry=60),
    ):
        pass
    ended.set()
    heart.join()


def test_an_owner_sends_heartbeats(folder):
    with Lock(folder, "dense", expiry=0.06):
        first = folder.read(".locks/dense.0")
        wait_until(lambda: folder.read(".locks/dense.0") != first)
        second = folder.read(".locks/dense.0")
        wait_until(lambda: folder.read(".locks/dense.0") != second)


def test_an_owner_that_slept_learns_that_it_lost_the_lock(folder):
    slow = Lock(folder, "dense")
    with slow:
        slow.check()
        write_lock(folder, ELSEWHERE, number=1)
        folder.remove(".locks/dense.0")
        with pytest.raises(LostLockError, match="process 1 on elsewhere took"):
            slow.check()
    # It does not remove its successor's.
    assert list(folder.files()) == [".locks/dense.1"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owner": 1}'])
def test_a_damaged_lock_file_is_no_owner(folder, content):
    folder.write(".locks/dense.0", content)
    with Lock(folder, "dense", expiry=1e9):
        pass


def test_a_stopped_process_of_this_machine_keeps_the_lock(tmp_path):
    code = """
import sys, time
from tf_lottery.core.storage.folder import open_folder
from tf_lottery.core.storage.lock import Lock
with Lock(open_folder(sys.argv[1]), "dense"):
    time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    folder = open_folder(tmp_path)
    wait_until(lambda: folder.files())
    with (
        pytest.raises(LockedError, match=f"{owner.pid}"),
        Lock(folder, "dense"),
    ):
        pass
    owner.kill()
    owner.wait()
    with Lock(folder, "dense", expiry=1e9):
        pass

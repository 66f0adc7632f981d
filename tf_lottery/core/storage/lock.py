"""Locks: one process owns a folder, on a disk or in an object store.

The lock is a file that only one process can create, and that its owner
rewrites regularly. It passes to the next process once its owner is dead: at
once if that was a process of the same machine, and else after a minute
without a heartbeat.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tf_lottery.core.errors import UserError
from tf_lottery.core.storage.folder import Folder, StorageError

FOLDER = ".locks"
"""The folder of the lock files, in the folder that they lock."""
EXPIRY = 60.0  # seconds
_BEATS_PER_EXPIRY = 6
_LOOKS_PER_EXPIRY = 60


class LockedError(UserError):
    """Another live process owns the folder."""


class LostLockError(UserError):
    """Another process took the lock over, or someone removed it."""


class Lock:
    """Ownership of a folder, from the beginning to the end of a context.

    Args:
        folder: The folder; its lock files lie in its subfolder `.locks`.
        name: Name of the lock, without dots.
        on_wait: Called with a sentence before a wait for a sign of life.
        expiry: Seconds without a heartbeat after which an owner counts as
            dead, on the observer's clock because machines' clocks differ.

    Raises:
        LockedError: A live process owns it.
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        on_wait: Callable[[str], None] = lambda _: None,
        expiry: float = EXPIRY,
    ) -> None:
        self._folder, self._name = folder, name
        self._on_wait, self._expiry = on_wait, expiry
        self._identity = _identity(os.getpid())
        self._number = 0
        self._lost = ""
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Lock":
        self._number = self._free_number()
        if not self._folder.create(self._file(self._number), self._content(0)):
            raise self._locked(self._number)
        for number in range(self._number):
            self._folder.remove(self._file(number))
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._heart.join()
        # A storage that is out of reach keeps the file; it expires.
        with contextlib.suppress(StorageError):
            if not self._reason_lost():
                self._folder.remove(self._file(self._number))

    def require_free(self) -> None:
        """Raises LockedError if a live process has this lock."""
        self._free_number()

    def _free_number(self) -> int:
        """Returns the number of the next owner's file, if there may be one."""
        newest = self._newest()
        if newest >= 0 and self._is_alive(newest):
            raise self._locked(newest)
        return newest + 1

    def check(self) -> None:
        """Raises LostLockError if this process owns the folder no longer."""
        reason = self._lost or self._reason_lost()
        if reason:
            raise LostLockError(
                f"{self._folder.address!r} does not belong to this process any "
                f"more: {reason}. This process ends without writing to it."
            )

    def _reason_lost(self) -> str:
        """Returns how the lock was lost; an empty text if it was not."""
        owner = self._read(self._number)
        newest = self._number if owner else self._newest()
        if owner and owner["owner"] == self._identity:
            return ""
        if newest >= 0:
            return f"{self._holder(newest)} took it over"
        return "its lock file was removed"

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(self._expiry / _BEATS_PER_EXPIRY):
            # A beat that fails now may succeed the next time.
            with contextlib.suppress(StorageError):
                self._lost = self._lost or self._reason_lost()
                if not self._lost:
                    beat += 1
                    self._folder.write(
                        self._file(self._number), self._content(beat)
                    )

    def _is_alive(self, number: int) -> bool:
        """Returns whether an owner lives, after waiting for a heartbeat."""
        first = self._read(number)
        if first is None or _has_ended(first["owner"]):
            return False
        if _is_of_this_machine(first["owner"]):
            return True
        self._on_wait(
            f"{self._holder(number)} has worked on {self._folder.address!r}: "
            f"waiting at most {self._expiry:.0f} seconds for a sign of life."
        )
        end = time.monotonic() + self._expiry
        while time.monotonic() < end:
            time.sleep(self._expiry / _LOOKS_PER_EXPIRY)
            now = self._read(number)
            if now != first:
                return now is not None
        return False

    def _newest(self) -> int:
        """Returns the highest number of the lock's files; -1 without any."""
        numbers = [
            int(number)
            for file in self._folder.files(FOLDER)
            for lock, _, number in [file.rpartition(".")]
            if lock == f"{FOLDER}/{self._name}" and number.isdigit()
        ]
        return max(numbers, default=-1)

    def _read(self, number: int) -> dict[str, Any] | None:
        data = self._folder.read(self._file(number))
        try:
            content = json.loads(data or b"")
            return content if isinstance(content["owner"], dict) else None
        except (ValueError, TypeError, KeyError):
            return None

    def _content(self, beat: int) -> bytes:
        return json.dumps({"owner": self._identity, "beat": beat}).encode()

    def _file(self, number: int) -> str:
        return f"{FOLDER}/{self._name}.{number}"

    def _holder(self, number: int) -> str:
        content = self._read(number)
        owner = content["owner"] if content else {}
        if not {"process", "host"} <= owner.keys():
            return "another process"
        return f"process {owner['process']} on {owner['host']}"

    def _locked(self, number: int) -> LockedError:
        return LockedError(
            f"{self._holder(number)} works on {self._folder.address!r}. Wait "
            "until it has ended, or end it; the same command then goes on "
            "from there."
        )


def names(folder: Folder) -> list[str]:
    """Returns the names of the locks of a folder, held or left by the dead.

    Args:
        folder: The folder.
    """
    files = [file.removeprefix(f"{FOLDER}/") for file in folder.files(FOLDER)]
    return sorted({f.partition(".")[0] for f in files if not f.startswith(".")})


def _identity(process: int) -> dict[str, Any]:
    """Returns what tells a process from all others, on any machine."""
    try:
        # Containers on one host number their processes separately.
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return {
        "host": socket.gethostname(),
        "namespace": namespace,
        "process": process,
        "started": _start_time(process),
    }


def _start_time(process: int) -> str:
    """Returns when a process started; numbers are given again to others.

    It is empty if the process has ended, or if the system does not say.
    """
    try:
        with open(f"/proc/{process}/stat") as file:
            state, *values = file.read().rpartition(")")[2].split()
        return "" if state == "Z" else values[18]
    except (OSError, ValueError, IndexError):
        return ""


def _is_of_this_machine(owner: dict[str, Any]) -> bool:
    here = _identity(os.getpid())
    return all(owner.get(key) == here[key] for key in ("host", "namespace"))


def _has_ended(owner: dict[str, Any]) -> bool:
    """Returns whether an owner is a process of this machine that has ended."""
    process = owner.get("process")
    if not _is_of_this_machine(owner) or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # It lives, and belongs to another user.
    return owner.get("started") != _start_time(process)

"""Leases: which of several processes does which piece of work.

Leases avoid duplicate work; they are not needed for correctness. Results are
deterministic and written atomically, so on a file system without exclusive
create the worst case is that a network is trained twice.
"""

import contextlib
import os
import pathlib
import socket
import threading
import time
from types import TracebackType
from typing import Protocol

from tf_lottery.core.storage import object_store

EXPIRY = 60.0  # seconds
_BEATS_PER_EXPIRY = 6


class _Store(Protocol):
    """Where lease files are stored."""

    poll_interval: float

    def names(self) -> list[str]:
        """Returns the names of all lease files."""

    def create(self, name: str, owner: str) -> bool:
        """Creates a file, for one process alone; returns whether it did."""

    def read(self, name: str) -> tuple[str, object] | None:
        """Returns a file's owner, and a value that changes at each beat."""

    def beat(self, name: str, owner: str) -> None:
        """Changes that value, to show that the owner lives."""

    def remove(self, name: str) -> None:
        """Removes a file, if it exists."""


class _FolderStore:
    """Lease files in a file system: a beat touches the file."""

    poll_interval = 1.0

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return [path.name for path in self._folder.glob("*")]

    def create(self, name: str, owner: str) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with (self._folder / name).open("x") as file:
                file.write(owner)
        except FileExistsError:
            return False
        return True

    def read(self, name: str) -> tuple[str, object] | None:
        try:
            # Opening a file makes NFS look for changes.
            with (self._folder / name).open() as file:
                return file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None

    def beat(self, name: str, owner: str) -> None:
        os.utime(self._folder / name)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


class _BucketStore:
    """Lease files in a bucket: a beat writes the object again."""

    poll_interval = 5.0

    def __init__(self, folder: object_store.Bucket) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return list(self._folder.files())

    def create(self, name: str, owner: str) -> bool:
        return self._folder.create(name, owner.encode())

    def read(self, name: str) -> tuple[str, object] | None:
        content = self._folder.read(name)
        if content is None:
            return None
        owner, _, beat = content.decode().partition("\n")
        return owner, beat

    def beat(self, name: str, owner: str) -> None:
        self._folder.write(name, f"{owner}\n{time.time_ns()}".encode())

    def remove(self, name: str) -> None:
        self._folder.remove(name)


class Leases:
    """The leases in a folder: those of this process, and those of others.

    A lease is a file that only one process can create (`O_EXCL`, on NFS too;
    `ifGenerationMatch=0`). Within `with`, its process sends regular
    heartbeats. A lease without heartbeats is taken over by the process that
    creates the file with the next number.

    Args:
        folder: The folder of the lease files, or its address in a bucket. It
            is created with the first lease.
        expiry: Seconds without a heartbeat after which a lease counts as
            abandoned, measured on the observer's clock because machine clocks
            differ. The lease of a process of this machine that has ended is
            abandoned at once.
    """

    def __init__(
        self, folder: str | os.PathLike[str], expiry: float = EXPIRY
    ) -> None:
        bucket = object_store.of(folder)
        self._store: _Store = (
            _FolderStore(pathlib.Path(folder))
            if bucket is None
            else _BucketStore(bucket)
        )
        self._expiry = expiry
        self._owner = _owner(os.getpid())
        self._held: dict[str, int] = {}
        # A beat writes an object: it must not follow the object's removal.
        self._beating = threading.Lock()
        # File to its last content, and when that was first seen.
        self._seen: dict[str, tuple[tuple[str, object], float]] = {}

    def __enter__(self) -> "Leases":
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
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
        if isinstance(error, object_store.BucketError):
            # The bucket would not answer these requests either. Abandoned
            # leases expire.
            return
        for name in list(self._held):
            self.release(name)

    def acquire(self, name: str) -> bool:
        """Acquires a lease, if no live process holds it.

        Another process may have done the work since this one looked: look
        again once the lease is acquired.

        Args:
            name: The lease.

        Returns:
            Whether this process holds the lease now.
        """
        number = self._newest(name)
        if number >= 0 and self._is_alive(_file(name, number)):
            return False
        if not self._store.create(_file(name, number + 1), self._owner):
            return False
        self._held[name] = number + 1
        return True

    def release(self, name: str) -> None:
        """Releases a lease that this process holds.

        Args:
            name: The lease.
        """
        with self._beating:
            newest = self._held.pop(name)
            if self._is_mine(_file(name, newest)):
                # The newest last: without it, the others look abandoned.
                for number in range(newest + 1):
                    self._store.remove(_file(name, number))

    def is_free(self, name: str) -> bool:
        """Returns whether no live process holds a lease.

        Args:
            name: The lease.
        """
        number = self._newest(name)
        return number < 0 or not self._is_alive(_file(name, number))

    def holder(self, name: str) -> str:
        """Returns the holder of a lease, as text for messages.

        Args:
            name: The lease.
        """
        number = self._newest(name)
        with contextlib.suppress(OSError, ValueError):
            if number >= 0 and (lease := self._store.read(_file(name, number))):
                host, process, _ = lease[0].split(" ")
                return f"process {process} on {host}"
        return "another process"

    @property
    def poll_interval(self) -> float:
        """Seconds between two looks at the leases of other processes."""
        return self._store.poll_interval

    def _newest(self, name: str) -> int:
        """Returns the highest number of a lease's files; -1 without any."""
        return max(
            (
                int(number)
                for file in self._store.names()
                for lease, _, number in [file.rpartition(".")]
                if lease == name
            ),
            default=-1,
        )

    def _is_alive(self, file: str) -> bool:
        content = self._store.read(file)
        if content is None:
            return False
        now = time.monotonic()
        last, since = self._seen.get(file, (None, now))
        if last != content:
            since = now
        self._seen[file] = content, since
        return now - since <= self._expiry and not _has_ended(content[0])

    def _is_mine(self, file: str) -> bool:
        content = self._store.read(file)
        return content is not None and content[0] == self._owner

    def _beat(self) -> None:
        while not self._ended.wait(self._expiry / _BEATS_PER_EXPIRY):
            for name in list(self._held):
                # A beat that fails now may succeed the next time.
                with self._beating, contextlib.suppress(OSError):
                    self._beat_once(name)

    def _beat_once(self, name: str) -> None:
        number = self._held.get(name)
        if number is not None and self._is_mine(_file(name, number)):
            self._store.beat(_file(name, number), self._owner)


def _file(name: str, number: int) -> str:
    return f"{name}.{number}"


def _owner(process: int) -> str:
    """Returns host, process number, and the host's namespace of numbers."""
    try:
        # Containers on one host number their processes separately.
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {process} {namespace}"


def _has_ended(owner: str) -> bool:
    """Returns whether an owner is a process of this machine that has ended."""
    _, _, process = owner.rpartition(" ")[0].partition(" ")
    if not process.isdigit() or owner != _owner(int(process)):
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # It lives, and belongs to another user.
    return False

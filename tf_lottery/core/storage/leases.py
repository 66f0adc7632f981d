"""This module knows who does what among processes that share a folder.

The folder lies in a file system or in a bucket. A lease saves work and guards
nothing: whatever two processes make of the same is the same, and written whole.
Where a file system does not hold what is asked of it here, something is done
twice, and no more.
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

PATIENCE = 60.0  # seconds
_BEATS = 6  # while others are patient


class _Place(Protocol):
    """Where leases lie."""

    pause: float
    """Seconds between two looks at what others do."""

    def names(self) -> list[str]:
        """Returns the names of all leases."""

    def create(self, name: str, who: str) -> bool:
        """Returns whether a lease was made: by one process alone."""

    def read(self, name: str) -> tuple[str, object] | None:
        """Returns whose a lease is, and what changes at each beat."""

    def beat(self, name: str, who: str) -> None:
        """Shows that who holds a lease is there."""

    def remove(self, name: str) -> None:
        """Removes a lease, if it is there."""


class _InFolder:
    """Leases in a file system: files, which are touched."""

    pause = 1.0

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return [path.name for path in self._folder.glob("*")]

    def create(self, name: str, who: str) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with (self._folder / name).open("x") as file:
                file.write(who)
        except FileExistsError:
            return False
        return True

    def read(self, name: str) -> tuple[str, object] | None:
        try:
            # To open a file is what makes NFS look for changes.
            with (self._folder / name).open() as file:
                return file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None

    def beat(self, name: str, who: str) -> None:
        os.utime(self._folder / name)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


class _InBucket:
    """Leases in a bucket: objects, which are written again."""

    pause = 5.0

    def __init__(self, folder: object_store.Bucket) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return list(self._folder.files())

    def create(self, name: str, who: str) -> bool:
        return self._folder.create(name, who.encode())

    def read(self, name: str) -> tuple[str, object] | None:
        content = self._folder.read(name)
        if content is None:
            return None
        who, _, beat = content.decode().partition("\n")
        return who, beat

    def beat(self, name: str, who: str) -> None:
        self._folder.write(name, f"{who}\n{time.time_ns()}".encode())

    def remove(self, name: str) -> None:
        self._folder.remove(name)


class Leases:
    """Leases in a folder: this process's own, and those of others.

    A lease is a file which one process alone can create (`O_EXCL`, on NFS
    too; `ifGenerationMatch=0`), and which it touches again and again within
    `with`. One that stands still is taken over: by the one process that
    creates the next number.

    Args:
        folder: Where leases lie; made when the first one is taken.
        patience: Seconds that a lease may stand still, on the clock of who
            looks, for clocks of machines differ. A lease of a process of this
            machine that is gone is not waited for.
    """

    def __init__(
        self, folder: str | os.PathLike[str], patience: float = PATIENCE
    ) -> None:
        place = object_store.of(folder)
        self._place: _Place = (
            _InFolder(pathlib.Path(folder))
            if place is None
            else _InBucket(place)
        )
        self._patience = patience
        self._me = _signature(os.getpid())
        self._held: dict[str, int] = {}
        # A beat writes an object: none must follow its removal.
        self._touching = threading.Lock()
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
            return  # Nor would it answer now; what stands still is taken over.
        for name in list(self._held):
            self.release(name)

    def take(self, name: str) -> bool:
        """Returns whether something is for this process to do from now on.

        Whoever takes a lease looks once more whether it is not done already.
        """
        number = self._newest(name)
        if number >= 0 and self._is_alive(_file(name, number)):
            return False
        if not self._place.create(_file(name, number + 1), self._me):
            return False
        self._held[name] = number + 1
        return True

    def release(self, name: str) -> None:
        """Gives back a lease, whether its work is done or not."""
        with self._touching:
            mine = self._held.pop(name)
            if self._is_mine(_file(name, mine)):
                # This one last: without it, the others would look abandoned.
                for number in range(mine + 1):
                    self._place.remove(_file(name, number))

    def is_free(self, name: str) -> bool:
        """Returns whether nobody does something, or nobody any longer."""
        number = self._newest(name)
        return number < 0 or not self._is_alive(_file(name, number))

    def holder(self, name: str) -> str:
        """Returns who does something, for a person to read."""
        number = self._newest(name)
        with contextlib.suppress(OSError, ValueError):
            if number >= 0 and (found := self._place.read(_file(name, number))):
                host, process, _ = found[0].split(" ")
                return f"process {process} on {host}"
        return "another process"

    @property
    def pause(self) -> float:
        """Seconds between two looks at what others do: a bucket is asked."""
        return self._place.pause

    def _newest(self, name: str) -> int:
        """Returns the highest number of a lease; -1: there is none."""
        return max(
            (
                int(number)
                for file in self._place.names()
                for of, _, number in [file.rpartition(".")]
                if of == name
            ),
            default=-1,
        )

    def _is_alive(self, file: str) -> bool:
        found = self._place.read(file)
        if found is None:
            return False
        now = time.monotonic()
        last, since = self._seen.get(file, (None, now))
        if last != found:
            since = now
        self._seen[file] = found, since
        return now - since <= self._patience and not _is_dead(found[0])

    def _is_mine(self, file: str) -> bool:
        found = self._place.read(file)
        return found is not None and found[0] == self._me

    def _beat(self) -> None:
        while not self._ended.wait(self._patience / _BEATS):
            for name in list(self._held):
                # What cannot be touched now may be the next time.
                with self._touching, contextlib.suppress(OSError):
                    self._touch(name)

    def _touch(self, name: str) -> None:
        number = self._held.get(name)
        if number is not None and self._is_mine(_file(name, number)):
            self._place.beat(_file(name, number), self._me)


def _file(name: str, number: int) -> str:
    return f"{name}.{number}"


def _signature(process: int) -> str:
    """Returns host, process, and what numbers processes there: a container."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {process} {space}"


def _is_dead(who: str) -> bool:
    """Returns whether it is a process of this machine that is gone."""
    _, _, process = who.rpartition(" ")[0].partition(" ")
    if not process.isdigit() or who != _signature(int(process)):
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # It is another user's, and there.
    return False

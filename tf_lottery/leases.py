"""This module knows who does what among processes that share a folder.

A lease saves work and guards nothing: whatever two processes make of the same
is the same, and written whole. Where a file system does not hold what is
asked of it here, something is done twice, and no more.
"""

import contextlib
import os
import pathlib
import socket
import threading
import time
from types import TracebackType

PATIENCE = 60.0  # seconds
_BEATS = 6  # while others are patient


class Leases:
    """Leases in a folder: this process's own, and those of others.

    A lease is a file which one process alone can create (`O_EXCL`, on NFS
    too), and which it touches again and again within `with`. One that stands
    still is taken over: by the one process that creates the next number.

    Args:
        folder: Where leases lie; made when the first one is taken.
        patience: Seconds that a lease may stand still, on the clock of who
            looks, for clocks of machines differ. A lease of a process of this
            machine that is gone is not waited for.
    """

    def __init__(
        self, folder: pathlib.Path, patience: float = PATIENCE
    ) -> None:
        self._folder, self._patience = folder, patience
        self._me = _signature(os.getpid())
        self._held: dict[str, pathlib.Path] = {}
        self._seen: dict[pathlib.Path, tuple[tuple[str, int], float]] = {}

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
        for name in list(self._held):
            self.release(name)

    def take(self, name: str) -> bool:
        """Returns whether something is for this process to do from now on.

        Whoever takes a lease looks once more whether it is not done already.
        """
        number, newest = self._newest(name)
        if newest is not None and self._is_alive(newest):
            return False
        path = self._path(name, number + 1)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x") as file:
                file.write(self._me)
        except FileExistsError:
            return False
        self._held[name] = path
        return True

    def release(self, name: str) -> None:
        """Gives back a lease, whether its work is done or not."""
        path = self._held.pop(name)
        if self._is_mine(path):
            # This one last: without it, the others would look abandoned.
            for number in range(int(path.suffix[1:]) + 1):
                self._path(name, number).unlink(missing_ok=True)

    def is_free(self, name: str) -> bool:
        """Returns whether nobody does something, or nobody any longer."""
        _, newest = self._newest(name)
        return newest is None or not self._is_alive(newest)

    def holder(self, name: str) -> str:
        """Returns who does something, for a person to read."""
        _, newest = self._newest(name)
        with contextlib.suppress(OSError, ValueError):
            if newest is not None:
                host, process, _ = newest.read_text().split(" ")
                return f"process {process} on {host}"
        return "another process"

    def _path(self, name: str, number: int) -> pathlib.Path:
        return self._folder / f"{name}.{number}"

    def _newest(self, name: str) -> tuple[int, pathlib.Path | None]:
        numbers = [
            int(number)
            for path in self._folder.glob("*")
            for of, _, number in [path.name.rpartition(".")]
            if of == name
        ]
        if not numbers:
            return -1, None
        return max(numbers), self._path(name, max(numbers))

    def _is_alive(self, path: pathlib.Path) -> bool:
        try:
            # To open a file is what makes NFS look for changes.
            with path.open() as file:
                who, when = file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        last, since = self._seen.get(path, (None, now))
        if last != (who, when):
            since = now
        self._seen[path] = (who, when), since
        return now - since <= self._patience and not _is_dead(who)

    def _is_mine(self, path: pathlib.Path) -> bool:
        try:
            return path.read_text() == self._me
        except FileNotFoundError:
            return False

    def _beat(self) -> None:
        while not self._ended.wait(self._patience / _BEATS):
            for path in list(self._held.values()):
                # What cannot be touched now may be the next time.
                with contextlib.suppress(OSError):
                    if self._is_mine(path):
                        os.utime(path)


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

"""Files on a disk that are written whole or not at all."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file atomically, and durably: a power cut leaves no half.

    Args:
        path: The file; an existing one is replaced.
        data: Its content.
    """
    with _written(path, data) as temporary:
        os.replace(temporary, path)
        sync_folder(path.parent)


def create(path: pathlib.Path, data: bytes) -> bool:
    """Writes a file unless it exists; returns whether it was written.

    Of several processes that try, on a network file system too, one succeeds.

    Args:
        path: The file.
        data: Its content.
    """
    with _written(path, data) as temporary:
        try:
            _link(temporary, path, data)
        except FileExistsError:
            return False
        sync_folder(path.parent)
    return True


def _link(temporary: pathlib.Path, path: pathlib.Path, data: bytes) -> None:
    """Gives a file its name; raises FileExistsError if the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # A file system without links.
        with path.open("xb") as file:
            file.write(data)


def temporary_sibling(path: pathlib.Path) -> pathlib.Path:
    """Returns an unused path in the same folder.

    It is random, not the process id: containers share process ids.

    Args:
        path: A file or folder, which need not exist.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")


def is_temporary(path: pathlib.PurePath) -> bool:
    """Returns whether a name is one that `temporary_sibling` makes.

    Args:
        path: A file or folder.
    """
    stem, _, digits = path.name.rpartition(".")
    return (
        stem.startswith(".")
        and len(digits) == 12
        and set(digits) <= set("0123456789abcdef")
    )


def sync_folder(folder: pathlib.Path) -> None:
    """Makes the names in a folder durable, where the system can.

    Args:
        folder: The folder.
    """
    # Some systems cannot open folders, some file systems cannot sync them.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _written(path: pathlib.Path, data: bytes) -> Iterator[pathlib.Path]:
    """Yields a temporary file of this content, on the disk already."""
    temporary = temporary_sibling(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)

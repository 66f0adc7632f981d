"""Folders on a disk or in an object store, behind one small interface."""

import os
import pathlib
import re
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Protocol, TypeVar

from tf_lottery.core.errors import UserError

_PARALLEL_REQUESTS = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class StorageError(UserError, OSError):
    """A disk is full, or a bucket is missing, forbidden, or out of reach."""


class Folder(Protocol):
    """A folder. Names of files and folders are relative to it, with slashes.

    Each file is written atomically: a reader sees the old content or the new
    one. Nothing is promised about several files; see `commit`.

    Attributes:
        address: Its path, or its address in an object store, for messages.

    Raises:
        StorageError: The storage does not answer, is full, or forbids it.
            Every method may raise it.
    """

    address: str

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file; None if it does not exist.

        Args:
            name: The file.
        """

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, or replaces it.

        Args:
            name: The file.
            content: Its content.
        """

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file unless it exists; returns whether it was written.

        Of several processes that try, one succeeds.

        Args:
            name: The file.
            content: Its content.
        """

    def remove(self, name: str) -> None:
        """Removes a file, if it exists.

        Args:
            name: The file.
        """

    def remove_folder(self, name: str) -> None:
        """Removes a folder with all it holds, if it exists.

        Args:
            name: The folder.
        """

    def files(self, folder: str = "") -> dict[str, str]:
        """Returns all files below a folder, in order.

        Args:
            folder: The folder. The default is this one.

        Returns:
            Name, relative to this folder, to a text that changes with the
            file's content.
        """

    def folders(self) -> list[str]:
        """Returns the names of the folders in this one, in order."""


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """Returns the folder at a path or an address; it need not exist.

    Args:
        path: A path, or an address such as `gs://bucket/folder`, `s3://…`,
            `az://…`: any that fsspec knows. `gs:/…` is accepted too, because
            `pathlib` turns two slashes into one.

    Raises:
        UserError: There is no such kind of address.
        MissingPackageError: The package that it needs is not installed.
    """
    # Imported late: each needs the names above.
    from tf_lottery.core.storage.local_folder import LocalFolder
    from tf_lottery.core.storage.object_folder import ObjectFolder

    address = re.match(r"(\w{2,}):/+(.*)", os.fspath(path))
    if address is None:
        return LocalFolder(pathlib.Path(path))
    scheme, name = address[1], address[2].rstrip("/")
    if not name:
        raise UserError(
            f"{os.fspath(path)!r} names no folder: write it as "
            f"{scheme}://bucket/folder."
        )
    return ObjectFolder(scheme, name)


def is_address(path: str | os.PathLike[str]) -> bool:
    """Returns whether a text is an address in an object store, not a path.

    Args:
        path: The text.
    """
    return re.match(r"\w{2,}:/", os.fspath(path)) is not None


def map_parallel(
    function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> list[_Result]:
    """Returns the results of a function, called in several threads.

    Args:
        function: The function; it waits for a disk or a network.
        items: Its argument in each call.
    """
    with futures.ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
        return list(pool.map(function, items))

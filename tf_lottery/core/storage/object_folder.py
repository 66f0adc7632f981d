"""A folder in an object store, reached through fsspec."""

import contextlib
import functools
import logging
import mimetypes
from collections.abc import Iterator
from typing import Any

import fsspec

from tf_lottery.core.errors import MissingPackageError, UserError, one_line
from tf_lottery.core.storage.folder import StorageError, map_parallel

_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "az": "azure"}
"""Scheme of an address to the extra of tf-lottery that installs its client."""
_CONTENT_TYPE = {
    "gs": "content_type",
    "gcs": "content_type",
    "s3": "ContentType",
}
"""How the client of a scheme is told what a browser will be shown."""
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "mtime", "created")
"""Where clients say what changes with an object's content."""


class ObjectFolder:
    """A `Folder` in an object store, or anything else that fsspec reaches.

    Object stores write each object atomically, list what was written before,
    and create an object for one process alone if asked to.

    Args:
        scheme: Such as `"gs"`, `"s3"` or `"az"`.
        name: Bucket and folder, `bucket/folder`.

    Attributes:
        address: `scheme://bucket/folder`.
    """

    def __init__(self, scheme: str, name: str) -> None:
        self.address = f"{scheme}://{name}"
        self._scheme, self._name = scheme, name
        self._store = _store(scheme)

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file; None if it does not exist.

        Args:
            name: The file.
        """
        with self._errors():
            try:
                return self._store.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, or replaces it.

        Args:
            name: The file.
            content: Its content.
        """
        options = {}
        if self._scheme in _CONTENT_TYPE:
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            options[_CONTENT_TYPE[self._scheme]] = kind
        with self._errors():
            self._store.pipe_file(self._path(name), content, **options)

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file unless it exists; returns whether it was written.

        Args:
            name: The file.
            content: Its content.
        """
        with self._errors():
            try:
                self._store.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Removes a file, if it exists.

        Args:
            name: The file.
        """
        with self._errors(), contextlib.suppress(FileNotFoundError):
            self._store.rm_file(self._path(name))

    def remove_folder(self, name: str) -> None:
        """Removes a folder with all it holds, if it exists.

        Args:
            name: The folder.
        """
        map_parallel(self.remove, self.files(name))

    def files(self, folder: str = "") -> dict[str, str]:
        """Returns all files below a folder, in order.

        Args:
            folder: The folder. The default is this one.

        Returns:
            Name to a text that changes with the file's content.
        """
        with self._errors():
            found = self._store.find(self._path(folder), detail=True)
        start = len(self._name) + 1
        return {
            path.lstrip("/")[start:]: _version(found[path])
            for path in sorted(found)
            if found[path]["type"] == "file"
        }

    def folders(self) -> list[str]:
        """Returns the names of the folders in this one, in order."""
        with self._errors():
            try:
                entries = self._store.ls(self._name, detail=True)
            except FileNotFoundError:
                self.files()  # Raises if there is no such bucket.
                return []
        return sorted(
            entry["name"].rstrip("/").rpartition("/")[2]
            for entry in entries
            if entry["type"] == "directory"
        )

    def _path(self, name: str) -> str:
        return f"{self._name}/{name}" if name else self._name

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Replaces a client's error, of whatever class, by one line."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - clients raise anything
            raise StorageError(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        bucket = self._name.partition("/")[0]
        if isinstance(error, FileNotFoundError):
            return (
                f"There is no bucket {bucket!r}, of {self.address!r}. Make it "
                "first, or give another address."
            )
        reason = one_line(error, 200).rstrip(".")
        words = f"{type(error).__name__} {reason} {getattr(error, 'code', '')}"
        if any(word in words for word in _FORBIDDEN):
            return (
                f"No permission for {self.address!r}: {reason}. Log in, or ask "
                "for the right to list, read, write and remove objects there."
            )
        return (
            f"{self.address!r} does not answer: {reason}. What is kept there "
            "stays; the same command goes on from there."
        )


_FORBIDDEN = (
    "Forbidden",
    "PermissionError",
    "AccessDenied",
    "NoCredentials",
    "ClientAuthentication",
    "401",
    "403",
)
"""Words by which the clients of the object stores say that it is forbidden."""


def _version(entry: dict[str, Any]) -> str:
    values = [entry.get("size"), *(entry.get(name) for name in _VERSIONS)]
    return " ".join(str(value) for value in values if value is not None)


@functools.cache
def _store(scheme: str) -> Any:
    """Returns fsspec's file system for a scheme, one for all addresses."""
    try:
        if _EXTRAS.get(scheme) == "gcs":
            # fsspec's own choice would ask for the kind of each bucket.
            from gcsfs.core import GCSFileSystem

            # It raises what it logs; without a handler that is printed too.
            logging.getLogger("gcsfs").addHandler(logging.NullHandler())
            return GCSFileSystem(use_listings_cache=False)
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        advice = one_line(error)
        if scheme in _EXTRAS:
            advice = f"pip install 'tf-lottery[{_EXTRAS[scheme]}]'"
        raise MissingPackageError(
            f"Addresses {scheme}://… need a package: {advice}."
        ) from None
    except ValueError:
        raise UserError(
            f"Unknown kind of address {scheme}://…: give a folder, or a "
            "bucket as gs://, s3:// or az://bucket/folder."
        ) from None

"""Folders in a bucket of Google Cloud Storage.

A bucket creates each object atomically, and can create it for one process
alone, but promises nothing about folders. So one file of each folder, its
marker, is uploaded last and removed first: while the marker exists and stays
the same, the folder is complete.
"""

import atexit
import base64
import concurrent.futures
import contextlib
import functools
import hashlib
import logging
import mimetypes
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tf_lottery.core.errors import MissingPackageError, UserError
from tf_lottery.core.storage import array_file

CREATOR_TIMEOUT = 60.0
"""Seconds to wait for another process that is writing θ0 before taking over."""
REST_FACTOR = 20
"""After an upload of checkpoints that took t seconds, the next one starts
`REST_FACTOR` * t seconds later at the earliest, so that uploads take at most
about 5 % of training time."""
_POLL_INTERVAL = 1.0  # seconds between two looks whether θ0 is there
_PARALLEL_REQUESTS = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class BucketError(UserError, OSError):
    """A bucket does not exist, is not permitted, or does not answer."""


def of(path: str | os.PathLike[str]) -> "Bucket | None":
    """Returns the folder at an address in a bucket; None for other paths.

    Args:
        path: A path, or an address such as `gs://bucket/folder`. `gs:/…` is
            accepted too, because `pathlib` turns two slashes into one.

    Raises:
        ValueError: The address is not one of Google Cloud Storage.
        ImportError: The package gcsfs is not installed.
    """
    address = re.match(r"(\w{2,}):/+(.*)", os.fspath(path))
    if not address:
        return None
    scheme, name = address[1], address[2].rstrip("/")
    if scheme != "gs" or not name:
        raise UserError(
            "A run directory lies in a file system, or in a bucket as "
            f"gs://bucket/folder; got {os.fspath(path)!r}. Other object stores "
            "are not supported: mount the store as a file system, and give "
            "the folder."
        )
    return Bucket(f"gs://{name}")


def map_parallel(
    function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> list[_Result]:
    """Returns the results of a function, called in several threads.

    Args:
        function: The function; it sends requests.
        items: Its argument in each call.
    """
    with concurrent.futures.ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
        return list(pool.map(function, items))


class Bucket:
    """A folder in a bucket of Google Cloud Storage.

    Names of files and folders are relative to it.

    Args:
        address: `gs://bucket/folder`.

    Raises:
        BucketError: The bucket does not exist, is not permitted, or does not
            answer. Every method may raise it, after half a minute of retries.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._bucket, _, folder = address[len("gs://") :].partition("/")
        self._folder = f"{folder}/" if folder else ""
        self._store = _store()
        self._uploaded: set[str] = set()
        self._next_upload: dict[str, float] = {}  # folder to earliest time

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file; None if it does not exist.

        Args:
            name: The file.
        """
        with self._bucket_errors():
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
        # A browser shows reports by their content type.
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        with self._bucket_errors():
            self._store.pipe_file(self._path(name), content, content_type=kind)

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file unless it exists; returns whether it was written.

        Args:
            name: The file.
            content: Its content.
        """
        with self._bucket_errors():
            try:
                # `ifGenerationMatch=0`: only one request can meet it.
                self._store.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Removes a file, if it exists.

        Args:
            name: The file.
        """
        with self._bucket_errors(), contextlib.suppress(FileNotFoundError):
            self._store.rm_file(self._path(name))

    def is_empty(self) -> bool:
        """Returns whether this folder holds nothing."""
        return not self.folders() and not self.files()

    def folders(self) -> list[str]:
        """Returns the names of the folders in this one."""
        pages = self._pages(self._folder, delimiter="/")
        names = [name for page in pages for name in page.get("prefixes", [])]
        return [name[len(self._folder) :].rstrip("/") for name in names]

    def files(self, folder: str = "") -> dict[str, str]:
        """Returns all files below a folder: name within it to MD5.

        Args:
            folder: The folder. The default is this one.
        """
        prefix = self._folder + (f"{folder}/" if folder else "")
        return {
            item["name"][len(prefix) :]: item.get("md5Hash", "")
            for page in self._pages(prefix)
            for item in page.get("items", [])
            if not item["name"].endswith("/")  # a folder of the web console
        }

    def download_folder(
        self, name: str, local: pathlib.Path, marker: str
    ) -> None:
        """Replaces a local folder by that in the bucket.

        The local folder is removed if the one in the bucket is not complete.

        Args:
            name: The folder in the bucket.
            local: The local folder.
            marker: The file that makes it complete, and differs between its
                states.
        """
        while True:
            state = self.read(f"{name}/{marker}")
            if state is None:
                return shutil.rmtree(local, ignore_errors=True)
            marker_file = local / marker
            if marker_file.exists() and state == marker_file.read_bytes():
                return None
            others = [file for file in self.files(name) if file != marker]
            contents = {
                file: content
                for file, content in zip(
                    others,
                    map_parallel(lambda f: self.read(f"{name}/{f}"), others),
                    strict=True,
                )
                if content is not None
            }
            # Again if another process replaced the folder meanwhile.
            is_complete = len(contents) == len(others)
            if is_complete and self.read(f"{name}/{marker}") == state:
                return _replace(local, {**contents, marker: state})

    def upload_folder(
        self, name: str, local: pathlib.Path, marker: str
    ) -> None:
        """Uploads a local folder, in place of the one in the bucket.

        Args:
            name: The folder in the bucket.
            local: The local folder.
            marker: The file that makes it complete.
        """
        contents = _contents(local)
        sums = {file: md5(content) for file, content in contents.items()}
        while True:
            self.remove(f"{name}/{marker}")
            self._upload(name, contents, marker)
            remote = self.files(name)
            # If two processes replace a folder at once, the one whose marker
            # stays sees the other's files and uploads its own again.
            is_other = remote.get(marker) != sums[marker]
            if is_other or sums.items() <= remote.items():
                return

    def create_folder(
        self, name: str, local: pathlib.Path, marker: str
    ) -> None:
        """Uploads a local folder unless it exists; then downloads it.

        The process that creates its first file uploads all of them. If that
        process dies, another one takes over after `CREATOR_TIMEOUT` seconds.

        Args:
            name: The folder in the bucket.
            local: The local folder.
            marker: The file that makes it complete.
        """
        contents = _contents(local)
        first = min(contents.keys() - {marker})
        rest = {f: c for f, c in contents.items() if f != first}
        until = time.monotonic() + CREATOR_TIMEOUT
        while self.read(f"{name}/{marker}") is None:
            if self.create(f"{name}/{first}", contents[first]):
                self._upload(name, rest, marker)
            elif time.monotonic() > until:
                self.remove(f"{name}/{first}")
            else:
                time.sleep(min(_POLL_INTERVAL, CREATOR_TIMEOUT))
        self.download_folder(name, local, marker)

    def download_new(self, name: str, local: pathlib.Path) -> None:
        """Downloads all files of a folder whose files never change.

        Args:
            name: The folder in the bucket.
            local: The local folder.
        """
        for file in self.files(name):
            content = self.read(f"{name}/{file}")
            if content is None:
                (local / file).unlink(missing_ok=True)
            else:
                local.mkdir(parents=True, exist_ok=True)
                array_file.write_bytes(local / file, content)
            self._uploaded.add(f"{name}/{file}")

    def upload_new(self, name: str, local: pathlib.Path) -> None:
        """Makes a folder hold the local files, which never change.

        It does nothing if the last upload was a short time ago: see
        `REST_FACTOR`.

        Args:
            name: The folder in the bucket.
            local: The local folder.
        """
        start = time.monotonic()
        if start < self._next_upload.get(name, 0.0):
            return
        remote = {f for f in self._uploaded if f.startswith(f"{name}/")}
        paths = {f"{name}/{path.name}": path for path in _visible(local)}
        for file in sorted(paths.keys() - remote):
            # Training may remove its old checkpoints meanwhile.
            with contextlib.suppress(FileNotFoundError):
                self.write(file, paths[file].read_bytes())
                self._uploaded.add(file)
        for file in remote - paths.keys():
            self.remove(file)
            self._uploaded.discard(file)
        end = time.monotonic()
        self._next_upload[name] = end + REST_FACTOR * (end - start)

    def remove_folder(self, name: str) -> None:
        """Removes a folder with all its files.

        Args:
            name: The folder.
        """
        files = [f"{name}/{file}" for file in self.files(name)]
        map_parallel(self.remove, files)
        self._uploaded = {
            f for f in self._uploaded if not f.startswith(f"{name}/")
        }

    def local_copy(self) -> pathlib.Path:
        """Returns this process's folder for copies of files.

        It is empty at first and removed when the process ends.
        """
        return _local_copy(self.address)

    def _upload(
        self, name: str, contents: dict[str, bytes], marker: str
    ) -> None:
        others = [file for file in contents if file != marker]
        map_parallel(lambda f: self.write(f"{name}/{f}", contents[f]), others)
        self.write(f"{name}/{marker}", contents[marker])

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._folder}{name}"

    def _pages(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        token = None
        while True:
            with self._bucket_errors():
                page = self._store.call(
                    "GET",
                    "b/{}/o",
                    self._bucket,
                    json_out=True,
                    prefix=prefix,
                    pageToken=token,
                    **options,
                )
            yield page
            token = page.get("nextPageToken")
            if not token:
                return

    @contextlib.contextmanager
    def _bucket_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - gcsfs raises any kind
            raise BucketError(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        if isinstance(error, FileNotFoundError):
            return (
                f"There is no bucket {self._bucket!r}, of {self.address!r}. "
                "Make it first, or give another address."
            )
        # After "Forbidden: " and the request, the next line says why.
        first, _, rest = str(error).partition("\n")
        is_forbidden = first.startswith("Forbidden")
        text = rest if is_forbidden else f"{first} {rest}"
        reason = " ".join(text.split())[:200].rstrip(".")
        reason = reason or type(error).__name__
        if is_forbidden or getattr(error, "code", None) in (401, "401"):
            return (
                f"No permission for {self.address!r}: {reason}. Log in with "
                "`gcloud auth application-default login`, or ask for the role "
                "Storage Object User."
            )
        return (
            f"{self.address!r} does not answer: {reason}. What is kept there "
            "stays; the same command goes on from there."
        )


def md5(content: bytes) -> str:
    """Returns the MD5 of a content as Google Cloud Storage writes it.

    Args:
        content: The content of an object.
    """
    return base64.b64encode(hashlib.md5(content).digest()).decode()


@functools.cache
def _store() -> Any:
    try:
        # `gcsfs.GCSFileSystem` would send a request for the kind of bucket.
        from gcsfs.core import GCSFileSystem
    except ImportError:
        raise MissingPackageError(
            "Addresses gs://… need gcsfs: pip install 'tf-lottery[gcs]'."
        ) from None
    # It raises the errors that it logs; without a handler they are printed.
    logging.getLogger("gcsfs").addHandler(logging.NullHandler())
    return GCSFileSystem(use_listings_cache=False)


@functools.cache
def _local_copy(address: str) -> pathlib.Path:
    folder = tempfile.mkdtemp(prefix="tf_lottery_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = pathlib.Path(folder) / address.rpartition("/")[2]
    copy.mkdir()
    return copy


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in sorted(folder.glob("*")) if p.name[0] != "."]


def _contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _visible(folder)}


def _replace(folder: pathlib.Path, contents: dict[str, bytes]) -> None:
    def write(new: pathlib.Path) -> None:
        for name, content in contents.items():
            (new / name).write_bytes(content)

    array_file.write_folder(folder, write)

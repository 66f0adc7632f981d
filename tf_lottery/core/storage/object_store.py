"""This module knows folders of a bucket: what lies there, whole or not at all.

An object is there whole or is not, and one process alone can create it; of
folders a bucket promises nothing. So one file of each folder goes up last, and
first goes away: while it is there, and stays the same, so is all the rest.
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

PATIENCE = 60.0  # seconds, with another one that has begun θ0
RESTS = 20
"""How many times as long as putting files of a training under way took this is
not done again: training waits for it."""
_LOOK_AGAIN = 1.0  # second, whether it is there
_AT_ONCE = 8  # requests

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class BucketError(UserError, OSError):
    """A bucket is not there, is not for this user, or does not answer."""


def of(path: str | os.PathLike[str]) -> "Bucket | None":
    """Returns the bucket's folder that a path is the address of.

    None of a path in a file system. `pathlib` folds the two slashes of an
    address into one: it is understood as well.

    Raises:
        ValueError: It is an address, and not one of Google Cloud Storage.
        ImportError: What reads such addresses is not installed.
    """
    found = re.match(r"(\w{2,}):/+(.*)", os.fspath(path))
    if not found:
        return None
    scheme, place = found[1], found[2].rstrip("/")
    if scheme != "gs" or not place:
        raise UserError(
            "A run directory lies in a file system, or in a bucket as "
            f"gs://bucket/folder; got {os.fspath(path)!r}. Of other stores it "
            "is not known that one process alone creates an object: mount it, "
            "and give the folder."
        )
    return Bucket(f"gs://{place}")


def each(
    do: Callable[[_Item], _Answer], items: Iterable[_Item]
) -> list[_Answer]:
    """Returns what is answered of each item, several asked at once."""
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(do, items))


class Bucket:
    """A folder of a bucket of Google Cloud Storage.

    Names of files and folders are relative to it. Every method may raise a
    `BucketError`, after half a minute of trying again.

    Args:
        address: `gs://bucket/folder`.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._bucket, _, folder = address[len("gs://") :].partition("/")
        self._folder = f"{folder}/" if folder else ""
        self._store = _store()
        self._up: set[str] = set()
        self._rests_until: dict[str, float] = {}

    def read(self, name: str) -> bytes | None:
        """Returns what is in a file; None: it is not there."""
        with self._asking():
            try:
                return self._store.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, new or not."""
        # As which a browser shows it: a report, for one.
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        with self._asking():
            self._store.pipe_file(self._path(name), content, content_type=kind)

    def create(self, name: str, content: bytes) -> bool:
        """Returns whether a file was written, for there was none."""
        with self._asking():
            try:
                # `ifGenerationMatch=0`: one request alone can meet it.
                self._store.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with self._asking(), contextlib.suppress(FileNotFoundError):
            self._store.rm_file(self._path(name))

    def is_empty(self) -> bool:
        """Returns whether there is nothing in this folder."""
        return not self.folders() and not self.files()

    def folders(self) -> list[str]:
        """Returns the names of the folders in this one."""
        pages = self._pages(self._folder, delimiter="/")
        found = [name for page in pages for name in page.get("prefixes", [])]
        return [name[len(self._folder) :].rstrip("/") for name in found]

    def files(self, folder: str = "") -> dict[str, str]:
        """Returns all files below a folder: name within it to MD5."""
        prefix = self._folder + (f"{folder}/" if folder else "")
        return {
            item["name"][len(prefix) :]: item.get("md5Hash", "")
            for page in self._pages(prefix)
            for item in page.get("items", [])
            if not item["name"].endswith("/")  # a folder, as the console makes
        }

    def bring(self, name: str, local: pathlib.Path) -> None:
        """Makes a local file what it is here: gone, if it is not here."""
        content = self.read(name)
        if content is None:
            local.unlink(missing_ok=True)
        else:
            local.parent.mkdir(parents=True, exist_ok=True)
            array_file.write_bytes(local, content)

    def bring_folder(self, name: str, local: pathlib.Path, last: str) -> None:
        """Makes a local folder what it is here: gone, if it is not whole.

        Args:
            name: The folder.
            local: The local one.
            last: Its file that tells one state of it from another.
        """
        while True:
            told = self.read(f"{name}/{last}")
            if told is None:
                return shutil.rmtree(local, ignore_errors=True)
            if (local / last).exists() and told == (local / last).read_bytes():
                return None
            others = [other for other in self.files(name) if other != last]
            found = each(lambda o: self.read(f"{name}/{o}"), others)
            # Again if it was replaced in the meantime.
            whole = [content for content in found if content is not None]
            if whole == found and self.read(f"{name}/{last}") == told:
                contents = dict(zip(others, whole, strict=True))
                return _replace(local, {**contents, last: told})

    def put_folder(self, name: str, local: pathlib.Path, last: str) -> None:
        """Puts a local folder here, in place of what is here."""
        mine = _contents(local)
        sums = {file: md5(content) for file, content in mine.items()}
        while True:
            self.remove(f"{name}/{last}")
            self._put(name, mine, last)
            there = self.files(name)
            # Of two that replace it at once, the one whose last file is here
            # sees what the other one wrote, and does it again.
            if there.get(last) != sums[last] or sums.items() <= there.items():
                return

    def put_first(self, name: str, local: pathlib.Path, last: str) -> None:
        """Puts a local folder here if there is none; brings what is here.

        Whoever creates one of its files puts all of them. Who died over that
        is waited for, and then another one does.
        """
        mine = _contents(local)
        first = min(mine.keys() - {last})
        until = time.monotonic() + PATIENCE
        while self.read(f"{name}/{last}") is None:
            if self.create(f"{name}/{first}", mine[first]):
                self._put(name, {f: mine[f] for f in mine if f != first}, last)
            elif time.monotonic() > until:
                self.remove(f"{name}/{first}")
            else:
                time.sleep(min(_LOOK_AGAIN, PATIENCE))
        self.bring_folder(name, local, last)

    def bring_new(self, name: str, local: pathlib.Path) -> None:
        """Brings the files of a folder, each of which never changes."""
        for file in self.files(name):
            self.bring(f"{name}/{file}", local / file)
            self._up.add(f"{name}/{file}")

    def put_new(self, name: str, local: pathlib.Path) -> None:
        """Makes a folder what the local one is; its files never change.

        Not at every call: see `RESTS`.
        """
        began = time.monotonic()
        if began < self._rests_until.get(name, 0.0):
            return
        here = {file for file in self._up if file.startswith(f"{name}/")}
        paths = {f"{name}/{path.name}": path for path in _visible(local)}
        for file in sorted(paths.keys() - here):
            # Whoever trains may be done with it.
            with contextlib.suppress(FileNotFoundError):
                self.write(file, paths[file].read_bytes())
                self._up.add(file)
        for file in here - paths.keys():
            self.remove(file)
            self._up.discard(file)
        ended = time.monotonic()
        self._rests_until[name] = ended + RESTS * (ended - began)

    def remove_folder(self, name: str) -> None:
        """Removes a folder and all that is in it."""
        each(self.remove, [f"{name}/{file}" for file in self.files(name)])
        self._up = {f for f in self._up if not f.startswith(f"{name}/")}

    def local_copy(self) -> pathlib.Path:
        """Returns this process's folder for what it brings and puts.

        It is empty at first and removed at the end: what is not in the bucket
        is nowhere.
        """
        return _local_copy(self.address)

    def _put(self, name: str, contents: dict[str, bytes], last: str) -> None:
        others = [file for file in contents if file != last]
        each(lambda f: self.write(f"{name}/{f}", contents[f]), others)
        self.write(f"{name}/{last}", contents[last])

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._folder}{name}"

    def _pages(self, prefix: str, **how: Any) -> Iterator[dict[str, Any]]:
        token = None
        while True:
            with self._asking():
                page = self._store.call(
                    "GET",
                    "b/{}/o",
                    self._bucket,
                    json_out=True,
                    prefix=prefix,
                    pageToken=token,
                    **how,
                )
            yield page
            token = page.get("nextPageToken")
            if not token:
                return

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - gcsfs raises what it meets
            raise BucketError(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        if isinstance(error, FileNotFoundError):
            return (
                f"There is no bucket {self._bucket!r}, of {self.address!r}. "
                "Make it first, or give another address."
            )
        # "Forbidden: " the request, and in the next line why.
        first, _, rest = str(error).partition("\n")
        is_forbidden = first.startswith("Forbidden")
        text = rest if is_forbidden else f"{first} {rest}"
        said = " ".join(text.split())[:200].rstrip(".") or type(error).__name__
        if is_forbidden or getattr(error, "code", None) in (401, "401"):
            return (
                f"No permission for {self.address!r}: {said}. Log in with "
                "`gcloud auth application-default login`, or ask for the role "
                "Storage Object User."
            )
        return (
            f"{self.address!r} does not answer: {said}. What is kept there "
            "stays; the same command goes on from there."
        )


def md5(content: bytes) -> str:
    """Returns what Google Cloud Storage says of an object's content."""
    return base64.b64encode(hashlib.md5(content).digest()).decode()


@functools.cache
def _store() -> Any:
    try:
        # Not `gcsfs.GCSFileSystem`, which asks what kind of bucket it is.
        from gcsfs.core import GCSFileSystem
    except ImportError:
        raise MissingPackageError(
            "Addresses gs://… need gcsfs: pip install 'tf-lottery[gcs]'."
        ) from None
    # What it logs it raises too; without this, it is printed.
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
    def write(beside: pathlib.Path) -> None:
        for name, content in contents.items():
            (beside / name).write_bytes(content)

    array_file.write_folder(folder, write)

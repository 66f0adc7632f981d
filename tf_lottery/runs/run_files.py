"""Files of a run directory on a disk or in a bucket."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tf_lottery.core.errors import MissingFileError, UserError
from tf_lottery.core.storage import array_file, object_store
from tf_lottery.runs import layout


def as_json(content: Any) -> bytes:
    """Returns the bytes of a JSON file.

    Args:
        content: A value that JSON can hold.
    """
    return f"{json.dumps(content, indent=2, sort_keys=True)}\n".encode()


class RunFiles:
    """Files of a run directory, named relative to it.

    All writes are atomic: a file or folder is written under a temporary name
    and then renamed. So any number of processes can share a directory.

    Of a directory in a bucket, each process has a temporary local copy of the
    folders it needs. Single files are read from the bucket and written to it.
    A folder in a bucket is complete if its marker, one of its files, exists.

    Args:
        path: The directory, or its address in a bucket.

    Attributes:
        path: The directory; of one in a bucket, the local copy.
        address: The directory, or its address in a bucket.

    Raises:
        BucketError: The bucket does not exist, is not permitted, or does not
            answer. Every method may raise it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._bucket = object_store.of(path)
        if self._bucket:
            self.path = self._bucket.local_copy()
            self.address = self._bucket.address
        else:
            self.path = pathlib.Path(path)
            self.address = str(self.path)

    def is_empty(self) -> bool:
        """Returns whether it holds nothing but a config.json being written."""
        if self._bucket:
            return self._bucket.is_empty()
        return not self.path.is_dir() or all(
            path.name.startswith(f".{layout.CONFIG}.")
            for path in self.path.iterdir()
        )

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file; None if it does not exist.

        Args:
            name: The file.
        """
        if self._bucket:
            return self._bucket.read(name)
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_all(self, names: Iterable[str]) -> list[bytes | None]:
        """Returns the contents of files; None for those that do not exist.

        Args:
            names: The files.
        """
        if self._bucket:
            return object_store.map_parallel(self.read, names)
        return [self.read(name) for name in names]

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Returns the content of a JSON file; None if it does not exist.

        Args:
            name: The file.
        """
        content = self.read(name)
        return None if content is None else json.loads(content)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, or replaces it.

        Args:
            name: The file. On a disk, its folder must exist.
            content: Its content.
        """
        if self._bucket:
            self._bucket.write(name, content)
        else:
            array_file.write_bytes(self.path / name, content)

    def versions(self, pattern: str) -> dict[str, object]:
        """Returns files, each with a value that changes with its content.

        Args:
            pattern: A glob pattern. Files in hidden folders, which a killed
                process may have left, are left out.
        """
        if self._bucket:
            files = self._bucket.files()
            return {n: md5 for n, md5 in files.items() if _matches(n, pattern)}
        versions: dict[str, object] = {}
        for path in self.path.glob(pattern):
            name = path.relative_to(self.path).as_posix()
            # Another process may be replacing the file.
            with contextlib.suppress(FileNotFoundError):
                if _matches(name, pattern):
                    versions[name] = path.stat().st_mtime_ns
        return versions

    def folder(self, name: str, marker: str) -> pathlib.Path:
        """Returns a folder's path, after downloading it from a bucket.

        Args:
            name: The folder. It need not exist.
            marker: The file that makes it complete.
        """
        if self._bucket:
            self._bucket.download_folder(name, self.path / name, marker)
        return self.path / name

    def folders(self, markers: str) -> list[pathlib.Path]:
        """Returns the paths of folders, after downloading those that changed.

        Args:
            markers: A glob pattern of the files that make them complete.
        """
        if self._bucket:
            remote = self.versions(markers)
            local = {
                name: object_store.md5((self.path / name).read_bytes())
                for name in self._local(markers)
            }
            changed = [
                pathlib.PurePosixPath(name)
                for name in local.keys() | remote.keys()
                if local.get(name) != remote.get(name)
            ]
            object_store.map_parallel(
                lambda path: self.folder(str(path.parent), path.name), changed
            )
        return [(self.path / name).parent for name in self._local(markers)]

    def replace_folder(
        self,
        name: str,
        write: Callable[[pathlib.Path], None],
        marker: str,
        replaces: Callable[[], bool] = lambda: True,
        scratch: str | None = None,
        old_marker: str | None = None,
    ) -> None:
        """Writes a folder, in place of the one that exists.

        Args:
            name: The folder.
            write: Writes the files into the empty folder it is called with.
            marker: The file that makes it complete.
            replaces: Called if the folder exists on the disk: returns whether
                to replace it.
            scratch: A folder for the temporary files. The default is the
                parent folder.
            old_marker: A file to remove first from the folder in a bucket.
                On a disk, all old files are removed anyway.
        """
        array_file.write_folder(
            self.path / name,
            write,
            None if scratch is None else self.path / scratch,
            replaces=replaces,
        )
        if self._bucket:
            if old_marker is not None:
                self._bucket.remove(f"{name}/{old_marker}")
            self._bucket.upload_folder(name, self.path / name, marker)

    def create_folder(
        self, name: str, write: Callable[[pathlib.Path], None], marker: str
    ) -> None:
        """Writes a folder unless it exists: the first process wins.

        Args:
            name: The folder.
            write: Writes the files into the empty folder it is called with.
            marker: The file that makes it complete.
        """
        array_file.write_folder(self.path / name, write, replaces=lambda: False)
        if self._bucket:
            self._bucket.create_folder(name, self.path / name, marker)

    def remove_folder(self, name: str) -> None:
        """Removes a folder, if it exists.

        Args:
            name: The folder.
        """
        shutil.rmtree(self.path / name, ignore_errors=True)
        if self._bucket:
            self._bucket.remove_folder(name)

    def download_new(self, name: str) -> None:
        """Downloads the files of a folder whose files never change.

        Args:
            name: The folder.
        """
        if self._bucket:
            self._bucket.download_new(name, self.path / name)

    def upload_new(self, name: str) -> None:
        """Uploads the new files of a folder whose files never change.

        Args:
            name: The folder.
        """
        if self._bucket:
            self._bucket.upload_new(name, self.path / name)

    @contextlib.contextmanager
    def errors_name_address(self) -> Iterator[None]:
        """Replaces the local copy by the address in errors' messages."""
        try:
            yield
        except (FileNotFoundError, ValueError) as error:
            if not self._bucket:
                raise
            kind: type[Exception] = ValueError
            if isinstance(error, FileNotFoundError):
                kind = MissingFileError
            elif isinstance(error, UserError):
                kind = UserError
            message = str(error).replace(str(self.path), self.address)
            raise kind(message) from None

    def _local(self, pattern: str) -> list[str]:
        names = (
            path.relative_to(self.path).as_posix()
            for path in self.path.glob(pattern)
        )
        return [name for name in names if _matches(name, pattern)]


def _matches(name: str, pattern: str) -> bool:
    path = pathlib.PurePosixPath(name)
    return path.match(pattern) and not path.parent.name.startswith(".")

"""Several files that count only together, on a disk or in an object store.

First the files are written, then `record.json`, which names them by their
SHA-256 and carries a checksum of its own. Without that record there is
nothing: so a process may be killed at any moment, and no file that was
damaged, exchanged or written by half is taken for a good one.
"""

import contextlib
import hashlib
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_lottery.core.storage import sealed_json
from tf_lottery.core.storage.folder import Folder, map_parallel
from tf_lottery.core.storage.local_folder import LocalFolder

RECORD = "record.json"
_FILES = "files"


def commit(
    folder: Folder,
    name: str,
    files: Mapping[str, bytes],
    content: Mapping[str, Any],
) -> None:
    """Writes files and their record, in place of what is there.

    Args:
        folder: Where.
        name: A folder in it that holds nothing else.
        files: Name to content.
        content: Further values of the record, as JSON holds them.
    """
    digests = {file: _digest(files[file]) for file in files}
    record = sealed_json.seal({**content, _FILES: digests})
    folder.remove(f"{name}/{RECORD}")
    folder.remove_folder(name)
    map_parallel(lambda f: folder.write(f"{name}/{f}", files[f]), files)
    folder.write(f"{name}/{RECORD}", record)


def read_record(folder: Folder, name: str) -> dict[str, Any] | None:
    """Returns the content of a record; None without one.

    Args:
        folder: Where.
        name: The folder in it.

    Raises:
        DamagedFileError: The record is not as it was written.
    """
    data = folder.read(f"{name}/{RECORD}")
    if data is None:
        return None
    return sealed_json.unseal(data, f"{folder.address}/{name}/{RECORD}")


def read(
    folder: Folder, name: str, files: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, bytes]] | None:
    """Returns a record and the contents of its files; None without a record.

    Args:
        folder: Where.
        name: The folder in it.
        files: The files that are needed. None: all that the record names.

    Raises:
        DamagedFileError: A file or the record is not as it was written.
    """
    while True:
        record = read_record(folder, name)
        if record is None:
            return None
        names = list(record[_FILES]) if files is None else list(files)
        found = map_parallel(lambda f: folder.read(f"{name}/{f}"), names)
        contents = {
            file: data
            for file, data in zip(names, found, strict=True)
            if data is not None and _digest(data) == record[_FILES].get(file)
        }
        if len(contents) == len(names):
            return record, contents
        wrong = next(file for file in names if file not in contents)
        if read_record(folder, name) == record:  # Else it was just replaced.
            raise sealed_json.damaged(
                f"{folder.address}/{name}/{wrong}",
                f"it differs from what {RECORD} says",
            )


@contextlib.contextmanager
def checkout(
    folder: Folder, name: str, files: Sequence[str] | None = None
) -> Iterator[tuple[dict[str, Any], pathlib.Path] | None]:
    """Yields a record and a folder on a disk with its files, for readers.

    Args:
        folder: Where.
        name: The folder in it.
        files: The files that are needed. None: all that the record names.

    Yields:
        None without a record. The folder is a temporary one if the files lie
        in an object store.

    Raises:
        DamagedFileError: A file or the record is not as it was written.
    """
    found = read(folder, name, files)
    if found is None:
        yield None
        return
    if isinstance(folder, LocalFolder):
        yield found[0], folder.path / name
        return
    record, contents = found
    with tempfile.TemporaryDirectory() as temporary:
        for file, content in contents.items():
            (pathlib.Path(temporary) / file).write_bytes(content)
        yield record, pathlib.Path(temporary)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""Zip archives from strangers, read in bounded memory."""

import contextlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from tf_lottery.core.errors import UserError

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""What NumPy writes. Of bzip2 and LZMA, Python unpacks whatever a few thousand
bytes stand for at once, however little is asked for."""

_DIRECTORY_LIMIT = 4 * 2**20
"""Bytes of the list of entries; Python takes some ten times as many for it."""

_END = 2**17
"""Bytes at the end of an archive among which `zipfile` looks for its list: it
reads from there without a size."""

_CHUNK = 2**20
"""Bytes that are unpacked at a time."""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Opens an archive whose entries can be unpacked in bounded memory.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: It is no regular file, lists too many entries, or is
            compressed otherwise than by deflate.
        Exception: It is no archive.
    """
    require_regular(path)
    with _Limited(io.FileIO(path)) as raw, zipfile.ZipFile(raw) as file:
        if any(e.compress_type not in _METHODS for e in file.infolist()):
            raise UserError("it is compressed otherwise than by deflate")
        yield file


def require_regular(path: str | os.PathLike[str]) -> None:
    """Raises unless a path is a file: a pipe or a device may never end.

    Args:
        path: The path; a link to a file is one.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: It is a folder, a pipe or a device.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UserError("it is not a regular file")


def read_array(
    stream: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    """Returns the next bytes of a stream as an array, in C order.

    Args:
        stream: An entry of an archive, or a file.
        dtype: A dtype without objects.
        shape: The shape.

    Raises:
        UserError: The stream ends before.
    """
    array = np.empty(shape, dtype)
    target = array.reshape(-1).view(np.uint8)
    while len(target):
        chunk = stream.read(min(_CHUNK, len(target)))
        if not chunk:
            raise UserError("it is truncated")
        target[: len(chunk)] = np.frombuffer(chunk, np.uint8)
        target = target[len(chunk) :]
    return array


class _Limited(io.BufferedReader):
    """A file that is read in parts of limited size.

    `zipfile` reads the list of entries by one call.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY_LIMIT:
            raise UserError("it lists too many entries")
        if size is None or size < 0:
            size = _END  # so that no more than that is reserved
        return super().read(size)

"""This module knows the file that tickets and trained weights are kept in.

An archive is an ordinary `.npz`: arrays that `numpy.load` reads without
pickle, and a header, JSON in UTF-8, under the name `header`. Equal contents
give equal bytes. Every array's SHA-256 stands in the header. Whatever is
written, files or folders of them, is there whole or not at all.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import pathlib
import shutil
import uuid
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_lottery.core.errors import MissingFileError, UserError, one_line

_HEADER = "header"
_HEADER_LIMIT = 16 * 2**20
"""In bytes of JSON, which takes some twenty times as many once it is read."""
_REASON_LIMIT = 200
_ALWAYS_ALLOWED = 256 * 2**20
_EXPANSION = 64
_RESERVED = {_HEADER, "arrays", "kind"}


def write(
    path: str | os.PathLike[str],
    kind: str,
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    compress: bool = True,
) -> None:
    """Writes an archive beside its place, then renames it into it.

    Args:
        path: Where it goes; an existing file is replaced at once and whole.
        kind: What it holds, such as `"ticket"`; `read` asks for it.
        header: Whatever JSON can hold.
        arrays: Name to array.
        compress: Whether the file shall be small rather than written fast.

    Raises:
        ValueError: A name is taken by the archive itself, or an array holds
            objects, or numbers that NumPy has no name for, such as bfloat16.
    """
    for name in _RESERVED & {*header, *arrays}:
        raise UserError(f"{name!r} is a name of the archive's own.")
    contents = {n: np.asarray(arrays[n], order="C") for n in sorted(arrays)}
    for name, array in contents.items():
        if array.dtype.kind == "V":
            raise UserError(
                f"{name!r} is {array.dtype}, which NumPy's files do not keep. "
                "Cast it first: array.astype('float32')."
            )
    listed = {
        name: {
            "shape": list(array.shape),
            "dtype": array.dtype.str,
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }
        for name, array in contents.items()
    }
    text = json.dumps(
        {"kind": kind, **header, "arrays": listed}, sort_keys=True
    ).encode()
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as file:
        entries = {_HEADER: np.frombuffer(text, np.uint8), **contents}
        for name, array in entries.items():
            # A ZipInfo without a date: bytes must not depend on the hour.
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = method
            preamble = _preamble(array.dtype, array.shape)
            file.writestr(info, preamble + array.tobytes())
    write_bytes(pathlib.Path(path), buffer.getvalue())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file beside its place, then renames it into it."""
    beside = temporary_sibling(path)
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_folder(
    folder: pathlib.Path,
    write: Callable[[pathlib.Path], None],
    within: pathlib.Path | None = None,
    replaces: Callable[[], bool] = lambda: True,
) -> None:
    """Writes a folder beside its place, then renames it into it.

    Args:
        folder: Where it goes.
        write: Fills the folder it is given.
        within: A folder beside it to write in, whose owner removes what a
            killed process leaves there. None: right beside it.
        replaces: Called if there is one by then: whether that one goes.
    """
    beside = temporary_sibling((within or folder.parent) / folder.name)
    beside.mkdir(parents=True)
    try:
        write(beside)
        while not _moved(beside, folder) and replaces():
            # Not deleted in its place, where others may be reading it.
            aside = temporary_sibling(beside)
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, aside)
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def temporary_sibling(path: pathlib.Path) -> pathlib.Path:
    """Returns a place beside a path that no other process takes.

    Not named by process: in containers all processes have the same number.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")


def read(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns header and arrays of an archive, checked against each other.

    Args:
        path: The file.
        kind: What it must hold.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated, altered, or something else altogether.
    """
    try:
        with zipfile.ZipFile(path) as file:
            header = _header(file)
            if header.get("kind") != kind:
                raise UserError(f"it holds a {header.get('kind')!r}")
            size = sum(entry.file_size for entry in file.infolist())
            if size > allowance(path):
                raise UserError(f"it would unpack to {size} bytes")
            arrays = {
                name: _array(file, name, entry)
                for name, entry in header.pop("arrays").items()
            }
    except FileNotFoundError:
        raise MissingFileError(f"No {kind} file {str(path)!r}.") from None
    except Exception as error:  # noqa: BLE001 - a stranger's bytes: anything
        raise damaged(path, kind, error) from None
    return header, arrays


def damaged(
    path: str | os.PathLike[str], kind: str, error: Exception
) -> UserError:
    """Returns what refuses a file in one line.

    Short, too: what a stranger's bytes make others say may quote all of them.
    """
    reason = one_line(error, _REASON_LIMIT)
    return UserError(
        f"{str(path)!r} is no {kind} file, or a damaged one: {reason}."
    )


def allowance(path: str | os.PathLike[str]) -> int:
    """Returns how many bytes a file may unpack to: 256 MiB, 64 times its size.

    Whichever is more. Masks compress some twenty times; what compresses a
    thousand times, and is large, was made to fill the memory.
    """
    return max(_ALWAYS_ALLOWED, _EXPANSION * os.path.getsize(path))


def _header(file: zipfile.ZipFile) -> dict[str, Any]:
    size = file.getinfo(f"{_HEADER}.npy").file_size
    if size > _HEADER_LIMIT:
        raise UserError("its header is too large")
    length = size - len(_preamble(np.dtype("uint8"), (size,)))
    text = _contents(file, _HEADER, np.dtype("uint8"), (max(length, 0),))
    header = json.loads(text.tobytes())
    if not isinstance(header, dict):
        raise TypeError("its header is no mapping")
    return header


def _array(
    file: zipfile.ZipFile, name: str, entry: Mapping[str, Any]
) -> np.ndarray:
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise UserError(f"{name} has a shape of {shape}")
    array = _contents(file, name, dtype, shape)
    if hashlib.sha256(array.tobytes()).hexdigest() != entry["sha256"]:
        raise UserError(f"{name} is not what its header says")
    return array


def _contents(
    file: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    """Returns an entry that is exactly what `write` writes for this array.

    Nothing of the entry is interpreted, and no more of it is unpacked than
    dtype and shape promise.
    """
    if dtype.hasobject:
        raise UserError(f"{name} holds objects")
    preamble = _preamble(dtype, shape)
    expected = len(preamble) + math.prod(shape) * dtype.itemsize
    if file.getinfo(f"{name}.npy").file_size != expected:
        raise UserError(f"{name} is larger than its header says, or smaller")
    with file.open(f"{name}.npy") as stream:
        data = stream.read(expected + 1)
    if len(data) != expected or not data.startswith(preamble):
        raise UserError(f"{name} is not what its header says")
    array = np.frombuffer(data, dtype, offset=len(preamble))
    return array.reshape(shape).copy()


def _preamble(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Returns what a `.npy` file of such an array begins with."""
    if dtype.hasobject:
        raise UserError("Object arrays are not kept in archives.")
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype.str, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def _moved(source: pathlib.Path, folder: pathlib.Path) -> bool:
    """Moves a folder to its place; returns False if that is taken."""
    try:
        os.rename(source, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True

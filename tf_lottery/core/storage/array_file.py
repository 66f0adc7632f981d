"""File format of tickets and trained weights.

A file is an ordinary `.npz`: arrays that `numpy.load` reads without pickle,
and JSON in UTF-8 under the name `header`, which also holds the SHA-256 of each
array. Equal contents give equal bytes. Files and folders are written under a
temporary name and then renamed, so that no reader sees half of one.
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
"""In bytes of JSON; a parsed header takes some twenty times as many."""
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
    """Writes arrays and a header to a file, atomically.

    Args:
        path: The file; an existing one is replaced.
        kind: The kind of content, such as `"ticket"`; `read` checks it.
        header: Values that JSON can hold.
        arrays: Name to array, of any shape.
        compress: True compresses what compresses well, all arrays but
            floats; False writes the file fast.

    Raises:
        UserError: A name is reserved, or an array holds objects, or has a
            dtype that NumPy cannot name, such as bfloat16.
    """
    for name in _RESERVED & {*header, *arrays}:
        raise UserError(f"{name!r} is a reserved name; rename it.")
    contents = {n: np.asarray(arrays[n], order="C") for n in sorted(arrays)}
    for name, array in contents.items():
        if array.dtype.kind == "V":
            raise UserError(
                f"{name!r} is {array.dtype}, which NumPy cannot store. "
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
            # A ZipInfo without a date: bytes must not depend on the time.
            info = zipfile.ZipInfo(f"{name}.npy")
            # Weights hardly compress, and that takes seconds a network.
            is_float = array.dtype.kind == "f"
            info.compress_type = zipfile.ZIP_STORED if is_float else method
            preamble = _preamble(array.dtype, array.shape)
            file.writestr(info, preamble + array.tobytes())
    write_bytes(pathlib.Path(path), buffer.getvalue())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file atomically.

    Args:
        path: The file; an existing one is replaced.
        data: Its content.
    """
    temporary = temporary_sibling(path)
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_folder(
    folder: pathlib.Path,
    write: Callable[[pathlib.Path], None],
    within: pathlib.Path | None = None,
    replaces: Callable[[], bool] = lambda: True,
) -> None:
    """Writes a folder atomically.

    Args:
        folder: The folder to create.
        write: Writes the files into the temporary folder that it is passed.
        within: The parent of the temporary folder, on the same file system,
            for a caller that cleans up after killed processes. None: the
            parent of `folder`.
        replaces: Called if `folder` exists by then; returns whether to
            replace it.
    """
    temporary = temporary_sibling((within or folder.parent) / folder.name)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        while not _renamed(temporary, folder) and replaces():
            # Renamed before it is deleted: others may be reading it.
            old = temporary_sibling(temporary)
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, old)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_sibling(path: pathlib.Path) -> pathlib.Path:
    """Returns an unused path in the same folder.

    It is random, not the process id: containers share process ids.

    Args:
        path: A file or folder, which need not exist.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")


def read(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns header and arrays of a file, checked against each other.

    Args:
        path: The file.
        kind: The kind of content that it must have, such as `"ticket"`.

    Raises:
        MissingFileError: There is no such file.
        UserError: It is truncated, altered, or a file of another kind.
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
    except Exception as error:  # noqa: BLE001 - foreign bytes raise anything
        raise damaged(path, kind, error) from None
    return header, arrays


def damaged(
    path: str | os.PathLike[str], kind: str, error: Exception
) -> UserError:
    """Returns the error for a file that cannot be read.

    The reason is truncated, because for a corrupt file zipfile and NumPy may
    quote its whole content.

    Args:
        path: The file.
        kind: The kind of content expected, such as `"ticket"`.
        error: The reason.
    """
    reason = one_line(error, _REASON_LIMIT)
    return UserError(
        f"{str(path)!r} is no {kind} file, or a damaged one: {reason}."
    )


def allowance(path: str | os.PathLike[str]) -> int:
    """Returns the limit on the unpacked size of a file, in bytes.

    It is 256 MiB or 64 times the size of the file, whichever is more. Masks
    compress some twenty times. A large file that compresses a thousand times
    was made to fill the memory.

    Args:
        path: The file.
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
        raise TypeError("its header is not a mapping")
    return header


def _array(
    file: zipfile.ZipFile, name: str, entry: Mapping[str, Any]
) -> np.ndarray:
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise UserError(f"{name} has a shape of {shape}")
    array = _contents(file, name, dtype, shape)
    if hashlib.sha256(array.tobytes()).hexdigest() != entry["sha256"]:
        raise UserError(f"{name} differs from its header")
    return array


def _contents(
    file: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    """Returns an entry, if its bytes are as `write` writes this array.

    The entry's preamble is compared, not parsed, and no more bytes are unpacked
    than dtype and shape imply.
    """
    if dtype.hasobject:
        raise UserError(f"{name} holds objects")
    preamble = _preamble(dtype, shape)
    expected = len(preamble) + math.prod(shape) * dtype.itemsize
    if file.getinfo(f"{name}.npy").file_size != expected:
        raise UserError(f"{name} has another size than its header says")
    with file.open(f"{name}.npy") as stream:
        data = stream.read(expected + 1)
    if len(data) != expected or not data.startswith(preamble):
        raise UserError(f"{name} differs from its header")
    array = np.frombuffer(data, dtype, offset=len(preamble))
    return array.reshape(shape).copy()


def _preamble(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Returns the first bytes of a `.npy` file of such an array."""
    if dtype.hasobject:
        raise UserError("Object arrays cannot be stored.")
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype.str, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def _renamed(source: pathlib.Path, folder: pathlib.Path) -> bool:
    """Renames a folder; returns False if the target exists."""
    try:
        os.rename(source, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True

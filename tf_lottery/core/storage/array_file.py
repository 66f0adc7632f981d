"""File format of tickets and trained weights.

A file is an ordinary `.npz`: arrays that `numpy.load` reads without pickle,
and JSON in UTF-8 under the name `header`, which also holds the SHA-256 of each
array. Equal contents give equal bytes.
"""

import hashlib
import io
import json
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_lottery.core.errors import MissingFileError, UserError, one_line
from tf_lottery.core.storage import atomic, zip_archive

_HEADER = "header"
_HEADER_LIMIT = 4 * 2**20
"""In bytes of JSON; a parsed header takes up to forty times as many."""
_DTYPES = {
    dtype.str: dtype
    for order in "<>"
    for letter in "?bBhHiIlLqQefd"
    for dtype in [np.dtype(order + letter)]
}
"""The dtypes that a file may hold, by name: bool, integers, floats."""
_DIMENSIONS = 32
"""Limit on the dimensions of an array, as in NumPy 1."""
_NAME_LIMIT = 4096
"""Limit on the length of an array's name."""
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
        UserError: As for `encode`.
    """
    data = encode(kind, header, arrays, compress)
    atomic.write_bytes(pathlib.Path(path), data)


def encode(
    kind: str,
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    compress: bool = True,
) -> bytes:
    """Returns the bytes of a file of arrays and a header.

    Args:
        kind: The kind of content, such as `"ticket"`; `read` checks it.
        header: Values that JSON can hold.
        arrays: Name to array, of any shape.
        compress: True makes the file small, False writes it fast.

    Raises:
        UserError: A name is reserved or too long, or an array is of another
            dtype than bool, integers and floats, such as bfloat16.
    """
    for name in _RESERVED & {*header, *arrays}:
        raise UserError(f"{name!r} is a reserved name; rename it.")
    contents = {n: np.asarray(arrays[n], order="C") for n in sorted(arrays)}
    for name, array in contents.items():
        if array.dtype.str not in _DTYPES:
            raise UserError(
                f"{name!r} is {array.dtype}, which this file cannot hold. "
                "Cast it first: array.astype('float32')."
            )
        if array.ndim > _DIMENSIONS or len(name) > _NAME_LIMIT:
            raise UserError(
                f"{name[:80]!r} has {array.ndim} dimensions and a name of "
                f"{len(name)} letters; at most are {_DIMENSIONS} and "
                f"{_NAME_LIMIT}."
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
    return buffer.getvalue()


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
        with zip_archive.opened(path) as file:
            header = _header(file)
            _require_kind(header.get("kind"), kind)
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


def _require_kind(found: Any, kind: str) -> None:
    if not isinstance(found, str):
        raise UserError("its header names no kind of content")
    if found != kind:
        raise UserError(f"it holds a {found!r}")


def _array(
    file: zipfile.ZipFile, name: str, entry: Mapping[str, Any]
) -> np.ndarray:
    if len(name) > _NAME_LIMIT:
        raise UserError("an array has too long a name")
    dtype, shape = _DTYPES.get(entry["dtype"]), entry["shape"]
    if dtype is None:
        raise UserError(f"{name} holds neither numbers nor truth values")
    require_shape(shape, name)
    array = _contents(file, name, dtype, tuple(shape))
    if hashlib.sha256(array.data).hexdigest() != entry["sha256"]:
        raise UserError(f"{name} differs from its header")
    return array


def require_shape(shape: Any, name: str) -> None:
    """Raises unless a value of a header is a shape.

    Args:
        shape: The value.
        name: What has the shape, for the message.

    Raises:
        UserError: It is no list of few numbers that are 0 or more.
    """
    if not isinstance(shape, list) or len(shape) > _DIMENSIONS:
        raise UserError(f"{name} has no list of few numbers as its shape")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise UserError(f"{name} has a shape of {str(shape)[:99]}")


def _contents(
    file: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    """Returns an entry, if its bytes are as `write` writes this array.

    The entry's preamble is compared, not parsed, and no more bytes are unpacked
    than dtype and shape imply.
    """
    preamble = _preamble(dtype, shape)
    expected = len(preamble) + math.prod(shape) * dtype.itemsize
    if file.getinfo(f"{name}.npy").file_size != expected:
        raise UserError(f"{name} has another size than its header says")
    with file.open(f"{name}.npy") as stream:
        if stream.read(len(preamble)) != preamble:
            raise UserError(f"{name} differs from its header")
        array = zip_archive.read_array(stream, dtype, shape)
        if stream.read(1):
            raise UserError(f"{name} differs from its header")
    return array


def _preamble(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Returns the first bytes of a `.npy` file of such an array."""
    if dtype.hasobject:
        raise UserError("Object arrays cannot be stored.")
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype.str, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()

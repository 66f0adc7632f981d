"""This module knows the file that tickets and trained weights are kept in.

An archive is an ordinary `.npz`: arrays that `numpy.load` reads without
pickle, and a header, JSON in UTF-8, under the name `header`. Equal contents
give equal bytes. Every array's SHA-256 stands in the header.
"""

import hashlib
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

_HEADER = "header"
_HEADER_LIMIT = 64 * 2**20


def write(
    path: str | os.PathLike[str],
    kind: str,
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Writes an archive beside its place, then renames it into it.

    Args:
        path: Where it goes; an existing file is replaced at once and whole.
        kind: What it holds, such as `"ticket"`; `read` asks for it.
        header: Whatever JSON can hold.
        arrays: Name to array.
    """
    listed = {
        name: {
            "shape": list(array.shape),
            "dtype": array.dtype.str,
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }
        for name, array in arrays.items()
    }
    text = json.dumps(
        {"kind": kind, **header, "arrays": listed}, sort_keys=True
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        entries = {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
        for name, array in entries.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            # A ZipInfo without a date: bytes must not depend on the hour.
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data.getvalue())
    write_bytes(pathlib.Path(path), buffer.getvalue())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file beside its place, then renames it into it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


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
                raise ValueError(f"it holds a {header.get('kind')!r}")
            arrays = {
                name: _array(file, name, entry)
                for name, entry in header.pop("arrays").items()
            }
    except FileNotFoundError:
        raise FileNotFoundError(f"No {kind} file {str(path)!r}.") from None
    except (
        AttributeError,
        EOFError,
        KeyError,
        NotImplementedError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zipfile.zlib.error,  # type: ignore[attr-defined]
    ) as error:
        raise ValueError(
            f"{str(path)!r} is no {kind} file, or a damaged one: {error}."
        ) from None
    return header, arrays


def _header(file: zipfile.ZipFile) -> dict[str, Any]:
    if file.getinfo(f"{_HEADER}.npy").file_size > _HEADER_LIMIT:
        raise ValueError("its header is too large")
    with file.open(f"{_HEADER}.npy") as entry:
        text = np.lib.format.read_array(entry, allow_pickle=False)
    header = json.loads(text.tobytes())
    if not isinstance(header, dict):
        raise TypeError("its header is no mapping")
    return header


def _array(
    file: zipfile.ZipFile, name: str, entry: Mapping[str, Any]
) -> np.ndarray:
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects")
    # What the header promises bounds what is unpacked.
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if file.getinfo(f"{name}.npy").file_size > expected + 4096:
        raise ValueError(f"{name} is larger than its header says")
    with file.open(f"{name}.npy") as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    if (array.dtype, array.shape, digest) != (dtype, shape, entry["sha256"]):
        raise ValueError(f"{name} is not what its header says")
    return array

"""Ticket files that a stranger made to do harm, built byte by byte."""

import hashlib
import io
import json
import struct
import zipfile

import numpy as np

MASK = np.packbits([0, 1, 1, 1, 1, 1, 1, 1])  # the gaps of [1, 0, 0, …]
"""Codes of width 1: one survivor, then seven pruned weights."""


def npy(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version=(1, 0))
    return stream.getvalue()


def listed(array):
    """Returns an honest entry of the header for an array."""
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.str,
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }


def parts(**changes):
    """Returns header and arrays of a ticket of one kernel of 8 weights."""
    arrays = {
        "masks/fc/kernel": MASK,
        "weights.kept/fc/kernel": np.ones(1, "f4"),
        "weights/fc/bias": np.zeros(2, "f4"),
    }
    arrays |= changes.pop("arrays", {})
    header = {
        "kind": "ticket",
        "format": 1,
        "level": 1,
        "variant": "ticket",
        "step": 0,
        "shapes": {"fc/kernel": [4, 2]},
        "widths": {"fc/kernel": 1},
        "drawn": {},
        "architecture": None,
        "metrics": {},
        "provenance": {},
    }
    header["arrays"] = {name: listed(array) for name, array in arrays.items()}
    return header | changes, arrays


def write(path, header, arrays, method=zipfile.ZIP_DEFLATED):
    """Writes a ticket file whose digests are right."""
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with zipfile.ZipFile(path, "w", method) as file:
        for name, array in {"header": text, **arrays}.items():
            file.writestr(f"{name}.npy", npy(array))


def bomb(path, method, size=64 * 2**20):
    """Writes a ticket of which a few kilobytes stand for `size` bytes.

    The list of entries says that the array takes 8 bytes.
    """
    header, arrays = parts()
    name = "weights/fc/bias"
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("header.npy", npy(text))
        for other in arrays.keys() - {name}:
            file.writestr(f"{other}.npy", npy(arrays[other]))
        with file.open(f"{name}.npy", "w") as entry:
            entry.write(npy(arrays[name])[:128])
            for _ in range(size // 2**20):
                entry.write(bytes(2**20))
    data = bytearray(path.read_bytes())
    lie = struct.pack("<L", len(npy(arrays[name])))
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    data[place + 24 : place + 28] = lie
    path.write_bytes(data)


def header_of(path, text):
    """Writes a ticket file of nothing but a header."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("header.npy", npy(np.frombuffer(text.encode(), "u1")))

"""The file of a ticket: what it stores, and the checks when it is read."""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.core.storage import array_file, atomic, mask_codec
from tf_lottery.lottery import seeded_weights
from tf_lottery.training import State
from tf_lottery.training.state import Arrays

if TYPE_CHECKING:
    from tf_lottery.lottery.ticket import Ticket

_FORMAT = 1
"""Version of the file's layout; files of other versions are refused."""

_HEADER_TEXT_LIMIT = 2**20
"""Bytes; a longer architecture is stored as an array, not in the header."""

_EXPANSION = 16
"""Limit on the unpacked kernels and slots, as a multiple of
`array_file.allowance`.

A mask takes a byte a weight; a float32 weight and three slots take 16.
"""


def save(
    ticket: "Ticket", path: str | os.PathLike[str], values: bool = True
) -> None:
    """Writes a ticket to a file.

    Args:
        ticket: The ticket.
        path: The file; it is replaced atomically.
        values: Whether to store the values of kernels that their initializer
            can draw again from a seed.

    Raises:
        UserError: `values` is False and no kernel can be drawn again.
    """
    atomic.write_bytes(pathlib.Path(path), encode(ticket, values))


def encode(ticket: "Ticket", values: bool = True) -> bytes:
    """Returns the bytes of a ticket's file.

    Args:
        ticket: The ticket.
        values: Whether to store the values of kernels that their initializer
            can draw again from a seed.

    Raises:
        UserError: `values` is False and no kernel can be drawn again.
    """
    start = ticket.start
    drawn: dict[str, dict[str, Any]] = {}
    if not values:
        drawn = seeded_weights.initializer_specs(
            ticket.template(), start.weights, ticket.masks
        )
        if not drawn:
            raise UserError(
                "No kernel of this ticket is what its initializer draws "
                "from a seed: the file needs its values. Leave out "
                "`values=False`; on the command line: --format ticket."
            )
    stored = {p: w for p, w in start.weights.items() if p not in drawn}
    encoded = {p: mask_codec.encode(mask) for p, mask in ticket.masks.items()}
    arrays = {f"masks/{p}": codes for p, (_, codes) in encoded.items()}
    arrays |= pack("weights", stored, ticket.masks)
    arrays |= pack("slots", start.slots, ticket.masks)
    architecture = ticket.architecture
    if architecture is not None and len(architecture) > _HEADER_TEXT_LIMIT:
        text = architecture.encode()
        arrays["architecture"] = np.frombuffer(text, np.uint8)
        architecture = None
    header = {
        "format": _FORMAT,
        "level": ticket.level,
        "variant": ticket.variant,
        "step": ticket.origin.step,
        "shapes": {p: list(s) for p, s in ticket.masks.shapes.items()},
        "widths": {p: width for p, (width, _) in encoded.items()},
        "drawn": drawn,
        "architecture": architecture,
        "metrics": dict(ticket.metrics),
        "provenance": dict(ticket.provenance),
    }
    return array_file.encode("ticket", header, arrays)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the fields of the ticket in a file, by attribute of `Ticket`.

    Args:
        path: The file. It may come from a stranger: nothing in it is
            executed, and the memory that it takes is bounded.

    Raises:
        UserError: It is no ticket, or damaged, or of another version, or
            holds a seed from which this Keras draws other weights.
    """
    header, arrays = array_file.read(path, "ticket")
    version = header.get("format")
    if type(version) is int and version != _FORMAT:
        raise UserError(
            f"{str(path)!r} is a ticket of format {str(version)[:9]!r}; "
            f"this version of tf_lottery reads format {_FORMAT}. Update "
            "tf_lottery, or save the ticket again with this version."
        )
    try:
        _count(header, "format")
        return _fields(header, arrays, array_file.allowance(path))
    except Exception as error:  # noqa: BLE001 - a stranger's bytes
        raise array_file.damaged(path, "ticket", error) from None


def _fields(
    header: Mapping[str, Any], arrays: Arrays, allowance: int
) -> dict[str, Any]:
    masks = _masks(header, arrays, allowance)
    drawn = _typed(header, "drawn", dict)
    if not drawn.keys() <= masks.keys():
        raise UserError("it draws weights of kernels that it does not mask")
    _require_affordable(arrays, masks, drawn, allowance)
    _require_finite(arrays)
    weights = unpack("weights", arrays, masks)
    slots = unpack("slots", arrays, masks)
    for path, spec in drawn.items():
        weights[path] = seeded_weights.draw(spec, masks[path])
    masks.require({p: w.shape for p, w in weights.items() if p in masks})
    _require_finite({path: weights[path] for path in drawn})
    architecture = _typed(header, "architecture", str | None)
    if "architecture" in arrays:
        architecture = arrays["architecture"].tobytes().decode()
    return {
        "masks": masks,
        "origin": State(_count(header, "step"), weights, slots),
        "architecture": architecture,
        "level": _count(header, "level"),
        "variant": _typed(header, "variant", str),
        "metrics": _typed(header, "metrics", dict),
        "provenance": _typed(header, "provenance", dict),
    }


def pack(kind: str, arrays: Arrays, masks: Masks) -> dict[str, np.ndarray]:
    """Returns arrays without the pruned values of kernels and their slots.

    Args:
        kind: The prefix of the keys, such as `"weights"`.
        arrays: Path to value; a slot's path begins with that of its kernel.
        masks: The masks of the kernels.

    Returns:
        `kind/path` to value; for a kernel or its slot, `kind.kept/path` to
        the surviving values in the order of the flat index, `[kept]`.
    """
    packed = {}
    for path, array in arrays.items():
        mask = _mask_of(path, masks)
        if mask is None or array.shape != mask.shape:
            packed[f"{kind}/{path}"] = np.asarray(array)
        else:
            packed[f"{kind}.kept/{path}"] = array[mask]
    return packed


def unpack(kind: str, arrays: Arrays, masks: Masks) -> dict[str, np.ndarray]:
    """Returns the arrays that `pack` packed, pruned values at zero.

    Args:
        kind: The prefix of the keys, such as `"weights"`.
        arrays: The packed arrays; those of other kinds are ignored.
        masks: The masks that they were packed with.

    Raises:
        UserError: The number of surviving values does not fit the mask.
    """
    unpacked = {}
    for key, array in arrays.items():
        if key.startswith(f"{kind}/"):
            unpacked[key.removeprefix(f"{kind}/")] = array
        elif key.startswith(f"{kind}.kept/"):
            path = key.removeprefix(f"{kind}.kept/")
            mask = _mask_of(path, masks)
            if mask is None or array.shape != (int(mask.sum()),):
                raise UserError(f"{key} does not fit its mask")
            unpacked[path] = np.zeros(mask.shape, array.dtype)
            unpacked[path][mask] = array
    return unpacked


def _mask_of(path: str, masks: Masks) -> np.ndarray | None:
    """Returns the mask of a kernel, or of the kernel that a slot belongs to."""
    while path:
        if path in masks:
            return masks[path]
        path = path.rpartition("/")[0]
    return None


def _masks(header: Mapping[str, Any], arrays: Arrays, allowance: int) -> Masks:
    sizes = {}
    for path, shape in _typed(header, "shapes", dict).items():
        array_file.require_shape(shape, f"the mask of {path!r}")
        sizes[path] = math.prod(shape)
        if not sizes[path]:
            raise UserError(f"the mask of {path!r} has a shape of {shape}")
    # A few codes can stand for any number of pruned weights.
    if sum(sizes.values()) > allowance:
        raise UserError(f"masks of {sum(sizes.values())} weights")
    masks = {}
    for path, size in sizes.items():
        codes = arrays[f"masks/{path}"]
        mask = mask_codec.decode(header["widths"][path], codes, size)
        masks[path] = mask.reshape(header["shapes"][path])
    return Masks(masks)


def _require_affordable(
    arrays: Arrays, masks: Masks, drawn: Mapping[str, Any], allowance: int
) -> None:
    """Raises if many small arrays would become many large ones."""
    size = sum(4 * masks[path].size for path in drawn)
    for key, array in arrays.items():
        kind, _, path = key.partition("/")
        mask = _mask_of(path, masks)
        if kind.endswith(".kept") and mask is not None:
            size += mask.size * array.itemsize
    if size > _EXPANSION * allowance:
        raise UserError(f"it would unpack to {size} bytes")


def _require_finite(arrays: Arrays) -> None:
    for path, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{path!r} holds values that are not finite")


def _count(header: Mapping[str, Any], name: str) -> int:
    value = header[name]
    if type(value) is not int or not 0 <= value < 2**63:
        raise UserError(f"its {name} is no number from 0 on")
    return value


def _typed(header: Mapping[str, Any], name: str, kind: Any) -> Any:
    if not isinstance(header[name], kind):
        raise UserError(f"its {name} is {type(header[name]).__name__}")
    return header[name]

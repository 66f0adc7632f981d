"""This module knows how other codebases write masks down.

`"open_lth"`: the dictionary that Frankle's open_lth keeps in `mask.pth`, as
`np.savez("mask.npz", **mask.numpy())` writes it: PyTorch's layout, in which a
kernel is [outputs, inputs, rows, columns].

`"google"`: the folder that google-research/lottery-ticket-hypothesis keeps
(`save_restore.save_network`): `layer0.npy`, `layer1.npy`, …, in the layout of
Keras.

Both know the order of layers and not our names, so masks are matched with the
kernels of a model in its order. Where a Dense layer follows a flattened image,
PyTorch counts channels first and Keras last; that order is not translated.
"""

import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

from tf_lottery import masking
from tf_lottery.core import registry
from tf_lottery.core.errors import UserError, one_line
from tf_lottery.core.masks import Masks
from tf_lottery.export import replacing
from tf_lottery.export import source as sources
from tf_lottery.lottery.ticket import Ticket

Named = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
Path = str | os.PathLike[str]


def read_masks(path: Path, model: Any, format: str) -> Masks:
    """Returns the masks of a file or folder of another codebase.

    Args:
        path: `mask.npz`, or the folder of `.npy` files.
        model: The Keras model whose kernels they are of, in its order.
        format: `"open_lth"` or `"google"`.

    Raises:
        ValueError: There are no masks of that format, or not as many as the
            model has kernels, or of other shapes, or with other values than 0
            and 1. Nothing is unpickled, and no more is read than the model's
            kernels need.
    """
    read, _ = registry.get(FORMATS, format, "format of masks")
    kernels = masking.kernels(model)
    shapes = {p: tuple(k.variable.shape) for p, k in kernels.items()}
    try:
        return Masks(read(pathlib.Path(path), shapes))
    except Exception as error:  # noqa: BLE001 - a stranger's bytes: anything
        reason = one_line(error)
        raise UserError(
            f"{str(path)!r} holds no masks of {model.name!r} as {format} "
            f"writes them: {reason}"
        ) from None


def write_masks(
    source: sources.Source,
    path: Path,
    format: str,
    names: Sequence[str] | None = None,
) -> pathlib.Path:
    """Writes masks as another codebase reads them.

    Args:
        source: A ticket, or a masked Keras model.
        path: `mask.npz`, or the folder of `.npy` files; replaced if there.
        format: `"open_lth"` or `"google"`.
        names: What the other codebase calls the kernels, in the model's
            order, such as `["fc_layers.0.weight", "fc.weight"]`. None:
            `layer0`, `layer1`, … for `"google"`, our names for `"open_lth"`.

    Returns:
        The file or folder.

    Raises:
        ValueError: Names are as many as kernels, or name files elsewhere, or
            the path cannot be written.
    """
    _, write = registry.get(FORMATS, format, "format of masks")
    if isinstance(source, Ticket):
        model, masks = source.template(), source.masks
    else:
        model, masks = source, masking.get_masks(source)
    paths = [p for p in masking.kernels(model) if p in masks]
    given = paths if names is None else list(names)
    if len({*given}) != len(paths):
        raise UserError(
            f"{len(paths)} kernels need as many names, each its own: "
            f"{', '.join(paths)}; got {given}."
        )
    if format == "google" and names is None:
        given = [f"layer{index}" for index in range(len(paths))]
    named = {n: masks[p] for n, p in zip(given, paths, strict=True)}
    write(pathlib.Path(path), named)
    return pathlib.Path(path)


def _read_open_lth(path: pathlib.Path, shapes: Shapes) -> Named:
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        _require_count(names, shapes)
        found = {}
        for name, (kernel, shape) in zip(names, shapes.items(), strict=True):
            theirs = (*reversed(shape[-2:]), *shape[:-2])
            with file.open(name) as stream:
                array = _array(stream, theirs, f"{name}, of {kernel}")
            found[kernel] = np.moveaxis(array, (0, 1), (-1, -2))
    return found


def _write_open_lth(path: pathlib.Path, masks: Named) -> None:
    # Not `np.savez`: to it a mask called "file" would be an argument.
    with (
        replacing.beside(path) as beside,
        zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, mask in masks.items():
            turned = np.moveaxis(mask, (-1, -2), (0, 1)).astype("int32")
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, turned)


def _read_google(path: pathlib.Path, shapes: Shapes) -> Named:
    names = [f"layer{index}.npy" for index in range(len(shapes))]
    _require_count(sorted(p.name for p in path.glob("*.npy")), shapes)
    found = {}
    for name, (kernel, shape) in zip(names, shapes.items(), strict=True):
        with (path / name).open("rb") as stream:
            found[kernel] = _array(stream, shape, f"{name}, of {kernel}")
    return found


def _write_google(path: pathlib.Path, masks: Named) -> None:
    first = next(iter(masks))
    with replacing.beside(path, f"{first}.npy") as folder:
        folder.mkdir()
        for name, mask in masks.items():
            if pathlib.PurePath(name).name != name:
                raise UserError(f"{name!r} is no name of a file.")
            np.save(folder / f"{name}.npy", mask.astype("float32"))


FORMATS: dict[
    str,
    tuple[
        Callable[[pathlib.Path, Shapes], Named],
        Callable[[pathlib.Path, Named], None],
    ],
] = {
    "open_lth": (_read_open_lth, _write_open_lth),
    "google": (_read_google, _write_google),
}
"""By name: what reads masks, and what writes them."""


def _require_count(names: list[str], shapes: Shapes) -> None:
    if len(names) != len(shapes):
        raise UserError(
            f"it holds {len(names)} masks ({', '.join(names[:9])}), and the "
            f"model has {len(shapes)} kernels ({', '.join(shapes)})."
        )


def _array(stream: IO[bytes], shape: tuple[int, ...], name: str) -> np.ndarray:
    """Returns a `.npy` file's array, which must be of this shape."""
    # Later versions are for headers beyond 64 KiB, which no mask has.
    if np.lib.format.read_magic(stream) != (1, 0):
        raise UserError(f"{name} is no .npy file of version 1.0.")
    found, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if found != shape or dtype.kind not in "biuf":
        raise UserError(
            f"{name} is {dtype} of shape {found}, and needs {shape}."
        )
    size = int(np.prod(shape)) * dtype.itemsize
    data = stream.read(size)
    if len(data) != size:
        raise UserError(f"{name} is truncated.")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)

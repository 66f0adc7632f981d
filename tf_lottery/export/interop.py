"""Mask files of other lottery ticket codebases.

`"open_lth"`: the dictionary in `mask.pth` of Frankle's open_lth, as
`np.savez("mask.npz", **mask.numpy())` writes it, in PyTorch's layout: a kernel
is [outputs, inputs, rows, columns].

`"google"`: the folder that google-research/lottery-ticket-hypothesis writes
(`save_restore.save_network`): `layer0.npy`, `layer1.npy`, …, in the layout of
Keras.

Both store the order of layers but not the names of Keras, so masks are matched
with the kernels of a model in its order. If a Dense layer follows a flattened
image, PyTorch counts channels first and Keras last; that is not converted.
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
from tf_lottery.core.storage import zip_archive
from tf_lottery.export import atomic_output
from tf_lottery.export.exported_model import TicketOrModel
from tf_lottery.lottery.ticket import Ticket

Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
Path = str | os.PathLike[str]


def read_masks(path: Path, model: Any, format: str) -> Masks:
    """Returns the masks in a file or folder of another codebase.

    Nothing is unpickled, and no more is read than the model's kernels need.

    Args:
        path: `mask.npz`, or the folder of `.npy` files.
        model: The Keras model that the masks belong to.
        format: `"open_lth"` or `"google"`.

    Raises:
        UserError: The path has no masks of that format, or their number or
            shapes are not those of the model's kernels, or their values are
            not 0 and 1.
    """
    read, _ = registry.get(FORMATS, format, "format of masks")
    kernels = masking.kernels(model)
    shapes = {p: tuple(k.variable.shape) for p, k in kernels.items()}
    try:
        return Masks(read(pathlib.Path(path), shapes))
    except Exception as error:  # noqa: BLE001 - a stranger's bytes
        reason = one_line(error)
        raise UserError(
            f"{str(path)!r} holds no masks of {model.name!r} as {format} "
            f"writes them: {reason}"
        ) from None


def write_masks(
    source: TicketOrModel,
    path: Path,
    format: str,
    names: Sequence[str] | None = None,
) -> pathlib.Path:
    """Writes masks in the format of another codebase.

    Args:
        source: A ticket, or a masked Keras model.
        path: `mask.npz`, or the folder of `.npy` files; an older one is
            replaced.
        format: `"open_lth"` or `"google"`.
        names: The kernels' names in the other codebase, in the model's order,
            such as `["fc_layers.0.weight", "fc.weight"]`. None for `layer0`,
            `layer1`, … in `"google"`, and kernel paths in `"open_lth"`.

    Returns:
        The file or folder.

    Raises:
        UserError: The number of names is not that of kernels, or names are
            equal or contain folders, or the path cannot be written.
    """
    _, write = registry.get(FORMATS, format, "format of masks")
    if isinstance(source, Ticket):
        model, masks = source.template(), source.masks
    else:
        model, masks = source, masking.get_masks(source)
    paths = [p for p in masking.kernels(model) if p in masks]
    if names is None and format == "google":
        names = [f"layer{index}" for index in range(len(paths))]
    names = paths if names is None else list(names)
    if len({*names}) != len(paths):
        raise UserError(
            f"{len(paths)} kernels need as many different names: "
            f"{', '.join(paths)}; got {names}."
        )
    write(
        pathlib.Path(path),
        {name: masks[p] for name, p in zip(names, paths, strict=True)},
    )
    return pathlib.Path(path)


def _read_open_lth(path: pathlib.Path, shapes: Shapes) -> Arrays:
    with zip_archive.opened(path) as file:
        names = file.namelist()
        _require_count(names, shapes)
        masks = {}
        for name, (kernel, shape) in zip(names, shapes.items(), strict=True):
            pytorch_shape = (*reversed(shape[-2:]), *shape[:-2])
            with file.open(name) as stream:
                array = _array(stream, pytorch_shape, f"{name}, of {kernel}")
            masks[kernel] = np.moveaxis(array, (0, 1), (-1, -2))
    return masks


def _write_open_lth(path: pathlib.Path, masks: Arrays) -> None:
    # Not `np.savez`: a mask named "file" would be its argument.
    with (
        atomic_output.replacing(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, mask in masks.items():
            array = np.moveaxis(mask, (-1, -2), (0, 1)).astype("int32")
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array)


def _read_google(path: pathlib.Path, shapes: Shapes) -> Arrays:
    names = [f"layer{index}.npy" for index in range(len(shapes))]
    _require_count(sorted(p.name for p in path.glob("*.npy")), shapes)
    masks = {}
    for name, (kernel, shape) in zip(names, shapes.items(), strict=True):
        zip_archive.require_regular(path / name)
        with (path / name).open("rb") as stream:
            masks[kernel] = _array(stream, shape, f"{name}, of {kernel}")
    return masks


def _write_google(path: pathlib.Path, masks: Arrays) -> None:
    first = next(iter(masks))
    with atomic_output.replacing(path, f"{first}.npy") as folder:
        folder.mkdir()
        for name, mask in masks.items():
            if pathlib.PurePath(name).name != name:
                raise UserError(f"{name!r} is not a valid file name.")
            np.save(folder / f"{name}.npy", mask.astype("float32"))


FORMATS: dict[
    str,
    tuple[
        Callable[[pathlib.Path, Shapes], Arrays],
        Callable[[pathlib.Path, Arrays], None],
    ],
] = {
    "open_lth": (_read_open_lth, _write_open_lth),
    "google": (_read_google, _write_google),
}
"""By name: the functions that read and write masks."""


def _require_count(names: list[str], shapes: Shapes) -> None:
    if len(names) != len(shapes):
        raise UserError(
            f"it holds {len(names)} masks ({', '.join(names[:9])[:99]}), and "
            f"the model has {len(shapes)} kernels ({', '.join(shapes)})."
        )


def _array(stream: IO[bytes], shape: tuple[int, ...], name: str) -> np.ndarray:
    """Returns a `.npy` file's array, which must have this shape."""
    # Later versions are for headers over 64 KiB, which no mask has.
    if np.lib.format.read_magic(stream) != (1, 0):
        raise UserError(f"{name} is not a .npy file of version 1.0.")
    actual, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if actual != shape or dtype.kind not in "biuf":
        raise UserError(f"{name} is {dtype} of shape {actual}, not {shape}.")
    stored = zip_archive.read_array(
        stream, dtype, shape[::-1] if fortran else shape
    )
    return stored.T if fortran else stored

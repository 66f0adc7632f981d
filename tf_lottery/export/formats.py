"""The formats that tickets are exported in."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from tf_lottery import registries
from tf_lottery.core import registry
from tf_lottery.core.errors import UserError
from tf_lottery.export import source as sources
from tf_lottery.export.keras_file import keras_file
from tf_lottery.export.litert import litert, sparse_litert
from tf_lottery.export.onnx import onnx
from tf_lottery.export.saved_model import saved_model
from tf_lottery.export.sparse_saved_model import sparse_saved_model


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that tickets are exported in.

    Attributes:
        write: Writes it: source, path, `rewound`, `x`, and `dtype` if it has
            any but float32.
        suffix: What its files end in; "" for a directory.
        runtime: What runs it; a name of `measuring.RUNTIMES`, and of the
            format that the dense original is given to it in.
        why: How it can store weights; and why it is then, or is not, faster
            than the dense original.
    """

    write: Callable[..., pathlib.Path]
    suffix: str
    runtime: str
    why: Mapping[str, str]

    @property
    def dtypes(self) -> tuple[str, ...]:
        """How it can store weights."""
        return tuple(self.why)


_DENSE = "zeros are multiplied like any other number"
_ON_DISK = "sparse on disk only: once loaded, its kernels are dense"

SAVED_MODEL = Format(saved_model, "", "saved_model", {"float32": _DENSE})
SPARSE_SAVED_MODEL = Format(
    sparse_saved_model,
    "",
    "saved_model",
    {"float32": _ON_DISK, "float16": _ON_DISK, "int8": _ON_DISK},
)
KERAS = Format(keras_file, ".keras", "keras", {"float32": _DENSE})
LITERT = Format(
    litert,
    ".tflite",
    "litert",
    {
        "float32": _DENSE,
        "float16": _DENSE,
        "int8": "whole numbers of 8 bits are multiplied, zeros included",
    },
)
SPARSE_LITERT = Format(
    sparse_litert,
    ".tflite",
    "litert",
    {
        "float32": "zeros are not stored; whether skipping them is faster "
        "depends on the batch"
    },
)
ONNX = Format(onnx, ".onnx", "onnx", {"float32": _DENSE})

FORMATS: Mapping[str, Format] = registries.FORMATS
"""Formats by name."""


def write(
    source: sources.Source,
    path: str | os.PathLike[str],
    format: str = "saved_model",
    dtype: str = "float32",
    rewound: bool = False,
    x: Any = None,
) -> pathlib.Path:
    """Writes a ticket or a model in a format by its name.

    The file is loaded in its own runtime and compared with the Keras model
    before it is kept.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file or directory to write.
        format: A name of `FORMATS`.
        dtype: How weights are stored: `"float32"`, or what else the format
            can.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.
        x: Examples to compare on, as the model takes them. None: random ones.

    Returns:
        The file or directory.

    Raises:
        ImportError: The format needs a package that is not installed.
        ValueError: There is no such format, or it has no such dtype, or
            `path` cannot be written, or the format cannot compute what the
            model does.
    """
    found = check(format, dtype)
    options: dict[str, Any] = {"dtype": dtype} if len(found.dtypes) > 1 else {}
    return found.write(source, path, rewound=rewound, x=x, **options)


def check(format: str, dtype: str) -> Format:
    """Returns the format of that name, if it has the dtype.

    Raises:
        ValueError: There is no such format, or it has no such dtype.
    """
    found = registry.get(FORMATS, format, "format")
    if dtype not in found.dtypes:
        others = [name for name, f in FORMATS.items() if dtype in f.dtypes]
        raise UserError(
            f"Format {format!r} stores {' or '.join(found.dtypes)}; got "
            f"{dtype!r}, which {' and '.join(others) or 'no format'} can."
        )
    return found

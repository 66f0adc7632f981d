"""The export formats by name."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from tf_lottery.core import registries, registry
from tf_lottery.core.errors import UserError
from tf_lottery.export.exported_model import TicketOrModel
from tf_lottery.export.keras_file import keras_file
from tf_lottery.export.litert import litert, sparse_litert
from tf_lottery.export.onnx import onnx
from tf_lottery.export.saved_model import saved_model
from tf_lottery.export.sparse_saved_model import sparse_saved_model


@dataclasses.dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
        write: Function that writes it, with the arguments source, path,
            `rewound`, `x`, and `dtype` if there are several.
        suffix: The suffix of its files; "" for a directory.
        runtime: The runtime that loads it, a key of
            `benchmark_worker.RUNTIMES`. The format of the same name is used
            to export the dense original for comparison.
        why: The dtypes that it can store, each with the reason why the file
            is, or is not, faster than the dense original.
    """

    write: Callable[..., pathlib.Path]
    suffix: str
    runtime: str
    why: Mapping[str, str]

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that it can store."""
        return tuple(self.why)


_DENSE = "zeros are multiplied like other numbers"
_ON_DISK = "sparse only on disk: once loaded, its kernels are dense"

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
    source: TicketOrModel,
    path: str | os.PathLike[str],
    format: str = "saved_model",
    dtype: str = "float32",
    rewound: bool = False,
    x: Any = None,
) -> pathlib.Path:
    """Writes a ticket or a model in the format of a name.

    The file is loaded in its runtime and compared with the Keras model; if they
    differ, `path` is not changed.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file or directory to write.
        format: A key of `FORMATS`.
        dtype: The dtype of stored weights: `"float32"`, or another one of
            `FORMATS[format].dtypes`.
        rewound: Whether to export the weights that a ticket restarts from,
            mask ⊙ θk, instead of the trained ones.
        x: Examples to compare on, in the structure of the model's inputs;
            None for random ones.

    Returns:
        The file or directory.

    Raises:
        MissingPackageError: The format needs a package that is not installed.
        UserError: There is no such format, or it has no such dtype, or `path`
            cannot be written, or the format cannot express the model.
    """
    entry = check(format, dtype)
    options: dict[str, Any] = {"dtype": dtype} if len(entry.dtypes) > 1 else {}
    return entry.write(source, path, rewound=rewound, x=x, **options)


def check(format: str, dtype: str) -> Format:
    """Returns the format of a name after checking its dtype.

    Args:
        format: A key of `FORMATS`.
        dtype: The dtype of stored weights.

    Raises:
        UserError: There is no such format, or it has no such dtype.
    """
    entry = registry.get(FORMATS, format, "format")
    if dtype not in entry.dtypes:
        others = [name for name, f in FORMATS.items() if dtype in f.dtypes]
        raise UserError(
            f"Format {format!r} stores {' or '.join(entry.dtypes)}; got "
            f"{dtype!r}, which {' and '.join(others) or 'no format'} can."
        )
    return entry

"""Masks: an immutable mapping of kernel paths to bool arrays."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tf_lottery.core import density_table, registry
from tf_lottery.core.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]


class Masks(Mapping[str, np.ndarray]):
    """The masks of the kernels of a model: a read-only mapping.

    `True` keeps a weight, `False` prunes it. Kernels are iterated in the order
    of their paths. Masks and their arrays cannot be changed; set operations
    return new masks.

    Args:
        masks: Kernel path to array of 0 and 1, of any dtype and shape.

    Raises:
        UserError: There is no kernel, a path is empty or not a string, or an
            array holds other values than 0 and 1.

    Example:
        >>> masks = Masks({"dense/kernel": [[1, 0], [1, 1]]})
        >>> masks.density, masks.kept, masks.size
        (0.75, 3, 4)
        >>> masks["dense/kernel"]
        array([[ True, False],
               [ True,  True]])
    """

    def __init__(self, masks: Mapping[str, ArrayLike]) -> None:
        if not masks:
            raise UserError("Masks need at least one kernel; got none.")
        bad = [p for p in masks if not isinstance(p, str) or not p]
        if bad:
            raise UserError(
                f"Kernel paths are non-empty strings; got {bad[0]!r}."
            )
        self._arrays = {p: _frozen(p, masks[p]) for p in sorted(masks)}

    @classmethod
    def ones(cls, shapes: Shapes) -> "Masks":
        """Returns masks that keep every weight.

        Args:
            shapes: Kernel path to shape of the kernel.
        """
        return cls({path: np.ones(s, bool) for path, s in shapes.items()})

    def __getitem__(self, path: str) -> np.ndarray:
        if path in self._arrays:
            return self._arrays[path]
        raise KeyError(
            f"No mask for {path!r}.{registry.nearest(path, self._arrays)} "
            f"Masked: {', '.join(self._arrays)}."
        )

    # Those of `Mapping` would compose an error for every path without a mask.
    def __contains__(self, path: object) -> bool:
        return path in self._arrays

    def get(self, path: str, default: Any = None) -> Any:
        """Returns the mask of a kernel, or `default` if it has none.

        Args:
            path: The path of the kernel.
            default: The value for a path without a mask.
        """
        return self._arrays.get(path, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def size(self) -> int:
        """The number of weights in the kernels, pruned ones included."""
        return sum(m.size for m in self.values())

    @property
    def kept(self) -> int:
        """The number of weights kept."""
        return sum(self.counts.values())

    @property
    def counts(self) -> dict[str, int]:
        """The number of weights kept in each kernel, by path."""
        return {path: int(m.sum()) for path, m in self.items()}

    @property
    def density(self) -> float:
        """The fraction of weights kept, in [0, 1]."""
        return self.kept / self.size

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1 - self.density

    @property
    def densities(self) -> dict[str, float]:
        """The density of each kernel, by path."""
        return {path: float(m.mean()) for path, m in self.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each kernel, by path."""
        return {path: m.shape for path, m in self.items()}

    def require(self, shapes: Shapes) -> "Masks":
        """Returns these masks if their paths and shapes are exactly these.

        Args:
            shapes: Kernel path to shape.

        Returns:
            The masks themselves.

        Raises:
            UserError: A kernel is missing, unknown, or has another shape; the
                message names it.
        """
        for path in sorted(shapes.keys() - self.keys()):
            raise UserError(
                f"The masks miss kernel {path!r} of shape "
                f"{tuple(shapes[path])}; they hold {', '.join(self)}."
            )
        for path, mask in self.items():
            if path not in shapes:
                raise UserError(
                    f"The masks hold {path!r}, which is no kernel here."
                    f"{registry.nearest(path, shapes)} "
                    f"Kernels: {', '.join(shapes)}."
                )
            if mask.shape != tuple(shapes[path]):
                raise UserError(
                    f"The mask of {path!r} has shape {mask.shape}; the kernel "
                    f"has shape {tuple(shapes[path])}."
                )
        return self

    def __and__(self, other: "Masks") -> "Masks":
        """Returns the intersection: weights that both keep."""
        other.require(self.shapes)
        return Masks({path: m & other[path] for path, m in self.items()})

    def __or__(self, other: "Masks") -> "Masks":
        """Returns the union: weights that either keeps."""
        other.require(self.shapes)
        return Masks({path: m | other[path] for path, m in self.items()})

    def __le__(self, other: "Masks") -> bool:
        """Returns whether `other` keeps every weight that these keep."""
        return (self & other) == self

    def hamming(self, other: "Masks") -> float:
        """Returns the fraction of weights on which two masks differ.

        Args:
            other: Masks of the same kernels.
        """
        other.require(self.shapes)
        differ = sum(int((m ^ other[path]).sum()) for path, m in self.items())
        return differ / self.size

    def jaccard(self, other: "Masks") -> float:
        """Returns the intersection over the union; 1 if both are empty.

        Args:
            other: Masks of the same kernels.
        """
        either = (self | other).kept
        return (self & other).kept / either if either else 1.0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        return self.shapes == other.shapes and all(
            np.array_equal(m, other[path]) for path, m in self.items()
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """SHA-256 of paths, shapes and bits; equal masks have equal digests."""
        hasher = hashlib.sha256()
        for path, mask in self.items():
            hasher.update(f"{path}{mask.shape}".encode())
            hasher.update(np.packbits(mask).tobytes())
        return hasher.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, so that the arrays of copies are read-only.
        return Masks, (dict(self._arrays),)

    def __repr__(self) -> str:
        return (
            f"Masks({len(self)} kernels, {self.kept:,} of {self.size:,} "
            f"weights kept, density {self.density:.4g})"
        )

    def _repr_html_(self) -> str:
        return self.table(repr(self))._repr_html_()

    def table(
        self, title: str, notes: Iterable[str] = ()
    ) -> density_table.Table:
        """Returns a table of the weights kept in each kernel.

        Args:
            title: The line above the table.
            notes: The lines below it.
        """
        counts = self.counts
        rows = (
            density_table.Row((path, f"{mask.shape}"), counts[path], mask.size)
            for path, mask in self.items()
        )
        head = "kernel", "shape"
        return density_table.Table(title, head, tuple(rows), tuple(notes))


def _frozen(path: str, mask: ArrayLike) -> np.ndarray:
    array = np.asarray(mask)
    frozen = array.astype(bool)
    is_number = array.dtype.kind in "biuf"
    if not array.size:
        raise UserError(f"The mask of {path!r} is empty.")
    if not is_number or not np.array_equal(frozen, array):
        raise UserError(
            f"A mask holds only 0 and 1; that of {path!r} ({array.dtype}, "
            f"shape {array.shape}) holds other values."
        )
    frozen.flags.writeable = False
    return frozen

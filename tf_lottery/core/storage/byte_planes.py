"""This module knows how numbers are written so that they compress.

Of weights drawn or trained, all bits are noise but those of the exponent. In
planes, the first bytes of all numbers, then the second bytes, …, the exponents
lie side by side, where DEFLATE finds that they are few.
"""

import numpy as np


def split(values: np.ndarray) -> np.ndarray:
    """Returns numbers in planes, uint8 `[bytes of a number, numbers]`.

    Args:
        values: `[numbers]`, of any dtype that NumPy has a name for.

    Example:
        >>> split(np.array([1, 2, 258], "<u2"))
        array([[1, 2, 2],
               [0, 0, 1]], dtype=uint8)
    """
    size = values.dtype.itemsize
    return np.ascontiguousarray(values).view("uint8").reshape(-1, size).T


def join(planes: np.ndarray, dtype: str) -> np.ndarray:
    """Returns the numbers that `split` wrote.

    Args:
        planes: uint8 `[bytes of a number, numbers]`.
        dtype: The numbers' dtype, as NumPy writes it in files: `"<f4"`.

    Raises:
        ValueError: There are no such planes, or `dtype` is not of numbers.
    """
    found = np.dtype(dtype)
    if found.kind not in "biufc":
        raise ValueError(f"numbers of dtype {dtype!r}")
    if planes.dtype != np.uint8 or planes.shape[:-1] != (found.itemsize,):
        raise ValueError(f"{planes.shape} planes of {dtype} numbers")
    return np.ascontiguousarray(planes.T).view(found)[:, 0]

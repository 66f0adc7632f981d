"""Numbers in planes of their bytes."""

import zlib

import numpy as np
import pytest

from tf_lottery.core.storage import byte_planes


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u2", "<f2", ">f2", "<f4", ">f4", "<f8", "<c8"]
)
def test_numbers_come_back(dtype, count):
    values = np.arange(-3, count - 3).astype(dtype)
    split = byte_planes.split(values)
    assert split.dtype == np.uint8
    assert split.shape == (values.itemsize, count)
    joined = byte_planes.join(np.ascontiguousarray(split), values.dtype.str)
    assert joined.dtype == values.dtype
    assert joined.tobytes() == values.tobytes()


def test_not_a_bit_of_a_number_is_lost():
    values = np.array([np.nan, -0.0, np.inf, 1e-45], "<f4")
    values[0] = np.array(0x7FC01234, "<u4").view("<f4")
    assert byte_planes.join(byte_planes.split(values), "<f4").tobytes() == (
        values.tobytes()
    )


def test_weights_compress_better():
    weights = np.random.default_rng(0).normal(0, 0.05, 10_000).astype("f4")
    size, split = (
        len(zlib.compress(array.tobytes()))
        for array in (weights, byte_planes.split(weights))
    )
    assert split < 0.97 * size


@pytest.mark.parametrize(
    ("given", "dtype", "message"),
    [
        (np.zeros((4, 2), "u1"), "O", "numbers of dtype 'O'"),
        (np.zeros((4, 2), "u1"), "V4", "numbers of dtype 'V4'"),
        (np.zeros((4, 2), "u1"), "m8[s]", "numbers of dtype"),
        (np.zeros((4, 2), "u1"), "<f8", r"\(4, 2\) planes of <f8"),
        (np.zeros((4, 2), "i1"), "<f4", "planes of <f4"),
        (np.zeros((4, 2, 2), "u1"), "<f4", "planes of <f4"),
        (np.zeros((), "u1"), "<f4", "planes of <f4"),
    ],
)
def test_planes_that_are_none_are_refused(given, dtype, message):
    with pytest.raises(ValueError, match=message):
        byte_planes.join(given, dtype)

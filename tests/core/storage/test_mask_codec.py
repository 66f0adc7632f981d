"""Masks in little more bits than their entropy."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_lottery.core.storage import mask_codec


@given(hnp.arrays(bool, st.integers(0, 300)))
def test_a_mask_comes_back(mask):
    width, codes = mask_codec.encode(mask)
    assert np.array_equal(mask_codec.decode(width, codes, mask.size), mask)


@given(hnp.arrays(bool, st.integers(0, 60)), st.sampled_from(mask_codec.WIDTHS))
def test_a_mask_comes_back_in_codes_of_every_width(mask, width):
    widths, mask_codec.WIDTHS = mask_codec.WIDTHS, [width]
    try:
        assert np.array_equal(
            mask_codec.decode(*mask_codec.encode(mask), mask.size), mask
        )
    finally:
        mask_codec.WIDTHS = widths


@pytest.mark.parametrize(
    "density", [0.5, 0.21, 0.125, 0.08, 0.036, 0.01, 0.001, 0.0001]
)
def test_codes_take_hardly_more_than_the_entropy(density):
    mask = np.random.default_rng(0).random(500_000) < density
    p = mask.mean()
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) * mask.size
    _, codes = mask_codec.encode(mask)
    assert entropy <= 8 * codes.nbytes <= 1.09 * entropy


@pytest.mark.parametrize("density", [0, 1])
def test_a_mask_of_one_value_is_never_larger_than_its_bits(density):
    mask = np.full(801, density, bool)
    width, codes = mask_codec.encode(mask)
    assert codes.nbytes == (101 if density else 0)
    assert np.array_equal(mask_codec.decode(width, codes, 801), mask)


def test_a_code_can_be_read_by_hand():
    # Gaps of 2, 0, 3 + 1: in twos of bits, 3 stands for "three and no more".
    mask = np.array([0, 0, 1, 1, 0, 0, 0, 0, 1], bool)
    codes = np.packbits([1, 0, 0, 0, 1, 1, 0, 1])
    assert np.array_equal(mask_codec.decode(2, codes, 9), mask)


@pytest.mark.parametrize(
    ("width", "codes", "message"),
    [
        (0, np.zeros(1, "uint8"), "gaps of 0 bits"),
        (17, np.zeros(1, "uint8"), "gaps of 17 bits"),
        ("1", np.zeros(1, "uint8"), "gaps of 1 bits"),
        (1, np.zeros(1, "int8"), "in int8 codes"),
        (1, np.zeros((1, 1), "uint8"), "gaps of 1 bits"),
        (1, np.zeros(2, "uint8"), "a survivor at 15 of 10 weights"),
        (1, np.packbits([1] * 10 + [0] + [1] * 5), "survivor at 10 of 10"),
    ],
)
def test_codes_that_fit_no_mask_are_refused(width, codes, message):
    with pytest.raises(ValueError, match=message):
        mask_codec.decode(width, codes, 10)


def test_padding_is_seven_codes_at_most():
    ones = np.full(2, 255, "uint8")  # 16 times "one weight, pruned"
    assert not mask_codec.decode(1, ones, 9).any()
    with pytest.raises(ValueError, match="16 codes for 8 weights"):
        mask_codec.decode(1, ones, 8)


def peak(call):
    """Returns how many bytes a call takes at most, NumPy's among them."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_more_codes_than_weights_are_refused_before_they_are_unpacked():
    codes = np.zeros(2**20, "uint8")

    def decode():
        with pytest.raises(ValueError, match="8388608 codes for 10 weights"):
            mask_codec.decode(1, codes, 10)

    assert peak(decode) < 2**20


@pytest.mark.parametrize("width", [1, 7])
def test_many_codes_take_hardly_more_memory_than_their_mask(width, monkeypatch):
    monkeypatch.setattr(mask_codec, "WIDTHS", [width])
    mask = np.random.default_rng(0).random(2**22) < 0.5
    _, codes = mask_codec.encode(mask)
    found = []
    used = peak(
        lambda: found.append(mask_codec.decode(width, codes, mask.size))
    )
    assert np.array_equal(found[0], mask)
    assert used < 3 * mask.size

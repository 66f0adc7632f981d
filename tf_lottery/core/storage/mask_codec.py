"""This module knows how a mask is written in few bits.

What is written are the gaps between survivors, in codes of `width` bits each:
a code says how many pruned weights come before the next survivor, and the
highest code that so many pruned weights come and no survivor yet. With the
width that fits the density best this takes a few per cent more than the
entropy, n · H(density) bits; with a width of 1 it is the mask itself, inverted.

Reading it takes three lines of NumPy, or of TensorFlow: unpack the codes, sum
them up, leave the highest out.
"""

import numpy as np

WIDTHS = range(1, 17)

_BLOCK = 2**16
"""Codes unpacked at a time; times any width these are whole bytes."""


def encode(mask: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns the best width, and a mask in codes of that width.

    Args:
        mask: bool, any shape; read by flat index.

    Returns:
        The width in bits, and uint8 `[bytes]`: the codes, highest bit first,
        filled up to whole bytes with ones.

    Example:
        >>> width, codes = encode(np.arange(1000) % 100 == 0)
        >>> width, codes.nbytes  # 10 survivors in 70 bits
        (7, 9)
        >>> np.flatnonzero(decode(width, codes, 1000))[:3]
        array([  0, 100, 200])
    """
    places = np.flatnonzero(mask)
    gaps = np.diff(places, prepend=-1) - 1
    width = min(WIDTHS, key=lambda width: _bits(gaps, width))
    highest = 2**width - 1
    skips, rest = gaps // highest, gaps % highest
    codes = np.full(len(gaps) + int(skips.sum()), highest)
    codes[np.cumsum(skips + 1) - 1] = rest
    bits = codes[:, None] >> np.arange(width)[::-1] & 1
    packed = np.packbits(bits.astype(bool))
    unused = -bits.size % 8
    if unused:
        packed[-1] |= (1 << unused) - 1
    return width, packed


def decode(width: int, codes: np.ndarray, size: int) -> np.ndarray:
    """Returns the mask that `encode` wrote.

    Args:
        width: Bits of a code, from 1 to 16.
        codes: uint8 `[bytes]`.
        size: How many weights the mask has.

    Returns:
        bool `[size]`.

    Raises:
        ValueError: The codes are none, or more than the mask has weights, or
            lead beyond it.
    """
    if width not in WIDTHS or codes.dtype != np.uint8 or codes.ndim != 1:
        raise ValueError(f"gaps of {width} bits in {codes.dtype} codes")
    # Each code takes a place at least; seven may be the unused bits' ones.
    count = 8 * len(codes) // width
    if count > size + 7:
        raise ValueError(f"{count} codes for {size} weights")
    highest = 2**width - 1
    mask, place = np.zeros(size, bool), -1
    for first in range(0, len(codes), width * _BLOCK // 8):
        values = _values(width, codes[first : first + width * _BLOCK // 8])
        steps = np.minimum(values, highest - 1) + 1
        places = place + np.cumsum(steps)[values != highest]
        if len(places) and places[-1] >= size:
            raise ValueError(f"a survivor at {places[-1]} of {size} weights")
        mask[places] = True
        place += int(steps.sum())
    return mask


def _values(width: int, codes: np.ndarray) -> np.ndarray:
    count = 8 * len(codes) // width
    bits = np.unpackbits(codes, count=count * width).reshape(count, width)
    return bits @ (1 << np.arange(width)[::-1])


def _bits(gaps: np.ndarray, width: int) -> int:
    highest = 2**width - 1
    return width * (len(gaps) + int((gaps // highest).sum()))

"""Compression of masks.

A mask is stored as the gaps between survivors, in codes of `width` bits each.
A code is the number of pruned weights before the next survivor. The highest
code, 2**width - 1, stands for that many pruned weights with no survivor after
them. With the best width for the density, the codes take a few per cent more
than the entropy, n · H(density) bits; with a width of 1 they are the inverted
mask.

Decoding takes three lines of NumPy, or of TensorFlow: unpack the codes, sum
them cumulatively, leave out the positions of the highest code.
"""

import numpy as np

WIDTHS = range(1, 17)

_BLOCK = 2**16
"""Codes unpacked at a time; a multiple of 8, so blocks end at whole bytes."""


def encode(mask: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns the width that takes the fewest bits, and the codes.

    Args:
        mask: bool, any shape; its weights are ordered by flat index.

    Returns:
        The width in bits, in `WIDTHS`, and the codes: uint8 `[bytes]`, highest
        bit first, padded with ones to whole bytes.

    Example:
        >>> width, codes = encode(np.arange(1000) % 100 == 0)
        >>> width, codes.nbytes  # 10 survivors in 70 bits
        (7, 9)
        >>> np.flatnonzero(decode(width, codes, 1000))[:3]
        array([  0, 100, 200])
    """
    survivors = np.flatnonzero(mask)
    gaps = np.diff(survivors, prepend=-1) - 1
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
    """Returns the mask that `encode` encoded.

    Args:
        width: Bits per code, from 1 to 16.
        codes: uint8 `[bytes]`, as `encode` returns them.
        size: The number of weights in the mask.

    Returns:
        bool `[size]`.

    Raises:
        ValueError: The width or the dtype is wrong, or the codes are more
            than the mask has weights or reach beyond its end.
    """
    if width not in WIDTHS or codes.dtype != np.uint8 or codes.ndim != 1:
        raise ValueError(f"gaps of {width} bits in {codes.dtype} codes")
    # Each code covers at least one weight; up to seven are padding.
    count = 8 * len(codes) // width
    if count > size + 7:
        raise ValueError(f"{count} codes for {size} weights")
    highest = 2**width - 1
    mask, last = np.zeros(size, bool), -1
    for first in range(0, len(codes), width * _BLOCK // 8):
        values = _values(width, codes[first : first + width * _BLOCK // 8])
        steps = np.minimum(values, highest - 1) + 1
        survivors = last + np.cumsum(steps)[values != highest]
        if len(survivors) and survivors[-1] >= size:
            raise ValueError(f"a survivor at {survivors[-1]} of {size} weights")
        mask[survivors] = True
        last += int(steps.sum())
    return mask


def _values(width: int, codes: np.ndarray) -> np.ndarray:
    count = 8 * len(codes) // width
    bits = np.unpackbits(codes, count=count * width).reshape(count, width)
    return bits @ (1 << np.arange(width)[::-1])


def _bits(gaps: np.ndarray, width: int) -> int:
    highest = 2**width - 1
    return width * (len(gaps) + int((gaps // highest).sum()))

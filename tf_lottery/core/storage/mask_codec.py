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

from collections.abc import Iterator

import numpy as np

WIDTHS = range(1, 17)

_BLOCK = 2**16
"""Codes packed at a time; a multiple of 8, so blocks end at whole bytes."""

_WEIGHTS = 2**20
"""Weights encoded at a time: an index takes eight times a weight's mask."""


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
    skips = sum(map(_skips, _gaps(mask)), np.zeros(len(WIDTHS), int))
    bits = WIDTHS * (np.count_nonzero(mask) + skips)
    width = WIDTHS[int(np.argmin(bits))]
    codes = np.concatenate([_codes(width, gaps) for gaps in _gaps(mask)])
    packed = np.concatenate(
        [
            _packed(width, codes[first : first + _BLOCK])
            for first in range(0, max(1, len(codes)), _BLOCK)
        ]
    )
    unused = -width * len(codes) % 8
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


def _gaps(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the gaps before survivors, those of some weights at a time."""
    flat, last = mask.reshape(-1), -1
    for first in range(0, max(1, flat.size), _WEIGHTS):
        survivors = first + np.flatnonzero(flat[first : first + _WEIGHTS])
        yield np.diff(survivors, prepend=last) - 1
        last = survivors[-1] if len(survivors) else last


def _skips(gaps: np.ndarray) -> np.ndarray:
    """Returns the number of highest codes at each width, `[len(WIDTHS)]`."""
    skips = []
    for width in WIDTHS:
        highest = 2**width - 1
        gaps = gaps[gaps >= highest]
        skips.append(int((gaps // highest).sum()))
    return np.array(skips)


def _codes(width: int, gaps: np.ndarray) -> np.ndarray:
    """Returns the codes of gaps, uint16."""
    highest = 2**width - 1
    skips, rest = np.divmod(gaps, highest)
    codes = np.full(len(gaps) + int(skips.sum()), highest, np.uint16)
    codes[np.cumsum(skips + 1) - 1] = rest
    return codes


def _packed(width: int, codes: np.ndarray) -> np.ndarray:
    bits = codes[:, None] >> np.arange(width, dtype=np.uint16)[::-1] & 1
    return np.packbits(bits.astype(bool))

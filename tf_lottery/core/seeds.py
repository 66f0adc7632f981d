"""This module knows how every random choice gets a seed of its own."""

import zlib

import numpy as np


def generator(
    seed: int, purpose: str, *where: str | int
) -> np.random.Generator:
    """Returns the random generator of one purpose at one place.

    Streams of different purposes or places are independent, and none depends
    on the order in which they are asked for.

    Args:
        seed: The seed of the run, >= 0.
        purpose: What is drawn, such as `"order"` or `"reinit"`.
        *where: The place: a kernel path, an epoch, a replicate.

    Returns:
        A Philox generator, the same on every machine.

    Example:
        >>> draw = generator(0, "order", 3).integers(100, size=2)
        >>> bool((draw == generator(0, "order", 3).integers(100, size=2)).all())
        True
    """
    return np.random.Generator(
        np.random.Philox(_sequence(seed, purpose, where))
    )


def integer(seed: int, purpose: str, *where: str | int) -> int:
    """Returns a seed below 2**31 for libraries that take an integer."""
    sequence = _sequence(seed, purpose, where)
    return int(sequence.generate_state(1)[0] >> 1)


def _sequence(
    seed: int, purpose: str, where: tuple[str | int, ...]
) -> np.random.SeedSequence:
    places = [
        w if isinstance(w, int) else zlib.crc32(w.encode()) for w in where
    ]
    # A spawn key, not more entropy: short entropy is padded with zeros, so
    # that (seed, purpose) and (seed, purpose, 0) would be one stream.
    key = (zlib.crc32(purpose.encode()), *places)
    return np.random.SeedSequence(seed, spawn_key=key)

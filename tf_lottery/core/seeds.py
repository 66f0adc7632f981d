"""Independent random generators, one for each random choice."""

import zlib

import numpy as np


def generator(seed: int, purpose: str, *keys: str | int) -> np.random.Generator:
    """Returns the random generator of one random choice.

    Generators of different choices are independent of each other and of the
    order in which they are created.

    Args:
        seed: The seed of the run, >= 0.
        purpose: The kind of choice, such as `"order"` or `"reinit"`.
        *keys: The choice among those of its kind: a kernel path, an epoch, a
            replicate.

    Returns:
        A Philox generator, the same on every machine.

    Example:
        >>> draw = generator(0, "order", 3).integers(100, size=2)
        >>> bool((draw == generator(0, "order", 3).integers(100, size=2)).all())
        True
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, purpose, keys)))


def integer(seed: int, purpose: str, *keys: str | int) -> int:
    """Returns a seed for libraries that take an integer.

    Args:
        seed: The seed of the run, >= 0.
        purpose: The kind of choice, such as `"order"` or `"reinit"`.
        *keys: The choice among those of its kind: a kernel path, an epoch, a
            replicate.

    Returns:
        An integer in [0, 2**31).
    """
    sequence = _sequence(seed, purpose, keys)
    return int(sequence.generate_state(1)[0] >> 1)


def _sequence(
    seed: int, purpose: str, keys: tuple[str | int, ...]
) -> np.random.SeedSequence:
    spawn_key = [
        key if isinstance(key, int) else zlib.crc32(key.encode())
        for key in (purpose, *keys)
    ]
    # Not as entropy: short entropy is padded with zeros, so that
    # (seed, purpose) and (seed, purpose, 0) would be one stream.
    return np.random.SeedSequence(seed, spawn_key=spawn_key)

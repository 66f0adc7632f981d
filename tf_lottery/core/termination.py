"""SIGTERM, which Slurm and Kubernetes send before they end a process.

The signal sets a flag. Training looks at it where it can be continued later,
saves, and raises `Terminated`.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_requested = threading.Event()


class Terminated(BaseException):
    """Training was saved and ended, because the process is to end."""


def request(*_: Any) -> None:
    """Asks training to save and to end; a handler of signals.

    Args:
        *_: The signal and the frame, which do not matter.
    """
    _requested.set()


def is_requested() -> bool:
    """Returns whether training is to save and to end."""
    return _requested.is_set()


@contextlib.contextmanager
def on_sigterm() -> Iterator[None]:
    """Makes SIGTERM ask training to save and to end; for the main thread."""
    before = signal.signal(signal.SIGTERM, request)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _requested.clear()

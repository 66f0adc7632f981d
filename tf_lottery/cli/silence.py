"""This module knows how TensorFlow's chatter is kept off the terminal."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def silence_tensorflow(
    first: Callable[[], object] | None = None,
) -> Iterator[None]:
    """Keeps TensorFlow's start-up chatter off the terminal.

    It comes from C++, some of it before any setting is read, so standard
    error itself is turned away while TensorFlow starts; what it said is shown
    if that fails. Only the command line does this, never the package.

    Args:
        first: Called before TensorFlow looks for devices.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")
            if first is not None:
                first()
            # Devices too announce themselves when they are first looked for.
            tf.config.list_logical_devices()
            yield
        except BaseException:
            said.seek(0)
            os.write(terminal, said.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)

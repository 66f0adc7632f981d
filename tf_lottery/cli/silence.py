"""Silence of TensorFlow while it starts."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def silence_tensorflow(
    first: Callable[[], object] | None = None,
) -> Iterator[None]:
    """Imports TensorFlow and hides the messages that it prints on start.

    They come from C++, some before any setting is read, so standard error
    (file descriptor 2) is redirected meanwhile, and printed after all if the
    start fails. Only the command line does this, never the package.

    Args:
        first: Called after the import, before TensorFlow looks for devices.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")
            if first is not None:
                first()
            # Devices print messages when they are first listed.
            tf.config.list_logical_devices()
            yield
        except BaseException:
            messages.seek(0)
            os.write(terminal, messages.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)

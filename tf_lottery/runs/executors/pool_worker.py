"""This module knows what a process of a crew does: jobs, until nobody asks."""

import multiprocessing.connection
import os
import sys
from collections.abc import Mapping
from typing import Any


def main(descriptor: int) -> None:
    """Trains what comes over a connection, one job after the other.

    Args:
        descriptor: File descriptor of the socket to whoever started it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    connection = multiprocessing.connection.Connection(descriptor)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(connection.recv())
        tf.config.threading.set_inter_op_parallelism_threads(1)
        # To unpickle this may import code that uses TensorFlow.
        build = connection.recv()
        trainer = None
        message: tuple[str, Any]
        while True:
            job = connection.recv()

            def tell(_: int, step: int, figures: Mapping[str, float]) -> None:
                connection.send(("progress", step, dict(figures)))

            try:
                trainer = trainer or build()
                if callable(job):
                    message = "answer", job(trainer)
                else:
                    message = "done", trainer.train([job], tell)[0]
            except Exception as error:  # noqa: BLE001 - for whoever started it
                message = "error", _that_travels(error)
            connection.send(message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # whoever started it is gone


def _that_travels(error: Exception) -> Exception:
    """Returns an error that is read wherever its class is not known."""
    if type(error).__module__.partition(".")[0] in ("builtins", "tensorflow"):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]))

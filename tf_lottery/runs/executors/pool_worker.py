"""The program of a process in a process pool: it trains jobs in a loop."""

import multiprocessing.connection
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from tf_lottery.core import termination


def main(descriptor: int) -> None:
    """Trains the jobs that arrive over a connection, one after another.

    Args:
        descriptor: File descriptor of the socket to the parent process.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    signal.signal(signal.SIGTERM, termination.request)
    connection = multiprocessing.connection.Connection(descriptor)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(connection.recv())
        tf.config.threading.set_inter_op_parallelism_threads(1)
        # Unpickling may import code that uses TensorFlow.
        build = connection.recv()
        trainer = None
        message: tuple[str, Any]
        while True:
            job = connection.recv()

            def progress(
                _: int, step: int, metrics: Mapping[str, float]
            ) -> None:
                connection.send(("progress", step, dict(metrics)))

            try:
                trainer = trainer or build()
                if callable(job):
                    message = "result", job(trainer)
                else:
                    message = "outcome", trainer.train([job], progress)[0]
            except termination.Terminated:
                message = "terminated", None
            except Exception as error:  # noqa: BLE001 - the parent raises it
                message = "error", _picklable(error)
            connection.send(message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent process has ended


def _picklable(error: Exception) -> Exception:
    """Returns an error whose class any process can import."""
    package = type(error).__module__.partition(".")[0]
    if package in ("builtins", "tensorflow", "tf_lottery"):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]))

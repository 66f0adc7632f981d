"""This module knows what a process of a crew does: jobs, until nobody asks."""

import multiprocessing.connection
import os
import sys
from collections.abc import Mapping


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
        while True:
            job = connection.recv()

            def tell(_: int, step: int, figures: Mapping[str, float]) -> None:
                connection.send(("progress", step, dict(figures)))

            try:
                trainer = trainer or build()
                (outcome,) = trainer.train([job], tell)
            except Exception as error:  # noqa: BLE001 - for whoever started it
                connection.send(("error", error))
            else:
                connection.send(("done", outcome))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # whoever started it is gone


if __name__ == "__main__":
    main(int(sys.argv[1]))

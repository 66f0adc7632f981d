"""The processors of this machine, as far as training asks for them."""

import os

import tensorflow as tf


def has_gpu() -> bool:
    """Returns whether TensorFlow trains on a GPU here."""
    return bool(tf.config.list_logical_devices("GPU"))


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """Returns how many threads one TensorFlow operation uses here."""
    return tf.config.threading.get_intra_op_parallelism_threads() or cores()

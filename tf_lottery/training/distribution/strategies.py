"""Strategies of `tf.distribute` by name, built from the machine's devices."""

import json
import os
from collections.abc import Callable

import tensorflow as tf

from tf_lottery.core import registry
from tf_lottery.core.errors import UserError, one_line


def get(name: str) -> tf.distribute.Strategy | None:
    """Returns a strategy by name, or None if none is needed.

    Call it before TensorFlow computes anything, as it may connect hosts.

    Args:
        name: A key of `STRATEGIES`.

    Raises:
        UserError: The name is unknown, or the machine lacks the devices; the
            message says what is missing.
    """
    return registry.get(STRATEGIES, name, "strategy")()


def _auto() -> tf.distribute.Strategy | None:
    """Uses several hosts, else a TPU, else several GPUs, else None."""
    if _tf_config_workers() > 1 or _slurm_tasks() > 1:
        return _multi_worker()
    if os.environ.get("TPU_NAME"):
        return _tpu()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return _mirrored()
    return None


def _one_device() -> tf.distribute.Strategy:
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return tf.distribute.OneDeviceStrategy(f"{kind}:0")


def _mirrored() -> tf.distribute.Strategy:
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    # TensorFlow's collectives between CPUs of one process keep the shapes of
    # the previous model (tensorflow#62790).
    return tf.distribute.MirroredStrategy(
        names, cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def _multi_worker() -> tf.distribute.Strategy:
    if _tf_config_workers():
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    elif _slurm_tasks():
        resolver = slurm()
    else:
        raise UserError(
            "Strategy 'multi_worker' needs to know the workers: set TF_CONFIG "
            "for each, or start them by srun."
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"Could not connect the workers: {one_line(error)}"
        ) from None


def slurm() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Returns a resolver for the workers that `srun` started.

    Slurm assigns GPUs to them: `srun --gpus-per-task`.
    """
    return tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=_slurm_tasks(), gpus_per_task=1, auto_set_gpu=False
    )


def _tpu() -> tf.distribute.Strategy:
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(
            f"No TPU was found under the name {name!r}: {one_line(error)} "
            "Set TPU_NAME, or use another strategy."
        ) from None
    return tf.distribute.TPUStrategy(resolver)


STRATEGIES: dict[str, Callable[[], tf.distribute.Strategy | None]] = {
    "auto": _auto,
    "one_device": _one_device,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}
"""Name to a function that builds the strategy from the devices."""


def described(strategy: tf.distribute.Strategy | None) -> str:
    """Returns a short description of a strategy.

    Args:
        strategy: A strategy, or None.
    """
    if strategy is None:
        return "none"
    count = strategy.num_replicas_in_sync
    replicas = "replica" if count == 1 else "replicas"
    return f"{type(strategy).__name__}, {count} {replicas}"


def has_workers(strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether a strategy has workers on several hosts."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether this process decides what is trained, and writes."""
    return strategy is None or strategy.extended.should_checkpoint


def trains_apart(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether each device can train networks without the others."""
    kinds = (tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy)
    return isinstance(strategy, kinds)


def _tf_config_workers() -> int:
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 0
    try:
        cluster = json.loads(text)["cluster"]
        count = len([a for addresses in cluster.values() for a in addresses])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            "TF_CONFIG is no JSON object with a `cluster` of lists of "
            f"addresses and a `task`; got {text[:100]!r}."
        ) from None
    if others := sorted(cluster.keys() - {"chief", "worker"}):
        raise UserError(
            f"TF_CONFIG names {', '.join(others)}; only chief and worker can "
            "train networks."
        )
    return count


def _slurm_tasks() -> int:
    """Returns the number of tasks that `srun` started; 0 without Slurm."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "0"))

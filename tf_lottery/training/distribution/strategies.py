"""Strategies of `tf.distribute` by name, built from the machine's devices."""

import json
import os

import tensorflow as tf

from tf_lottery.core import registries, registry
from tf_lottery.core.errors import UserError, one_line


def get(name: str) -> tf.distribute.Strategy | None:
    """Returns a strategy by name, or None if none is needed.

    Call it before TensorFlow computes anything, as it may connect hosts.

    Args:
        name: A name of `registries.STRATEGIES`.

    Raises:
        UserError: The name is unknown, or the machine lacks the devices; the
            message says what is missing.
    """
    return registry.get(registries.STRATEGIES, name, "strategy")()


def auto() -> tf.distribute.Strategy | None:
    """Returns the strategy for several hosts, a TPU or GPUs, or None."""
    if _tf_config_workers() > 1 or _slurm_tasks() > 1:
        return multi_worker()
    if os.environ.get("TPU_NAME"):
        return tpu()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return mirrored()
    return None


def one_device() -> tf.distribute.Strategy:
    """Returns the strategy for the first GPU, or for the CPU."""
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return tf.distribute.OneDeviceStrategy(f"{kind}:0")


def mirrored() -> tf.distribute.Strategy:
    """Returns the strategy for all GPUs, or for all logical CPU devices."""
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    # TensorFlow's collectives between CPUs of one process keep the shapes of
    # the previous model (tensorflow#62790).
    return tf.distribute.MirroredStrategy(
        names, cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def multi_worker() -> tf.distribute.Strategy:
    """Returns the strategy for the hosts that TF_CONFIG or `srun` names."""
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


def tpu() -> tf.distribute.Strategy:
    """Returns the strategy for the TPU that TPU_NAME names, or the local."""
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
    """Returns whether a strategy has workers on several hosts.

    Args:
        strategy: A strategy, or None.
    """
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether this process decides what is trained, and writes.

    Args:
        strategy: A strategy, or None.
    """
    return strategy is None or strategy.extended.should_checkpoint


def trains_apart(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether each device can train networks without the others.

    Args:
        strategy: A strategy.
    """
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

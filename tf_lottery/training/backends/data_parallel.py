"""Training steps of one network whose batches are divided among replicas.

Each replica of a `tf.distribute.Strategy` holds the complete network and
computes on its shard of every batch. Gradients are summed over the replicas
before they are clipped and applied, so all replicas take the same step: the
step of one device with the complete batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.data import nested
from tf_lottery.training.backends.compiled_steps import StepInputs
from tf_lottery.training.backends.dense import DensePrograms
from tf_lottery.training.backends.functional_model import (
    Augment,
    FunctionalModel,
    Values,
)
from tf_lottery.training.backends.stacking import Stacking
from tf_lottery.training.distribution import replica_context
from tf_lottery.training.input_pipeline import Examples, gather


class DataParallelPrograms(DensePrograms):
    """The compiled functions of one network on all replicas of a strategy.

    Args:
        network: The network; its model is a `synchronized_copy`.
        augment: Augmentation of training inputs, or None.
        strategy: Strategy whose replicas train.
        jit_compile: Whether XLA may compile the functions.

    Attributes:
        devices: Names of this host's devices, one for each replica.
    """

    def __init__(
        self,
        network: FunctionalModel,
        augment: Augment | None,
        strategy: tf.distribute.Strategy,
        jit_compile: bool,
    ) -> None:
        one = isinstance(strategy, tf.distribute.OneDeviceStrategy)
        super().__init__(network, augment, jit_compile and one)
        self._strategy = strategy
        self._names = [*network.paths, *network.masked]
        self.devices = strategy.extended.worker_devices

    def train(
        self,
        stacking: Stacking,
        values: Values,
        totals: Any,
        inputs: StepInputs,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> Any:
        """Returns values and metric totals after training steps.

        Args:
            stacking: `Single()`.
            values: The network before the steps.
            totals: Values of the metrics variables before the steps.
            inputs: Masks, batches and augmentation key.
            start: Index of the first batch in `inputs.orders`, int32 scalar.
            stop: Index after the last batch, int32 scalar.

        Raises:
            UserError: Replicas hold different values.
        """
        zeros = self.objective.zeros()
        values, sums, equal = super().train(
            stacking, values, zeros, inputs, start, stop
        )
        for name, is_equal in zip(self._names, equal.numpy(), strict=True):
            if not is_equal:
                raise UserError(
                    f"Replicas disagree on {name!r}, which must be the "
                    "same on all of them: a layer keeps a different state on "
                    "each replica, or a device is faulty."
                )
        replicas = self._strategy.num_replicas_in_sync
        return values, _add_totals(totals, sums, zeros, replicas)

    def _compile(self, kind: str, stacking: Stacking) -> Callable[..., Any]:
        if kind == "training":
            return _training_steps(
                self.network, self._augment, self._strategy, self._jit
            )
        on_one_device = super()._compile(kind, stacking)
        if kind == "evaluation" and self.objective.is_mean_of_examples:
            return _evaluation(self.network, self._strategy, on_one_device)
        return on_one_device


def _loops_inside_replica(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether each replica runs the loop over steps itself.

    On a TPU the loop must run on the device, or every step would return to
    the host. With MirroredStrategy it cannot, because all-reduce joins the
    replica threads.
    """
    kinds = (tf.distribute.TPUStrategy, tf.distribute.OneDeviceStrategy)
    return isinstance(strategy, kinds)


Step = Callable[[tf.Tensor, Values, Any, StepInputs], tuple[Any, Any]]


def replica_step(network: FunctionalModel, augment: Augment | None) -> Step:
    """Returns a function that takes one step on this replica's shard.

    Args:
        network: The network.
        augment: Augmentation of training inputs, or None.
    """

    def step(
        i: tf.Tensor, values: Values, totals: Any, inputs: StepInputs
    ) -> tuple[Values, Any]:
        index, count = replica_context.replica_index()
        rows = replica_context.local_shard(inputs.orders[i])
        batch = gather(inputs.examples, rows)
        if augment is not None:
            seed = tf.stack([inputs.keys, inputs.first + i])
            x = augment(batch.x, seed, part=index, parts=count)
            batch = batch._replace(x=x)
        return network.step(values, totals, inputs.masks, batch)

    return step


def _training_steps(
    network: FunctionalModel,
    augment: Augment | None,
    strategy: tf.distribute.Strategy,
    jit_compile: bool,
) -> Callable[..., tuple[Any, Any, Any]]:
    """Returns a compiled function that takes many training steps.

    Arguments are those of `compiled_steps.training_steps`. It returns values,
    metric totals summed over the replicas, and whether all replicas hold the
    same bits, bool `[variables and masks]`.
    """
    step = replica_step(network, augment)
    loop = (
        loop_inside_replica
        if _loops_inside_replica(strategy)
        else _loop_outside_replica
    )

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(
        values: Any,
        totals: Any,
        inputs: StepInputs,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> tuple[Any, Any, Any]:
        return loop(strategy, step, values, totals, inputs, start, stop)

    return run


def loop_inside_replica(
    strategy: tf.distribute.Strategy,
    step: Step,
    values: Values,
    totals: Any,
    inputs: StepInputs,
    start: tf.Tensor,
    stop: tf.Tensor,
) -> Any:
    """Runs the loop over steps on every replica.

    Args:
        strategy: Strategy whose replicas train.
        step: What `replica_step` returns.
        values: The network before the steps.
        totals: Values of the metrics variables before the steps.
        inputs: Masks, batches and augmentation key.
        start: Index of the first batch, int32 scalar.
        stop: Index after the last batch, int32 scalar.

    Returns:
        Values, summed totals, and which arrays are equal on all replicas.
    """

    def run(
        values: Any, totals: Any, inputs: Any, start: Any, stop: Any
    ) -> Any:
        _, values, totals = tf.while_loop(
            lambda i, *_: i < stop,
            lambda i, values, totals: (
                i + 1,
                *step(i, values, totals, inputs),
            ),
            (start, values, totals),
        )
        return _reduce(values, totals, inputs)

    results = strategy.run(run, args=(values, totals, inputs, start, stop))
    return _local_results(strategy, results)[0]


def _loop_outside_replica(
    strategy: tf.distribute.Strategy,
    step: Step,
    values: Values,
    totals: Any,
    inputs: StepInputs,
    start: tf.Tensor,
    stop: tf.Tensor,
) -> Any:
    """Runs one loop, each step of which runs on all replicas."""
    local_inputs = _copy_to_devices(strategy, inputs)
    states = _copy_to_devices(strategy, (values, totals))

    def body(i: tf.Tensor, states: Any) -> tuple[tf.Tensor, Any]:
        def one() -> Any:
            j = _local_index(strategy)
            values, totals = states[j]
            return step(i, values, totals, local_inputs[j])

        return i + 1, _local_results(strategy, strategy.run(one))

    _, states = tf.while_loop(lambda i, _: i < stop, body, (start, states))

    def last() -> Any:
        j = _local_index(strategy)
        values, totals = states[j]
        return _reduce(values, totals, local_inputs[j])

    return _local_results(strategy, strategy.run(last))[0]


def _reduce(values: Values, totals: Any, inputs: StepInputs) -> Any:
    equal = replica_context.equal_on_all(
        [*values.weights, *values.others, *inputs.masks]
    )
    # One by one: TensorFlow cannot sum integers and floats in one call.
    totals = [replica_context.all_reduce_sum([total])[0] for total in totals]
    return values, totals, equal


def _evaluation(
    network: FunctionalModel,
    strategy: tf.distribute.Strategy,
    on_one_device: Callable[..., Any],
) -> Callable[..., tuple[Any, Any]]:
    """Returns a function like that of `compiled_steps.evaluation`.

    Args:
        network: The network.
        strategy: Strategy whose replicas evaluate a shard of each batch.
        on_one_device: Evaluates batches that cannot be divided evenly.
    """
    count = strategy.num_replicas_in_sync
    zeros = network.objective.zeros()

    def one(values: Values, examples: Examples) -> list[tf.Tensor]:
        size = nested.arrays_of(examples.x)[0].shape[0]
        rows = replica_context.local_shard(tf.range(size))
        _, totals = network.evaluated(values, zeros, gather(examples, rows))
        return [replica_context.all_reduce_sum([t])[0] for t in totals]

    @tf.function(autograph=False)
    def on_replicas(values: Values, totals: Any, examples: Examples) -> Any:
        if _loops_inside_replica(strategy):
            results = strategy.run(one, args=(values, examples))
        else:
            local = _copy_to_devices(strategy, (values, examples))
            results = strategy.run(lambda: one(*local[_local_index(strategy)]))
        sums = _local_results(strategy, results)[0]
        return None, _add_totals(totals, sums, zeros, count)

    def run(values: Values, totals: Any, examples: Examples) -> Any:
        size = nested.arrays_of(examples.x)[0].shape[0]
        if count == 1 or size % count:
            return on_one_device(values, totals, examples)
        return on_replicas(values, totals, examples)

    return run


def _add_totals(
    totals: Sequence[tf.Tensor],
    sums: Sequence[tf.Tensor],
    zeros: Sequence[tf.Tensor],
    replicas: int,
) -> list[tf.Tensor]:
    """Returns earlier totals plus sums over replicas.

    Every replica starts to count from the metrics' initial values, `zeros`.
    """
    return [
        before + total - tf.cast(replicas, zero.dtype) * zero
        for before, total, zero in zip(totals, sums, zeros, strict=True)
    ]


def _copy_to_devices(
    strategy: tf.distribute.Strategy, structure: Any
) -> list[Any]:
    copies = []
    for device in strategy.extended.worker_devices:
        with tf.device(device):
            copies.append(nested.map_arrays(tf.identity, structure))
    return copies


def _local_index(strategy: tf.distribute.Strategy) -> int:
    """Returns the index of this replica among those of this host."""
    index, _ = replica_context.replica_index()
    return index % len(strategy.extended.worker_devices)


def _local_results(strategy: tf.distribute.Strategy, results: Any) -> list[Any]:
    """Returns the result of each replica of this host."""
    flat = [
        strategy.experimental_local_results(each)
        for each in tf.nest.flatten(results)
    ]
    return [
        tf.nest.pack_sequence_as(results, list(each))
        for each in zip(*flat, strict=True)
    ]

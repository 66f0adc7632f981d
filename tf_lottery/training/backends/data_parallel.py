"""Programs whose batches are split over replicas.

Each replica of a `tf.distribute.Strategy` holds all of the network and sees
its part of each batch; gradients are summed before they are clipped and
applied, so all replicas take the same step, which is that of one device with
the whole batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.data import nested
from tf_lottery.training.backends.dense import DensePrograms
from tf_lottery.training.backends.functional_model import (
    Augment,
    FunctionalModel,
    Values,
)
from tf_lottery.training.backends.stacking import Stacking
from tf_lottery.training.distribution import replica_context
from tf_lottery.training.input_pipeline import Examples, gathered


class DataParallelPrograms(DensePrograms):
    """The programs of one network, each batch split over replicas.

    Args:
        network: What is trained, its model as `replicas.prepared` makes it.
        augment: What happens to training inputs, or None.
        strategy: Whose replicas they are.
        jit_compile: Whether XLA may compile them.

    Attributes:
        devices: Names of this host's devices, one for each replica.
        trains_apart: Whether each device can train a network of its own,
            without the others.
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
        kinds = (
            tf.distribute.MirroredStrategy,
            tf.distribute.OneDeviceStrategy,
        )
        self.trains_apart = isinstance(strategy, kinds)

    def train(self, stacking: Stacking, *given: Any) -> Any:
        """Returns what `program.training_steps` returns, for one network.

        Raises:
            ValueError: Replicas come to disagree.
        """
        values, totals, masks, key, order, *more = given
        zeros = self.objective.zeros()
        values, counted, agree = super().train(
            stacking, values, zeros, masks, key, order, *more
        )
        for name, same in zip(self._names, agree.numpy(), strict=True):
            if not same:
                raise UserError(
                    f"Replicas disagree on {name!r}, which must be the "
                    "same on all of them: a layer keeps a state of its "
                    "own on each, or a device is at fault."
                )
        count = self._strategy.num_replicas_in_sync
        return values, _added(totals, counted, zeros, count)

    def _compiled(self, kind: str, stacking: Stacking) -> Callable[..., Any]:
        if kind == "training":
            return _training_steps(
                self.network, self._augment, self._strategy, self._jit
            )
        made = super()._compiled(kind, stacking)
        if kind == "evaluation" and self.objective.is_mean_of_examples:
            return _evaluation(self.network, self._strategy, made)
        return made


def _holds_loops(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a loop may lie within what a replica runs.

    It must on a TPU, where the host would else be asked at every step; it
    cannot where TensorFlow joins the replicas' threads to sum.
    """
    kinds = (tf.distribute.TPUStrategy, tf.distribute.OneDeviceStrategy)
    return isinstance(strategy, kinds)


class Given(NamedTuple):
    """What steps take and do not change, as `program.training_steps` has it."""

    masks: Any
    key: tf.Tensor
    order: tf.Tensor
    examples: Examples
    first: tf.Tensor


Step = Callable[[tf.Tensor, Values, Any, Given], tuple[Any, Any]]


def step_of(network: FunctionalModel, augment: Augment | None) -> Step:
    """Returns a function that takes one step on this replica's part."""

    def step(
        i: tf.Tensor, values: Values, totals: Any, given: Given
    ) -> tuple[Values, Any]:
        number, count = replica_context.part()
        batch = gathered(given.examples, replica_context.own(given.order[i]))
        if augment is not None:
            seed = tf.stack([given.key, given.first + i])
            x = augment(batch.x, seed, part=number, parts=count)
            batch = batch._replace(x=x)
        return network.step(values, totals, given.masks, batch)

    return step


def _training_steps(
    network: FunctionalModel,
    augment: Augment | None,
    strategy: tf.distribute.Strategy,
    jit_compile: bool,
) -> Callable[..., tuple[Any, Any, Any]]:
    """Returns a compiled function that takes many training steps.

    As `program.training_steps`; it sums what replicas count, and returns also
    whether all replicas have the same, bool `[variables and masks]`.
    """
    step = step_of(network, augment)
    steps = loop_inside if _holds_loops(strategy) else _loop_outside

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(
        values: Any,
        totals: Any,
        masks: Any,
        key: tf.Tensor,
        order: tf.Tensor,
        examples: Examples,
        first: tf.Tensor,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> tuple[Any, Any, Any]:
        given = Given(masks, key, order, examples, first)
        return steps(strategy, step, values, totals, given, start, stop)

    return run


def loop_inside(
    strategy: tf.distribute.Strategy,
    step: Step,
    values: Values,
    totals: Any,
    given: Given,
    start: tf.Tensor,
    stop: tf.Tensor,
) -> Any:
    """Returns what each replica comes to that runs the whole loop itself."""

    def run(values: Any, totals: Any, given: Any, start: Any, stop: Any) -> Any:
        _, values, totals = tf.while_loop(
            lambda i, *_: i < stop,
            lambda i, values, totals: (i + 1, *step(i, values, totals, given)),
            (start, values, totals),
        )
        return _ended(values, totals, given)

    results = strategy.run(run, args=(values, totals, given, start, stop))
    return _parts(strategy, results)[0]


def _loop_outside(
    strategy: tf.distribute.Strategy,
    step: Step,
    values: Values,
    totals: Any,
    given: Given,
    start: tf.Tensor,
    stop: tf.Tensor,
) -> Any:
    """Returns what the replicas come to, one step after the other."""
    held = _on_each(strategy, given)
    states = _on_each(strategy, (values, totals))

    def body(i: tf.Tensor, states: Any) -> tuple[tf.Tensor, Any]:
        def one() -> Any:
            j = _place(strategy)
            values, totals = states[j]
            return step(i, values, totals, held[j])

        return i + 1, _parts(strategy, strategy.run(one))

    _, states = tf.while_loop(lambda i, _: i < stop, body, (start, states))

    def last() -> Any:
        j = _place(strategy)
        values, totals = states[j]
        return _ended(values, totals, held[j])

    return _parts(strategy, strategy.run(last))[0]


def _ended(values: Values, totals: Any, given: Given) -> Any:
    same = replica_context.agree(
        [*values.weights, *values.others, *given.masks]
    )
    # One by one: TensorFlow does not sum integers and floats in one go.
    totals = [replica_context.summed([total])[0] for total in totals]
    return values, totals, same


def _evaluation(
    network: FunctionalModel,
    strategy: tf.distribute.Strategy,
    whole: Callable[..., Any],
) -> Callable[..., tuple[Any, Any]]:
    """Returns a compiled function as `program.evaluation` does.

    Args:
        network: What is evaluated.
        strategy: Whose replicas evaluate a part of each batch.
        whole: Evaluates a batch that they cannot share evenly.
    """
    count = strategy.num_replicas_in_sync
    zeros = network.objective.zeros()

    def one(values: Values, examples: Examples) -> list[tf.Tensor]:
        size = nested.arrays_of(examples.x)[0].shape[0]
        mine = gathered(examples, replica_context.own(tf.range(size)))
        _, counted = network.evaluated(values, zeros, mine)
        return [replica_context.summed([total])[0] for total in counted]

    @tf.function(autograph=False)
    def run(values: Values, totals: Any, examples: Examples) -> Any:
        if _holds_loops(strategy):
            out = strategy.run(one, args=(values, examples))
        else:
            held = _on_each(strategy, (values, examples))
            out = strategy.run(lambda: one(*held[_place(strategy)]))
        return None, _added(totals, _parts(strategy, out)[0], zeros, count)

    def divided(values: Values, totals: Any, examples: Examples) -> Any:
        size = nested.arrays_of(examples.x)[0].shape[0]
        if count == 1 or size % count:
            return whole(values, totals, examples)
        return run(values, totals, examples)

    return divided


def _added(
    totals: Sequence[tf.Tensor],
    counted: Sequence[tf.Tensor],
    zeros: Sequence[tf.Tensor],
    count: int,
) -> list[tf.Tensor]:
    """Returns what metrics counted before and on all replicas.

    Each replica began to count from the metrics' initial values.
    """
    return [
        before + sums - tf.cast(count, zero.dtype) * zero
        for before, sums, zero in zip(totals, counted, zeros, strict=True)
    ]


def _on_each(strategy: tf.distribute.Strategy, structure: Any) -> list[Any]:
    """Returns tensors on each device of this host."""
    copies = []
    for device in strategy.extended.worker_devices:
        with tf.device(device):
            copies.append(nested.map_arrays(tf.identity, structure))
    return copies


def _place(strategy: tf.distribute.Strategy) -> int:
    """Returns which of this host's replicas this one is."""
    number, _ = replica_context.part()
    return number % len(strategy.extended.worker_devices)


def _parts(strategy: tf.distribute.Strategy, results: Any) -> list[Any]:
    """Returns what each replica of this host returned."""
    flat = [
        strategy.experimental_local_results(each)
        for each in tf.nest.flatten(results)
    ]
    return [
        tf.nest.pack_sequence_as(results, list(each))
        for each in zip(*flat, strict=True)
    ]

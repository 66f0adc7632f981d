"""This module knows programs whose batches are split over replicas.

Each replica of a `tf.distribute.Strategy` holds all of the network and sees
its part of each batch; gradients are summed before they are clipped and
applied, so all replicas take the same step, which is that of one device with
the whole batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_lottery.training import factors, replicas
from tf_lottery.training.arrangement import Arrangement
from tf_lottery.training.dense import DensePrograms
from tf_lottery.training.measure import Measures
from tf_lottery.training.network import Augment, Network, Values
from tf_lottery.training.program import compiles_with_xla


class SplitPrograms(DensePrograms):
    """The programs of one network, each batch split over replicas.

    Args:
        network: What is trained, its model as `replicas.prepared` makes it.
        measures: What is measured.
        augment: What happens to training inputs, or None.
        strategy: Whose replicas they are.

    Attributes:
        devices: Names of this host's devices, one for each replica.
        trains_apart: Whether each device can train a network of its own,
            without the others.
    """

    def __init__(
        self,
        network: Network,
        measures: Measures,
        augment: Augment | None,
        strategy: tf.distribute.Strategy,
    ) -> None:
        super().__init__(network, measures, augment)
        self._strategy = strategy
        self._train: Callable[..., Any] | None = None
        self._evaluate = _evaluation(network, measures, strategy)
        self._names = [*network.paths, *network.masked]
        self.devices = strategy.extended.worker_devices
        kinds = (
            tf.distribute.MirroredStrategy,
            tf.distribute.OneDeviceStrategy,
        )
        self.trains_apart = isinstance(strategy, kinds)

    def training(self, arrangement: Arrangement) -> Callable[..., Any]:
        """Returns what `program.training_steps` returns, for one network.

        It raises a ValueError if replicas come to disagree.
        """

        def run(
            values: Any, masks: Any, key: Any, order: Any, *more: Any
        ) -> Any:
            train = self._steps(batch_size=order.shape[1])
            values, total, agree = train(values, masks, key, order, *more)
            for name, same in zip(self._names, agree.numpy(), strict=True):
                if not same:
                    raise ValueError(
                        f"Replicas disagree on {name!r}, which must be the "
                        "same on all of them: a layer keeps a state of its "
                        "own on each, or a device is at fault."
                    )
            return values, total

        return run

    def evaluation(self, arrangement: Arrangement) -> Callable[..., Any]:
        """Returns what `program.evaluation` returns, for one network."""
        return self._evaluate

    def _steps(self, batch_size: int) -> Callable[..., Any]:
        # Not before they train: replicas have to meet for it.
        if self._train is None:
            factors.prepare(self.network.model, batch_size, self._strategy)
            self._train = _training_steps(
                self.network, self._augment, self._strategy
            )
        return self._train


def _holds_loops(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a loop may lie within what a replica runs.

    It must on a TPU, where the host would else be asked at every step; it
    cannot where TensorFlow joins the replicas' threads to sum.
    """
    kinds = (tf.distribute.TPUStrategy, tf.distribute.OneDeviceStrategy)
    return isinstance(strategy, kinds)


def _compiles(network: Network, strategy: tf.distribute.Strategy) -> bool:
    one = isinstance(strategy, tf.distribute.OneDeviceStrategy)
    return one and compiles_with_xla(network.model)


class Given(NamedTuple):
    """What steps take and do not change, as `program.training_steps` has it."""

    masks: Any
    key: tf.Tensor
    order: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    first: tf.Tensor


Step = Callable[[tf.Tensor, Values, tf.Tensor, Given], tuple[Any, Any]]


def step_of(network: Network, augment: Augment | None) -> Step:
    """Returns a function that takes one step on this replica's part."""

    def step(
        i: tf.Tensor, values: Values, total: tf.Tensor, given: Given
    ) -> tuple[Values, tf.Tensor]:
        number, count = replicas.part()
        batch = replicas.own(given.order[i])
        x, y = tf.gather(given.x, batch), tf.gather(given.y, batch)
        if augment is not None:
            seed = tf.stack([given.key, given.first + i])
            x = augment(x, seed, part=number, parts=count)
        values, loss = network.step(values, given.masks, x, y)
        return values, total + loss

    return step


def _training_steps(
    network: Network,
    augment: Augment | None,
    strategy: tf.distribute.Strategy,
) -> Callable[..., tuple[Any, Any, Any]]:
    """Returns a compiled function that takes many training steps.

    As `program.training_steps`, and it returns beside values and sum of losses
    whether all replicas have the same, bool `[variables and masks]`.
    """
    step = step_of(network, augment)
    steps = loop_inside if _holds_loops(strategy) else _loop_outside

    @tf.function(jit_compile=_compiles(network, strategy), autograph=False)
    def run(
        values: Any,
        masks: Any,
        key: tf.Tensor,
        order: tf.Tensor,
        x: tf.Tensor,
        y: tf.Tensor,
        first: tf.Tensor,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> tuple[Any, Any, Any]:
        given = Given(masks, key, order, x, y, first)
        return steps(strategy, step, values, given, start, stop)

    return run


def loop_inside(
    strategy: tf.distribute.Strategy,
    step: Step,
    values: Values,
    given: Given,
    start: tf.Tensor,
    stop: tf.Tensor,
) -> Any:
    """Returns what each replica comes to that runs the whole loop itself."""

    def run(values: Any, given: Any, start: Any, stop: Any) -> Any:
        _, values, total = tf.while_loop(
            lambda i, *_: i < stop,
            lambda i, values, total: (i + 1, *step(i, values, total, given)),
            (start, values, tf.constant(0.0)),
        )
        return _ended(values, total, given)

    results = strategy.run(run, args=(values, given, start, stop))
    return _parts(strategy, results)[0]


def _loop_outside(
    strategy: tf.distribute.Strategy,
    step: Step,
    values: Values,
    given: Given,
    start: tf.Tensor,
    stop: tf.Tensor,
) -> Any:
    """Returns what the replicas come to, one step after the other."""
    held = _on_each(strategy, given)
    zero = tf.constant(0.0)
    states = _on_each(strategy, (values, zero))

    def body(i: tf.Tensor, states: Any) -> tuple[tf.Tensor, Any]:
        def one() -> Any:
            j = _place(strategy)
            values, total = states[j]
            return step(i, values, total, held[j])

        return i + 1, _parts(strategy, strategy.run(one))

    _, states = tf.while_loop(lambda i, _: i < stop, body, (start, states))

    def last() -> Any:
        j = _place(strategy)
        values, total = states[j]
        return _ended(values, total, held[j])

    return _parts(strategy, strategy.run(last))[0]


def _ended(values: Values, total: tf.Tensor, given: Given) -> Any:
    same = replicas.agree([*values.weights, *values.others, *given.masks])
    # By itself: TensorFlow does not sum integers and floats in one go.
    (total,) = replicas.summed([total])
    return values, total, same


def _evaluation(
    network: Network, measures: Measures, strategy: tf.distribute.Strategy
) -> Callable[..., tuple[Any, Any, Any]]:
    """Returns a compiled function as `program.evaluation` does."""

    def outputs(values: Any, x: tf.Tensor) -> tf.Tensor:
        number, count = replicas.part()
        size = -(-x.shape[0] // count)
        # What fills up the last part is seen twice, and left out below.
        rows = (number * size + tf.range(size)) % x.shape[0]
        mine = network.outputs(values, tf.gather(x, rows))
        if count == 1:
            return mine
        return tf.distribute.get_replica_context().all_gather(mine, axis=0)

    @tf.function(jit_compile=_compiles(network, strategy), autograph=False)
    def run(
        values: Any, totals: Any, x: tf.Tensor, y: tf.Tensor, counts: tf.Tensor
    ) -> tuple[Any, Any, Any]:
        if _holds_loops(strategy):
            out = strategy.run(outputs, args=(values, x))
        else:
            held = _on_each(strategy, (values, x))
            out = strategy.run(lambda: outputs(*held[_place(strategy)]))
        every = _parts(strategy, out)[0][: x.shape[0]]
        return (
            measures.losses(y, every),
            measures.correct(y, every),
            measures.counted(totals, y, every, counts),
        )

    return run


def _on_each(strategy: tf.distribute.Strategy, structure: Any) -> list[Any]:
    """Returns tensors on each device of this host."""
    copies = []
    for device in strategy.extended.worker_devices:
        with tf.device(device):
            copies.append(tf.nest.map_structure(tf.identity, structure))
    return copies


def _place(strategy: tf.distribute.Strategy) -> int:
    """Returns which of this host's replicas this one is."""
    number, _ = replicas.part()
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

"""Loss and metrics, computed by Keras, as functions of values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.core.errors import UserError, one_line
from tf_lottery.data import nested
from tf_lottery.training.distribution import replica_context
from tf_lottery.training.input_pipeline import Examples
from tf_lottery.training.recipe import Recipe

_ACCURACIES = (
    keras.metrics.Accuracy,
    keras.metrics.BinaryAccuracy,
    keras.metrics.CategoricalAccuracy,
    keras.metrics.SparseCategoricalAccuracy,
    keras.metrics.TopKCategoricalAccuracy,
    keras.metrics.SparseTopKCategoricalAccuracy,
)
# Their value for a batch is not the mean of those for its examples.
_OF_BATCHES = ("dice", "tversky", "circle")
LOSS = "loss"


class EvalResult(NamedTuple):
    """What a network comes to on a split.

    Attributes:
        metrics: Name to value, as `keras.Model.evaluate` names them: `"loss"`,
            `"accuracy"`, …; a list for a metric with several values.
        per_example: Value of the deciding metric for each example alone,
            float32 or bool `[examples]`. None where it was not asked for.
    """

    metrics: Mapping[str, Any]
    per_example: np.ndarray | None = None


class _Compiled(keras.Model):
    """Holds what `compile` was given; it has no layers.

    The user's model is not compiled: it may be compiled already, and its
    state is not ours to change.

    Args:
        output_names: Those of the user's model; None if it has none.
    """

    def __init__(self, output_names: Sequence[str] | None) -> None:
        super().__init__()
        self._names = None if output_names is None else tuple(output_names)

    @property
    def output_names(self) -> list[str]:
        """The names by which Keras finds losses and metrics of outputs."""
        if self._names is None:
            raise AttributeError("output_names")
        return list(self._names)


class Objective:
    """Loss and metrics of a model, computed by Keras.

    All that is counted lives in variables of Keras' metrics. Values of these
    go in and come out: inside `scope` they take the variables' place, so one
    objective serves any number of networks.

    Args:
        model: A built model; it stays as it is.
        recipe: Loss, metrics and their weights.
        sample: A few training examples, to build the metrics with; of a model
            with a batch size of its own, as many.
        needs_loss: Whether it is an error if there is no loss.

    Raises:
        ValueError: Keras refuses loss or metrics for this model and these
            examples, or there is no loss at all.

    Attributes:
        deciding: The metric that a verdict looks at: the first accuracy, else
            `"loss"`.
        is_mean_of_examples: Whether loss and metrics of a split are the same
            in whatever batches it is evaluated.
        compiled_metrics: The metrics that `compile` was given, as Keras
            resolved them, by the names of their results.
        has_output_masks: Whether some time steps of an output do not count.
        adds_losses: Whether a layer adds a loss for what it sees, beside
            penalties on weights.
    """

    def __init__(
        self,
        model: keras.Model,
        recipe: Recipe,
        sample: Examples,
        needs_loss: bool = True,
    ) -> None:
        self._keras = _Compiled(getattr(model, "output_names", None))
        self._keras.compile(
            optimizer=None,
            loss=recipe.loss,
            loss_weights=recipe.loss_weights,
            metrics=_listed(recipe.metrics),
            weighted_metrics=_listed(recipe.weighted_metrics),
            jit_compile=False,
        )
        self._has_loss = recipe.loss is not None
        given = recipe.metrics, recipe.weighted_metrics
        self._has_metrics = any(metrics is not None for metrics in given)
        self._own = [
            metric
            for layer in model._flatten_layers(include_self=False)
            if not isinstance(layer, keras.Model)
            for metric in layer.metrics
        ]
        outputs, penalties = called(model, sample.x)
        self.adds_losses = adds_losses(model, penalties)
        if needs_loss and not self._has_loss and not self.adds_losses:
            raise UserError(
                "A loss is needed: compile(optimizer=..., loss=...), or "
                "add_loss in a layer. For integer labels and logits: "
                "keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
            )
        self._build(sample, outputs, penalties)
        self._initial = [np.array(v.numpy()) for v in self.variables]
        # In a graph, as in `fit`; without one it takes milliseconds.
        self._compiled_results = tf.function(self._results, autograph=False)
        self._result_names: list[str] = []
        flat = nested.arrays_of(outputs)
        self.has_output_masks = any(
            mask_of(output) is not None for output in flat
        )
        self.compiled_metrics = self._compiled_metrics()
        self.deciding = self._deciding()
        self.is_mean_of_examples = not (
            self.has_output_masks
            or self.adds_losses
            or self._own
            or not _are_means(recipe)
            or not self._adds_up(sample, outputs)
        )

    def _build(
        self, sample: Examples, outputs: Any, penalties: Sequence[Any]
    ) -> None:
        """Has Keras make the variables of all metrics."""
        try:
            loss = self.loss(sample, outputs, penalties, training=True)
            self.count(sample, outputs, loss)
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            raise UserError(
                "Loss and metrics do not fit the model's outputs and the "
                f"targets: {one_line(error)}"
            ) from error
        self._keras.reset_metrics()
        for metric in self._own:
            metric.reset_state()
        if tuple(loss.shape):
            raise UserError(
                f"The loss of a batch must be a number; got shape {loss.shape}."
                " Leave `reduction` at its default."
            )

    def _adds_up(self, sample: Examples, outputs: Any) -> bool:
        """Returns whether counts of halves add up to those of the whole.

        Not, for one, of metrics that pair each target with each output, as
        Keras' functions do where a column meets a vector.
        """
        size = len(nested.arrays_of(outputs)[0])
        halves = slice(0, size // 2), slice(size // 2, size)

        def counted(rows: slice) -> list[np.ndarray]:
            parts = (*sample, outputs)
            *some, out = nested.map_arrays(lambda a: a[rows], parts)
            with self.scope(self.zeros()) as scope:
                some = Examples(*some)
                self.count(some, out, self.loss(some, out, (), False))
            found = [scope.get_current_value(v) for v in self.variables]
            return [np.array(value) for value in found]

        whole = counted(slice(0, size))
        pairs = zip(*map(counted, halves), self._initial, whole, strict=True)
        return size < 2 or all(
            np.allclose(one + other - zero, both, rtol=1e-3, atol=1e-6)
            for one, other, zero, both in pairs
        )

    @property
    def variables(self) -> list[keras.Variable]:
        """What metrics count in; the first two are the loss's sum and count."""
        own = [v for metric in self._own for v in metric.variables]
        return [*self._keras.metrics_variables, *own]

    def zeros(self) -> list[tf.Tensor]:
        """Returns the values of `variables` before any example."""
        return [tf.constant(value) for value in self._initial]

    def loss(
        self,
        examples: Examples,
        outputs: Any,
        penalties: Sequence[Any],
        training: bool,
    ) -> tf.Tensor:
        """Returns what is minimised, a scalar, of a batch.

        To be called where the values of the weights are in scope.

        Args:
            examples: The batch.
            outputs: What the model returns for it, with Keras' masks.
            penalties: The model's `losses`.
            training: Whether the model was called in training mode.
        """
        losses = []
        if self._has_loss:
            before = [v.value for v in self._trackers]
            losses.append(
                self._keras.compute_loss(
                    examples.x,
                    examples.y,
                    outputs,
                    examples.sample_weight,
                    training=training,
                )
            )
            self._count_batches(before, outputs)
        # Keras divides the loss of a shard by the number of replicas.
        _, replicas = replica_context.replica_index()
        losses += [keras.ops.sum(each) / replicas for each in penalties]
        zero = tf.zeros(())
        return tf.add_n([zero, *(tf.cast(each, tf.float32) for each in losses)])

    @property
    def _trackers(self) -> list[keras.Variable]:
        """What Keras counts the loss of each of several outputs in."""
        return [
            variable
            for metric in self._keras.metrics[1 + self._has_metrics :]
            for variable in metric.variables
        ]

    def _count_batches(self, before: Sequence[Any], outputs: Any) -> None:
        """Has each batch count once in the losses of several outputs.

        Keras weighs a batch by its size if that is known when it compiles,
        which it is not where the last batch of an epoch is smaller.
        """
        size = nested.arrays_of(outputs)[0].shape[0]
        if size is None:
            return
        # The first batch of all makes them, and is forgotten.
        for variable, old in zip(self._trackers, before, strict=False):
            variable.assign(old + (variable.value - old) / size)

    def count(self, examples: Examples, outputs: Any, loss: tf.Tensor) -> None:
        """Updates the metrics in scope by a batch, as `train_step` does."""
        _, replicas = replica_context.replica_index()
        first = nested.arrays_of(examples.x)[0]
        tracker = self._keras.metrics[0]
        tracker.update_state(loss * replicas, sample_weight=tf.shape(first)[0])
        self._keras.compute_metrics(
            examples.x, examples.y, outputs, examples.sample_weight
        )

    def results(self, totals: Sequence[Any]) -> dict[str, Any]:
        """Returns the metrics by name, as `keras.Model.evaluate` names them.

        Args:
            totals: Values of `variables`.
        """
        found = self._compiled_results(
            [tf.convert_to_tensor(t) for t in totals]
        )
        # TensorFlow sorts the names.
        return {name: number(found[name]) for name in self._result_names}

    def _results(self, totals: Sequence[tf.Tensor]) -> dict[str, Any]:
        with self.scope(totals):
            found = dict(self._keras.get_metrics_result())
            found |= {metric.name: metric.result() for metric in self._own}
        for name, value in list(found.items()):
            if isinstance(value, Mapping):  # a metric of several values
                found |= found.pop(name)
        self._result_names = list(found)
        return found

    def result(self, totals: Sequence[tf.Tensor], name: str) -> tf.Tensor:
        """Returns one metric.

        Args:
            totals: Values of `variables`.
            name: As `results` names it.
        """
        return self._results(totals)[name]

    def scope(self, totals: Sequence[Any]) -> keras.StatelessScope:
        """Returns a scope in which `variables` have values."""
        pairs = zip(self.variables, totals, strict=True)
        return keras.StatelessScope(
            state_mapping=[(v, tf.convert_to_tensor(t)) for v, t in pairs]
        )

    def per_example(self, examples: Examples, outputs: Any) -> tf.Tensor:
        """Returns the deciding metric of each example alone, `[examples]`.

        Args:
            examples: A batch.
            outputs: What the model returns for it, with Keras' masks.
        """
        masks = nested.map_arrays(mask_of, outputs)
        _, replicas = replica_context.replica_index()

        def one(example: Any) -> tf.Tensor:
            y, weight, output, mask = nested.map_arrays(
                lambda array: array[tf.newaxis], example
            )
            put_masks(output, mask)
            alone = Examples(None, y, weight)
            with self.scope(self.zeros()):
                if self.deciding == LOSS:
                    value = self.loss(alone, output, (), False) * replicas
                else:
                    results = self._keras.compute_metrics(
                        None, y, output, weight
                    )
                    value = results[self.deciding]
            return tf.cast(value, tf.float32)

        return _mapped(
            one, (examples.y, examples.sample_weight, outputs, masks)
        )

    def _compiled_metrics(self) -> dict[str, keras.metrics.Metric]:
        for holder in self._keras.metrics:
            results = holder.result()
            if isinstance(results, Mapping):
                return dict(zip(results, holder.metrics, strict=True))
        return {}

    def _deciding(self) -> str:
        for name, metric in self.compiled_metrics.items():
            if isinstance(metric, _ACCURACIES):
                return name
        return LOSS


def adds_losses(model: keras.Model, penalties: Sequence[Any]) -> bool:
    """Returns whether a layer adds a loss for what it sees.

    Args:
        model: The model.
        penalties: Its `losses` after a call, penalties on weights among them.
    """
    on_weights = sum(
        weight.regularizer is not None for weight in model.trainable_weights
    )
    return len(penalties) > on_weights


def as_decisions(values: np.ndarray) -> np.ndarray:
    """Returns values of examples, as bool if each is right or wrong."""
    is_decision = np.isin(values, (0, 1)).all()
    return values.astype(bool) if is_decision else values


def mode(model: keras.Model, training: bool) -> dict[str, bool]:
    """Returns the argument `training`, if the model's call takes it."""
    return {"training": training} if model._call_has_training_arg else {}


def called(model: keras.Model, x: Any) -> tuple[Any, list[Any]]:
    """Returns outputs and penalties of a model, which stays as it is."""
    pairs = [(v, v.value) for v in model.variables]
    with keras.StatelessScope(state_mapping=pairs, collect_losses=True):
        try:
            outputs = model(x, **mode(model, training=True))
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            raise UserError(
                f"Inputs do not fit model {model.name!r}: {one_line(error)}"
            ) from error
        return outputs, list(model.losses)


def _mapped(function: Callable[[Any], tf.Tensor], parts: Any) -> tf.Tensor:
    """Returns a function's results for each entry of nested arrays."""
    flat = nested.arrays_of(parts)

    def one(entries: Sequence[tf.Tensor]) -> tf.Tensor:
        each = iter(entries)
        return function(nested.map_arrays(lambda _: next(each), parts))

    try:
        return tf.vectorized_map(one, flat)
    except Exception:  # noqa: BLE001 - TensorFlow cannot vectorise all it has
        return tf.map_fn(one, flat, fn_output_signature=tf.float32)


def mask_of(tensor: Any) -> Any:
    """Returns which entries of a tensor count, as Keras keeps it, or None."""
    return getattr(tensor, "_keras_mask", None)


def put_masks(outputs: Any, masks: Any) -> None:
    """Marks entries of outputs as counting or not, as Keras does.

    Args:
        outputs: What a model returns.
        masks: As `mask_of` returns, nested alike.
    """
    pairs = zip(
        keras.tree.flatten(outputs), keras.tree.flatten(masks), strict=True
    )
    for output, mask in pairs:
        if mask is not None:
            output._keras_mask = mask


def _listed(metrics: Any) -> Any:
    return list(metrics) if isinstance(metrics, tuple) else metrics


def _are_means(recipe: Recipe) -> bool:
    """Returns whether loss and metrics are Keras' own means over examples."""
    given = keras.tree.flatten(
        (recipe.loss, recipe.metrics, recipe.weighted_metrics)
    )
    return all(_is_mean(each) for each in given if each is not None)


def _is_mean(given: Any) -> bool:
    if isinstance(given, str):
        return given.lower() not in _OF_BATCHES
    cls = (
        given if callable(given) and hasattr(given, "__name__") else type(given)
    )
    reduction = getattr(given, "reduction", "sum_over_batch_size")
    return (
        str(getattr(cls, "__module__", "")).startswith("keras.src.")
        and cls.__name__.lower() not in _OF_BATCHES
        and reduction in ("sum_over_batch_size", "mean")
        and getattr(given, "ignore_class", None) is None
        and _is_mean_inside(given)
    )


def _is_mean_inside(given: Any) -> bool:
    """Looks into Keras' objects that wrap a function of the user's."""
    inside = [getattr(given, name, None) for name in ("fn", "_fn")]
    return all(each is None or _is_mean(each) for each in inside)


def number(value: Any) -> Any:
    """Returns a metric's value as JSON holds it."""
    array = np.asarray(value)
    return float(array) if array.size == 1 else array.tolist()

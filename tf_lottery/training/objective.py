"""Loss and metrics of Keras, as functions of values."""

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
# Their value for a batch is not the mean over its examples.
_BATCH_LOSSES = ("dice", "tversky", "circle")
LOSS = "loss"


class EvalResult(NamedTuple):
    """Loss and metrics of a network on a split.

    Attributes:
        metrics: Name to value, with the names of `keras.Model.evaluate`:
            `"loss"`, `"accuracy"`, …; a list for a metric of several values.
        per_example: The deciding metric of each single example, float32 or
            bool `[examples]`; None if not requested.
    """

    metrics: Mapping[str, Any]
    per_example: np.ndarray | None = None


class _Compiled(keras.Model):
    """A model without layers that holds compiled loss and metrics.

    The user's model is not compiled, because it may be compiled already.

    Args:
        output_names: Output names of the user's model; None if it has none.
    """

    def __init__(self, output_names: Sequence[str] | None) -> None:
        super().__init__()
        self._names = None if output_names is None else tuple(output_names)

    @property
    def output_names(self) -> list[str]:
        """Names that assign losses and metrics to outputs."""
        if self._names is None:
            raise AttributeError("output_names")
        return list(self._names)


class Objective:
    """Loss and metrics of a model, computed by Keras.

    Keras' metrics count in variables. Their values, `totals`, are passed in
    and returned: inside `scope` they replace the variables, so one objective
    serves any number of networks.

    Args:
        model: A built model; it is not changed.
        recipe: Loss, metrics and their weights.
        sample: A few training examples, to build the metrics with; exactly
            one batch if the model has a fixed batch size.
        needs_loss: Whether a missing loss is an error.

    Raises:
        UserError: Keras rejects loss or metrics for this model and these
            examples, or there is no loss.

    Attributes:
        deciding: Name of the metric that decides whether a ticket wins: the
            first accuracy, else `"loss"`.
        is_mean_of_examples: Whether loss and metrics of a split do not depend
            on how it is divided into batches.
        compiled_metrics: The metrics of the recipe, as Keras resolved them,
            by the names of their results.
        has_output_masks: Whether an output has a Keras mask of time steps.
        adds_losses: Whether a layer adds a loss of its inputs or outputs
            (`add_loss`); penalties on weights do not count.
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
        self._has_metrics = not (
            recipe.metrics is None and recipe.weighted_metrics is None
        )
        self._layer_metrics = [
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
        # In a graph, as in `fit`; eagerly it takes milliseconds.
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
            or self._layer_metrics
            or not _are_means(recipe)
            or not self._adds_up(sample, outputs)
        )

    def _build(
        self, sample: Examples, outputs: Any, penalties: Sequence[Any]
    ) -> None:
        """Creates the variables of all metrics by a first batch."""
        try:
            loss = self.loss(sample, outputs, penalties, training=True)
            self.count(sample, outputs, loss)
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            raise UserError(
                "Loss and metrics do not fit the model's outputs and the "
                f"targets: {one_line(error)}"
            ) from error
        self._keras.reset_metrics()
        for metric in self._layer_metrics:
            metric.reset_state()
        if tuple(loss.shape):
            raise UserError(
                f"The loss of a batch must be a number; got shape {loss.shape}."
                " Leave `reduction` at its default."
            )

    def _adds_up(self, sample: Examples, outputs: Any) -> bool:
        """Returns whether the totals of two halves add up to those of a batch.

        They do not for metrics that broadcast each target against each output,
        as Keras' functions do for shapes `[n, 1]` and `[n]`.
        """
        size = len(nested.arrays_of(outputs)[0])
        halves = slice(0, size // 2), slice(size // 2, size)

        def totals(rows: slice) -> list[np.ndarray]:
            parts = (*sample, outputs)
            *arrays, out = nested.map_arrays(lambda a: a[rows], parts)
            with self.scope(self.zeros()) as scope:
                half = Examples(*arrays)
                self.count(half, out, self.loss(half, out, (), False))
            values = [scope.get_current_value(v) for v in self.variables]
            return [np.array(value) for value in values]

        batch = totals(slice(0, size))
        pairs = zip(*map(totals, halves), self._initial, batch, strict=True)
        return size < 2 or all(
            np.allclose(one + other - zero, both, rtol=1e-3, atol=1e-6)
            for one, other, zero, both in pairs
        )

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of all metrics, first sum and count of the loss."""
        layers = [v for metric in self._layer_metrics for v in metric.variables]
        return [*self._keras.metrics_variables, *layers]

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
        """Returns the loss of a batch, float32 scalar.

        Call it in the scope that holds the values of the weights.

        Args:
            examples: The batch.
            outputs: The model's outputs, with Keras' masks.
            penalties: The model's `losses` after the call.
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
        """Variables of the losses of single outputs, if there are several."""
        return [
            variable
            for metric in self._keras.metrics[1 + self._has_metrics :]
            for variable in metric.variables
        ]

    def _count_batches(self, before: Sequence[Any], outputs: Any) -> None:
        """Makes each batch count once in the losses of single outputs.

        Keras weights a batch by its size if the size is static, which it is
        not if the last batch of an epoch is smaller.
        """
        size = nested.arrays_of(outputs)[0].shape[0]
        if size is None:
            return
        # The very first batch creates them and is reset afterwards.
        for variable, old in zip(self._trackers, before, strict=False):
            variable.assign(old + (variable.value - old) / size)

    def count(self, examples: Examples, outputs: Any, loss: tf.Tensor) -> None:
        """Adds a batch to the metrics in scope, as `train_step` does.

        Args:
            examples: The batch.
            outputs: The model's outputs.
            loss: What `self.loss` returned.
        """
        _, replicas = replica_context.replica_index()
        first = nested.arrays_of(examples.x)[0]
        tracker = self._keras.metrics[0]
        tracker.update_state(loss * replicas, sample_weight=tf.shape(first)[0])
        self._keras.compute_metrics(
            examples.x, examples.y, outputs, examples.sample_weight
        )

    def results(self, totals: Sequence[Any]) -> dict[str, Any]:
        """Returns the metrics by their names in `keras.Model.evaluate`.

        Args:
            totals: Values of `variables`.
        """
        results = self._compiled_results(
            [tf.convert_to_tensor(t) for t in totals]
        )
        # A tf.function sorts the names; this restores Keras' order.
        return {name: number(results[name]) for name in self._result_names}

    def _results(self, totals: Sequence[tf.Tensor]) -> dict[str, Any]:
        with self.scope(totals):
            results = dict(self._keras.get_metrics_result())
            results |= {m.name: m.result() for m in self._layer_metrics}
        for name, value in list(results.items()):
            if isinstance(value, Mapping):  # a metric of several values
                results |= results.pop(name)
        self._result_names = list(results)
        return results

    def result(self, totals: Sequence[tf.Tensor], name: str) -> tf.Tensor:
        """Returns one metric.

        Args:
            totals: Values of `variables`.
            name: A key of what `results` returns.
        """
        return self._results(totals)[name]

    def scope(self, totals: Sequence[Any]) -> keras.StatelessScope:
        """Returns a Keras scope in which `variables` have given values.

        Args:
            totals: Values of `variables`.
        """
        pairs = zip(self.variables, totals, strict=True)
        return keras.StatelessScope(
            state_mapping=[(v, tf.convert_to_tensor(t)) for v, t in pairs]
        )

    def per_example(self, examples: Examples, outputs: Any) -> tf.Tensor:
        """Returns the deciding metric of each example, float32 `[examples]`.

        Args:
            examples: A batch.
            outputs: The model's outputs, with Keras' masks.
        """
        masks = nested.map_arrays(mask_of, outputs)
        _, replicas = replica_context.replica_index()

        def one(example: Any) -> tf.Tensor:
            y, weight, output, mask = nested.map_arrays(
                lambda array: array[tf.newaxis], example
            )
            put_masks(output, mask)
            single = Examples(None, y, weight)
            with self.scope(self.zeros()):
                if self.deciding == LOSS:
                    value = self.loss(single, output, (), False) * replicas
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
    """Returns whether a layer adds a loss besides penalties on weights.

    Args:
        model: The model.
        penalties: Its `losses` after a call.
    """
    on_weights = sum(
        weight.regularizer is not None for weight in model.trainable_weights
    )
    return len(penalties) > on_weights


def as_decisions(values: np.ndarray) -> np.ndarray:
    """Returns values as bool if all of them are 0 or 1.

    Args:
        values: The deciding metric of each example, `[examples]`.
    """
    is_decision = np.isin(values, (0, 1)).all()
    return values.astype(bool) if is_decision else values


def mode(model: keras.Model, training: bool) -> dict[str, bool]:
    """Returns `{"training": training}` if the model's `call` takes it.

    Args:
        model: The model.
        training: Whether to call it in training mode.
    """
    return {"training": training} if model._call_has_training_arg else {}


def called(model: keras.Model, x: Any) -> tuple[Any, list[Any]]:
    """Returns outputs and losses of a model without changing variables.

    Args:
        model: The model.
        x: Inputs, nested as the model takes them.

    Raises:
        UserError: The inputs do not fit the model.
    """
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
    """Returns a function's results for each entry along the first axis."""
    flat = nested.arrays_of(parts)

    def one(entries: Sequence[tf.Tensor]) -> tf.Tensor:
        each = iter(entries)
        return function(nested.map_arrays(lambda _: next(each), parts))

    try:
        return tf.vectorized_map(one, flat)
    except Exception:  # noqa: BLE001 - some operations cannot be vectorized
        return tf.map_fn(one, flat, fn_output_signature=tf.float32)


def mask_of(tensor: Any) -> Any:
    """Returns the Keras mask of a tensor (which entries count), or None.

    Args:
        tensor: An output of a model.
    """
    return getattr(tensor, "_keras_mask", None)


def put_masks(outputs: Any, masks: Any) -> None:
    """Attaches Keras masks to outputs.

    Args:
        outputs: Tensors, nested as the model's outputs.
        masks: What `mask_of` returned for each, nested in the same way.
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
    """Returns whether loss and metrics are means over examples, by Keras."""
    functions = keras.tree.flatten(
        (recipe.loss, recipe.metrics, recipe.weighted_metrics)
    )
    return all(_is_mean(each) for each in functions if each is not None)


def _is_mean(function: Any) -> bool:
    """Returns whether a loss or metric (or its name) is such a mean."""
    if isinstance(function, str):
        return function.lower() not in _BATCH_LOSSES
    has_name = callable(function) and hasattr(function, "__name__")
    cls = function if has_name else type(function)
    reduction = getattr(function, "reduction", "sum_over_batch_size")
    return (
        str(getattr(cls, "__module__", "")).startswith("keras.src.")
        and cls.__name__.lower() not in _BATCH_LOSSES
        and reduction in ("sum_over_batch_size", "mean")
        and getattr(function, "ignore_class", None) is None
        and _wraps_mean(function)
    )


def _wraps_mean(wrapper: Any) -> bool:
    """Checks the function inside wrappers such as `MeanMetricWrapper`."""
    inside = [getattr(wrapper, name, None) for name in ("fn", "_fn")]
    return all(each is None or _is_mean(each) for each in inside)


def number(value: Any) -> Any:
    """Returns a metric's value as a float or a nested list, for JSON.

    Args:
        value: A scalar, array or tensor.
    """
    array = np.asarray(value)
    return float(array) if array.size == 1 else array.tolist()

"""A network's training step and evaluation as functions of values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.masking.masked_optimizer import slots_by_name
from tf_lottery.training.backends import stateless_optimizer
from tf_lottery.training.distribution import replica_context
from tf_lottery.training.input_pipeline import Examples
from tf_lottery.training.objective import Objective, mode
from tf_lottery.training.state import State, assign, values

Augment = Callable[..., tf.Tensor]


class Values(NamedTuple):
    """All that a training step changes, as lists of tensors.

    Attributes:
        weights: Values of the model's trainable variables, in Keras' order.
        others: Values of its non-trainable variables: moving statistics,
            states of seed generators and of recurrent layers.
        slots: Values of the optimizer's variables, in Keras' order.
    """

    weights: list[tf.Tensor]
    others: list[tf.Tensor]
    slots: list[tf.Tensor]


class FunctionalModel:
    """A model, its optimizer and its objective, as functions of values.

    Variables only define names, shapes and types. All values are passed in
    and returned, so the same function serves one network, a stack of
    networks, or another device.

    Args:
        model: A built Keras model.
        optimizer: An optimizer, or its name or configuration in Keras.
        objective: Its loss and metrics. None: it can neither train nor be
            evaluated.
        kernels: Paths of the kernels that carry masks.
        auto_scale_loss: Whether float16 training gets loss scaling.

    Attributes:
        variables: Path to variable of the model.
        slots: Name to variable of the optimizer.
        masked: Path of each masked kernel to its index in `Values.weights`.
        has_states: Whether evaluation passes states from one batch to the
            next, as stateful RNNs do.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: Any,
        objective: Objective | None,
        kernels: Sequence[str] = (),
        auto_scale_loss: bool = True,
    ) -> None:
        self.model = model
        self._objective = objective
        self.variables = masking.variables_by_path(model)
        self._path = {id(v): path for path, v in self.variables.items()}
        self._weights = model.trainable_variables
        listed = {id(variable) for variable in model.variables}
        self._others = [
            *model.non_trainable_variables,
            # States of stateful RNNs, which Keras leaves out of `variables`.
            *(v for v in self.variables.values() if id(v) not in listed),
        ]
        if auto_scale_loss:
            optimizer = with_loss_scaling(optimizer, model)
        self.optimizer = stateless_optimizer.from_keras(optimizer)
        self.optimizer.build(self._weights)
        self.slots = slots_by_name(self.optimizer, self.variables)
        self._initial_slots = {
            name: _compact(value) for name, value in values(self.slots).items()
        }
        index = {id(weight): i for i, weight in enumerate(self._weights)}
        self.masked = {
            path: index[id(self.variables[path])] for path in kernels
        }
        self.has_states = any(
            getattr(layer, "stateful", False)
            for layer in model._flatten_layers()
        )

    @property
    def objective(self) -> Objective:
        """The loss and the metrics."""
        if self._objective is None:
            raise ValueError("This network was built without an objective.")
        return self._objective

    @property
    def paths(self) -> list[str]:
        """The paths of `Values.weights` and `Values.others`, in order."""
        return [self._path[id(v)] for v in (*self._weights, *self._others)]

    @property
    def state(self) -> State:
        """The current values of the model's and the optimizer's variables."""
        step = int(self.optimizer.iterations)
        slots = values(self.slots) if step else {}
        return State(step, values(self.variables), slots)

    @state.setter
    def state(self, state: State) -> None:
        assign(self.variables, state.weights)
        assign(self.slots, state.slots or self._initial_slots)
        masking.derive(self.model)

    def reset_optimizer(self) -> None:
        """Sets the optimizer's variables to those of a new optimizer."""
        assign(self.slots, self._initial_slots)

    def update_constants(self, state: State) -> None:
        """Updates constants that layers derive from their variables.

        Layers such as `Normalization` read constants that a compiled program
        takes from the model, not from values. Variables do not change.

        Args:
            state: The state that training starts from.
        """
        if masking.derives(self.model):
            before = values(self.variables)
            assign(self.variables, state.weights)
            masking.derive(self.model)
            assign(self.variables, before)

    def values_of(self, state: State) -> Values:
        """Returns a state as tensors.

        Args:
            state: Arrays by path and name.
        """
        slots = state.slots or self._initial_slots
        slot_of = {id(v): slots[name] for name, v in self.slots.items()}
        weights, others = (
            [tf.constant(state.weights[self._path[id(v)]]) for v in group]
            for group in (self._weights, self._others)
        )
        return Values(
            weights,
            others,
            [tf.constant(slot_of[id(v)]) for v in self.optimizer.variables],
        )

    def state_of(self, values: Values, step: int) -> State:
        """Returns tensors as a state.

        Args:
            values: The tensors.
            step: Optimizer updates so far; at 0, slots are left out, and
                `values` need none.
        """
        arrays = (*values.weights, *values.others)
        pairs = zip(self.paths, arrays, strict=True)
        weights = {path: value.numpy() for path, value in pairs}
        weights = {path: weights[path] for path in self.variables}
        if not step:
            return State(0, weights, {})
        pairs = zip(self.optimizer.variables, values.slots, strict=True)
        value_of = {id(v): value.numpy() for v, value in pairs}
        slots = {name: value_of[id(v)] for name, v in self.slots.items()}
        return State(step, weights, slots)

    def masks_of(self, masks: Mapping[str, np.ndarray]) -> list[tf.Tensor]:
        """Returns the masks of all masked kernels, in the order of `masked`.

        Args:
            masks: Kernel path to bool array of the kernel's shape.
        """
        return [tf.constant(masks[path], tf.bool) for path in self.masked]

    def step(
        self,
        values: Values,
        totals: Sequence[tf.Tensor],
        masks: Sequence[tf.Tensor],
        examples: Examples,
    ) -> tuple[Values, list[tf.Tensor]]:
        """Takes one training step.

        On several replicas, each with a shard of the batch, gradients are
        summed over the replicas; totals are not.

        Gradients are masked before clipping and slots, weights after the
        update: by `where`, because 0 · inf is nan.

        Args:
            values: The network before the step.
            totals: Values of the objective's variables before the step.
            masks: Per masked kernel, bool of the kernel's shape.
            examples: The batch.

        Returns:
            The network and the totals after the step.
        """
        with tf.GradientTape() as tape:
            tape.watch(values.weights)
            _, loss, others, totals = self._forward(
                values, totals, examples, training=True
            )
            scaled_loss = self._scale(loss, values.slots)
        gradients = replica_context.all_reduce_sum(
            [
                None if gradient is None else tf.convert_to_tensor(gradient)
                for gradient in tape.gradient(scaled_loss, values.weights)
            ]
        )
        weights, slots = self._update(
            gradients, values.weights, values.slots, list(masks)
        )
        return Values(weights, others, slots), totals

    def evaluated(
        self, values: Values, totals: Sequence[tf.Tensor], examples: Examples
    ) -> tuple[Values, list[tf.Tensor]]:
        """Adds a batch to the metrics, in inference mode.

        Args:
            values: The network.
            totals: Values of the objective's variables before the batch.
            examples: The batch.

        Returns:
            The network, whose states may change, and the new totals.
        """
        _, _, others, totals = self._forward(
            values, totals, examples, training=False
        )
        return values._replace(others=others), totals

    def per_example(self, values: Values, examples: Examples) -> tf.Tensor:
        """Returns the deciding metric of each example, float32 `[examples]`.

        Args:
            values: The network.
            examples: The examples.
        """
        outputs, *_ = self._forward(
            values, self.objective.zeros(), examples, training=False
        )
        return self.objective.per_example(examples, outputs)

    def _forward(
        self,
        values: Values,
        totals: Sequence[tf.Tensor],
        examples: Examples,
        training: bool,
    ) -> tuple[Any, tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Returns outputs, loss, new `others` and new totals."""
        counters = self.objective.variables
        pairs = [
            *zip(self._weights, values.weights, strict=True),
            *zip(self._others, values.others, strict=True),
            *zip(counters, totals, strict=True),
        ]
        with keras.StatelessScope(
            state_mapping=pairs, collect_losses=True
        ) as scope:
            outputs = self.model(examples.x, **mode(self.model, training))
            loss = self.objective.loss(
                examples, outputs, self.model.losses, training
            )
            self.objective.count(examples, outputs, loss)
        others = [scope.get_current_value(v) for v in self._others]
        after = [scope.get_current_value(v) for v in counters]
        return (
            outputs,
            loss,
            _cast_like(values.others, others),
            _cast_like(totals, after),
        )

    # One pass over the weights, where XLA does not compile the whole step.
    @tf.function(jit_compile=True, autograph=False)
    def _update(
        self,
        gradients: list[Any],
        weights: list[tf.Tensor],
        slots: list[tf.Tensor],
        masks: list[tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns weights and slots after an update."""
        mask_of = dict(zip(self.masked.values(), masks, strict=True))
        new_weights, new_slots = self.optimizer.stateless_apply(
            slots, _apply_masks(gradients, mask_of), weights
        )
        new_slots = self._mask_averages(new_slots, mask_of)
        return _apply_masks(new_weights, mask_of), _cast_like(slots, new_slots)

    def _scale(self, loss: tf.Tensor, slots: Sequence[tf.Tensor]) -> tf.Tensor:
        pairs = list(zip(self.optimizer.variables, slots, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return self.optimizer.scale_loss(loss)

    def _mask_averages(
        self, slots: Sequence[tf.Tensor], mask_of: Mapping[int, tf.Tensor]
    ) -> list[tf.Tensor]:
        """Masks moving averages, which were updated before weights were."""
        slots = list(slots)
        index = {id(v): i for i, v in enumerate(self.optimizer.variables)}
        for i, average in enumerate(
            stateless_optimizer.averages(self.optimizer)
        ):
            if i in mask_of:
                j = index[id(average)]
                slots[j] = _apply_mask(mask_of[i], slots[j])
        return slots


def _compact(array: np.ndarray) -> np.ndarray:
    """Returns an array of one value without the memory of the others."""
    if array.size and (array == array.flat[0]).all():
        return np.broadcast_to(array.flat[0], array.shape)
    return array


def without_slots(packed: Any) -> Any:
    """Returns packed `Values` without slots, which only training needs.

    Args:
        packed: `Values`, or a tuple of them.
    """
    if isinstance(packed, Values):
        return packed._replace(slots=[])
    return tuple(without_slots(each) for each in packed)


def _apply_masks(
    arrays: Sequence[Any], mask_of: Mapping[int, tf.Tensor]
) -> list[Any]:
    return [
        array
        if array is None or i not in mask_of
        else _apply_mask(mask_of[i], array)
        for i, array in enumerate(arrays)
    ]


def _cast_like(
    before: Sequence[tf.Tensor], after: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """Undoes Keras' promotion of seed generator states and counters."""
    pairs = zip(before, after, strict=True)
    return [tf.cast(new, old.dtype) for old, new in pairs]


def _apply_mask(mask: tf.Tensor, array: tf.Tensor) -> tf.Tensor:
    return tf.where(mask, array, tf.zeros_like(array))


def with_loss_scaling(
    optimizer: Any, model: keras.Model
) -> keras.optimizers.Optimizer:
    """Returns an optimizer with loss scaling if the model computes in float16.

    Args:
        optimizer: An optimizer, or its name or configuration in Keras.
        model: The model to train.
    """
    resolved = keras.optimizers.get(optimizer)
    is_half = model.dtype_policy.compute_dtype == "float16" or any(
        layer.dtype_policy.compute_dtype == "float16"
        for layer in model._flatten_layers()
    )
    scale = keras.optimizers.LossScaleOptimizer
    if is_half and not isinstance(resolved, scale):
        return scale(type(resolved).from_config(resolved.get_config()))
    return resolved

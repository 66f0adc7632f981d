"""A Keras model as a list of calls, in their order."""

import dataclasses
from typing import Any, TypeAlias

import keras

Tensor: TypeAlias = keras.KerasTensor


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One operation, called once.

    Attributes:
        operation: The layer, or a bare operation such as `keras.ops.add`.
        arguments: What it is called with, positionally; any structure.
        options: What it is called with by name.
        inputs: The tensors among its arguments.
        outputs: The tensors it returns.
    """

    operation: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The calls of a model from its inputs to its outputs.

    Attributes:
        inputs: The tensors that the model is given.
        calls: Its calls, in an order in which they can be made.
        outputs: The tensors that it returns.
        given: The structure in which it takes `inputs`: one, a list, a dict.
        returned: The structure in which it returns `outputs`.
        opened: Ids of the nested models whose calls stand among `calls`.
    """

    inputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Tensor, ...]
    given: Any
    returned: Any
    opened: frozenset[int]

    def times(self, operation: Any) -> int:
        """Returns how often an operation is called."""
        return sum(call.operation is operation for call in self.calls)


def channels(tensor: Tensor) -> int:
    """Returns the size of a tensor's last axis; 0 where it has none."""
    return (tensor.shape[-1] or 0) if len(tensor.shape) > 1 else 0


def trace(model: keras.Model, closed: frozenset[int] = frozenset()) -> Graph:
    """Returns the calls of a model; those of nested models stand among them.

    A nested model is one call, not its own, if it is subclassed or called
    otherwise than on its inputs alone, such as with `training=True`: wherever
    it is called then, for it must stay one model.

    Args:
        model: A Sequential or functional model. Its layers are called once
            more, on symbolic tensors.
        closed: Ids of nested models that are one call.
    """
    if isinstance(model, keras.Sequential):
        model = _functional(model)
    calls: list[Call] = []
    opened: set[int] = set()
    renamed: dict[int, Tensor] = {}
    # Tensors are told apart by identity, so none may be freed meanwhile.
    alive: list[Any] = []

    def current(value: Any) -> Any:
        while id(value) in renamed:
            value = renamed[id(value)]
        return value

    def visit(operation: Any, *arguments: Any, **options: Any) -> Any:
        result = operation(*arguments, **options)
        alive.append(result)
        given, named = keras.tree.map_structure(current, (arguments, options))
        if id(operation) in closed or not _is_open(
            operation, arguments, options
        ):
            calls.append(_call(operation, given, named, result))
            return result
        inner = trace(operation, closed)
        alive.append(inner)
        opened.update({id(operation)}, inner.opened)
        for theirs, ours in (
            *zip(inner.inputs, _tensors(given), strict=True),
            *zip(_tensors(result), inner.outputs, strict=True),
        ):
            renamed[id(theirs)] = ours
        for call in inner.calls:
            given, named = keras.tree.map_structure(
                current, (call.arguments, call.options)
            )
            calls.append(_call(call.operation, given, named, call.outputs))
        return result

    again = keras.models.clone_model(
        model, clone_function=lambda layer: layer, call_function=visit
    )
    both = opened & {id(call.operation) for call in calls}
    if both:
        return trace(model, closed | both)
    outputs = tuple(current(tensor) for tensor in again.outputs)
    return Graph(
        tuple(again.inputs),
        tuple(calls),
        outputs,
        again.input,
        again.output,
        frozenset(opened),
    )


def _is_open(
    operation: Any, arguments: tuple[Any, ...], options: dict[str, Any]
) -> bool:
    """Returns whether a call is that of the calls inside a nested model."""
    if not isinstance(operation, keras.Model):
        return False
    # Keras has no public name for its functional models.
    is_graph = hasattr(operation, "operations")
    if not is_graph and not isinstance(operation, keras.Sequential):
        return False
    # Keras writes down `training=False` where nothing was said; options may be
    # tensors. Those of a dict are matched by name, which may be another order.
    said = [v for v in options.values() if v is not None and v is not False]
    by_name = isinstance(arguments[0], dict)
    return not said and not by_name and len(arguments) == 1


def _functional(model: keras.Sequential) -> keras.Model:
    (given,) = model.inputs
    first = keras.Input(
        batch_shape=given.shape, dtype=given.dtype, name=given.name
    )
    tensor = first
    for layer in model.layers:
        tensor = layer(tensor)
    return keras.Model(first, tensor, name=model.name)


def _call(
    operation: Any, arguments: Any, options: dict[str, Any], outputs: Any
) -> Call:
    options = {k: v for k, v in options.items() if v is not None}
    inputs = _tensors((arguments, options))
    return Call(operation, arguments, options, inputs, _tensors(outputs))


def _tensors(structure: Any) -> tuple[Tensor, ...]:
    leaves = keras.tree.flatten(structure)
    return tuple(leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor))

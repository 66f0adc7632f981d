"""A Keras model as a list of calls in topological order."""

import dataclasses
from typing import Any, TypeAlias

import keras

Tensor: TypeAlias = keras.KerasTensor


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation.

    Attributes:
        operation: The layer, or an operation such as `keras.ops.add`.
        arguments: Its positional arguments; any structure.
        options: Its keyword arguments.
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
        inputs: The tensors that the model takes.
        calls: Its calls, in topological order.
        outputs: The tensors that it returns.
        input_structure: `inputs` as the model takes them: one tensor, a list
            or a dict.
        output_structure: `outputs` as the model returns them.
        opened: Ids of the nested models whose calls are in `calls`.
    """

    inputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Tensor, ...]
    input_structure: Any
    output_structure: Any
    opened: frozenset[int]

    def times(self, operation: Any) -> int:
        """Returns the number of calls of an operation."""
        return sum(call.operation is operation for call in self.calls)


def channels(tensor: Tensor) -> int:
    """Returns the size of a tensor's last axis; 0 if it has none."""
    return (tensor.shape[-1] or 0) if len(tensor.shape) > 1 else 0


def trace(model: keras.Model, closed: frozenset[int] = frozenset()) -> Graph:
    """Returns the calls of a model, with those of its nested models.

    A nested model counts as one call if it is subclassed, or if any of its
    calls has more than its inputs, such as `training=True`: it must then stay
    one model everywhere.

    Args:
        model: A Sequential or functional model. Its layers are called once
            more, on symbolic tensors.
        closed: Ids of nested models that count as one call.
    """
    if isinstance(model, keras.Sequential):
        model = _functional(model)
    calls: list[Call] = []
    opened: set[int] = set()
    renamed: dict[int, Tensor] = {}
    # Tensors are identified by `id`, so none may be freed meanwhile.
    alive: list[Any] = []

    def current(value: Any) -> Any:
        while id(value) in renamed:
            value = renamed[id(value)]
        return value

    def visit(operation: Any, *arguments: Any, **options: Any) -> Any:
        result = operation(*arguments, **options)
        alive.append(result)
        current_arguments, current_options = keras.tree.map_structure(
            current, (arguments, options)
        )
        if id(operation) in closed or not _is_open(
            operation, arguments, options
        ):
            calls.append(
                _call(operation, current_arguments, current_options, result)
            )
            return result
        inner = trace(operation, closed)
        alive.append(inner)
        opened.update({id(operation)}, inner.opened)
        for old, new in (
            *zip(inner.inputs, _tensors(current_arguments), strict=True),
            *zip(_tensors(result), inner.outputs, strict=True),
        ):
            renamed[id(old)] = new
        for call in inner.calls:
            inner_arguments, inner_options = keras.tree.map_structure(
                current, (call.arguments, call.options)
            )
            calls.append(
                _call(
                    call.operation, inner_arguments, inner_options, call.outputs
                )
            )
        return result

    traced = keras.models.clone_model(
        model, clone_function=lambda layer: layer, call_function=visit
    )
    # Models with calls of both kinds stay one call.
    mixed = opened & {id(call.operation) for call in calls}
    if mixed:
        return trace(model, closed | mixed)
    outputs = tuple(current(tensor) for tensor in traced.outputs)
    return Graph(
        tuple(traced.inputs),
        tuple(calls),
        outputs,
        traced.input,
        traced.output,
        frozenset(opened),
    )


def _is_open(
    operation: Any, arguments: tuple[Any, ...], options: dict[str, Any]
) -> bool:
    """Returns whether a call can be replaced by those of a nested model."""
    if not isinstance(operation, keras.Model):
        return False
    # Keras has no public name for its functional models.
    is_graph = hasattr(operation, "operations")
    if not is_graph and not isinstance(operation, keras.Sequential):
        return False
    # Keras writes `training=False` into configurations where it was not given;
    # options may be tensors. Inputs in a dict may be in another order.
    given = [v for v in options.values() if v is not None and v is not False]
    by_name = isinstance(arguments[0], dict)
    return not given and not by_name and len(arguments) == 1


def _functional(model: keras.Sequential) -> keras.Model:
    (original,) = model.inputs
    tensor = first = keras.Input(
        batch_shape=original.shape, dtype=original.dtype, name=original.name
    )
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

"""Which variables of a model are kernels that masks can cover."""

import dataclasses
import fnmatch
from collections.abc import Iterable

import keras

from tf_lottery.core import registry
from tf_lottery.core.errors import UserError, UserTypeError
from tf_lottery.masking import conversion, layers, paths

Patterns = str | Iterable[str] | None

_CONVOLUTIONS = tuple(cls for cls in layers.KERNELS if "Conv" in cls.__name__)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel that can carry a mask.

    Attributes:
        path: The kernel's path.
        role: `"conv"`, `"dense"`, `"embedding"`, `"recurrent"` (from one time
            step to the next), `"named"` for a variable that is masked only
            because an include pattern names it, or `"output"` for the last
            kernel of the model.
        variable: The stored kernel, without its mask.
        layer: The layer that owns it.
    """

    path: str
    role: str
    variable: keras.Variable
    layer: keras.layers.Layer


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a coverage table.

    Attributes:
        path: The variable's path.
        shape: Its shape.
        role: The role of the `Kernel`; `""` for other variables.
        reason: The reason why it is not masked; `""` if it is masked.
    """

    path: str
    shape: tuple[int, ...]
    role: str
    reason: str

    def __str__(self) -> str:
        """Returns the row as one line of text."""
        state = f"not masked: {self.reason}" if self.reason else "masked"
        return f"{self.path} {self.shape} {self.role} {state}"


def kernels(
    model: keras.Model, include: Patterns = None, exclude: Patterns = None
) -> dict[str, Kernel]:
    """Returns the kernels of a model that can be masked, by path.

    These are the kernels of Keras layers (`layers.KERNELS` lists them), nested
    ones too, but not biases, weights of normalisation, or frozen kernels.
    Frankle & Carbin 2019 mask no biases either (its weight counts leave them
    out, Fig. 2).

    Args:
        model: A built Keras 3 model.
        include: Glob patterns of the kernel paths to return. A pattern that
            matches no kernel may name other trainable variables: biases, or
            variables of your own layers. None: all kernels.
        exclude: Glob patterns of kernel paths to leave out.

    Returns:
        Path to kernel, in the model's order.

    Raises:
        UserTypeError: The model is not a Keras 3 model.
        UserError: The model is not built, or no kernel is left to mask, or a
            pattern matches nothing, or only a frozen kernel.
    """
    require_model(model)
    known = maskable_kernels(model)
    named = {**known, **_other_trainables(model, known)} if include else known
    _require_unfrozen(_all_kernels(model), named, include)
    chosen = _select(known, named, include, exclude)
    if not chosen:
        raise UserError(
            f"Excluding {exclude!r} leaves no kernel of {list(known)}."
            if known
            else f"Model {model.name!r} has no kernel to mask: no trainable "
            "layer of Keras with a kernel is among its layers. "
            + _advice(model)
        )
    return {path: named[path] for path in chosen}


def _advice(model: keras.Model) -> str:
    kernels = _all_kernels(model)
    frozen = [f"{path!r} is {_frozen(k)}" for path, k in kernels.items()]
    others = _other_trainables(model, {})
    if frozen:
        return f"{'; '.join(frozen)}."
    return (
        "Name variables of your own, include=['path']: it has "
        f"{', '.join(others) or 'none'}."
    )


def _require_unfrozen(
    kernels: dict[str, Kernel], named: dict[str, Kernel], include: Patterns
) -> None:
    for pattern in _patterns(include):
        if not fnmatch.filter(named, pattern):
            for path in fnmatch.filter(kernels, pattern):
                reason = _frozen(kernels[path])
                raise UserError(f"{path!r} cannot be masked: it is {reason}.")


def _frozen(kernel: Kernel) -> str:
    """Returns the reason why a kernel does not train, and what to do."""
    layer = kernel.layer
    if getattr(layer, "lora_enabled", False):
        return "frozen under LoRA (save the model: files have them merged)"
    if getattr(layer, "quantization_mode", None):
        return "quantised (mask the model first, then quantise it stripped)"
    return f"frozen (set `trainable` of layer {layer.name!r})"


def maskable_kernels(model: keras.Model) -> dict[str, Kernel]:
    """Returns every trainable kernel of a model by path.

    Args:
        model: A built Keras 3 model.
    """
    trainable = {id(v) for v in model.trainable_variables}
    return {
        path: kernel
        for path, kernel in _all_kernels(model).items()
        if id(kernel.variable) in trainable
    }


def _all_kernels(model: keras.Model) -> dict[str, Kernel]:
    """Returns every kernel by path, frozen ones included."""
    owners = {
        id(variable): (layer, name)
        for layer in reversed(paths.layers_by_path(model).values())
        for name, variable in conversion.stored_kernels(layer).items()
    }
    variables = paths.variables_by_path(model)
    known = [path for path, v in variables.items() if id(v) in owners]
    kernels = {}
    for path in known:
        layer, name = owners[id(variables[path])]
        # Frozen kernels count: freezing the head makes no other kernel the
        # output.
        role = "output" if path == known[-1] else _role(layer, name)
        kernels[path] = Kernel(path, role, variables[path], layer)
    return kernels


def _other_trainables(
    model: keras.Model, known: dict[str, Kernel]
) -> dict[str, Kernel]:
    """Returns the trainable variables that are not known kernels, by path."""
    owners = {
        id(variable): layer
        for layer in [model, *paths.layers_by_path(model).values()]
        for variable in layer.trainable_variables
    }
    return {
        path: Kernel(path, "named", variable, owners[id(variable)])
        for path, variable in paths.variables_by_path(model).items()
        if path not in known and id(variable) in owners
    }


def coverage_of(
    model: keras.Model, include: Patterns = None, exclude: Patterns = None
) -> tuple[Row, ...]:
    """Returns a table of the weights of a model that are masked or not.

    A row prints as one line and gives the reason if a weight is not masked.

    Args:
        model: A built Keras 3 model.
        include: Glob patterns of kernel paths to mask; None: all kernels.
        exclude: Glob patterns of kernel paths not to mask.

    Returns:
        A row for each kernel, and for each other weight with two dimensions
        or more.
    """
    chosen = kernels(model, include, exclude)
    every = _all_kernels(model)
    trainable = {id(v) for v in model.trainable_variables}
    rows = []
    for path, variable in paths.variables_by_path(model).items():
        if path not in {**every, **chosen} and len(variable.shape) < 2:
            continue
        kernel = chosen.get(path, every.get(path))
        if path in chosen:
            reason = ""
        elif id(variable) not in trainable:
            reason = _frozen(kernel) if kernel else "no weight to train"
        elif path in every:
            reason = "left out by include or exclude"
        else:
            reason = "no kernel of a Keras layer; include can name it"
        role = kernel.role if kernel else ""
        rows.append(Row(path, tuple(variable.shape), role, reason))
    return tuple(rows)


def require_model(model: keras.Model) -> None:
    """Raises an error unless this is a built Keras 3 model.

    Args:
        model: Any object.

    Raises:
        UserTypeError: It is not a Keras 3 model.
        UserError: It is not built.
    """
    if not isinstance(model, keras.Model):
        cls = type(model)
        raise UserTypeError(
            "A Keras 3 model is needed (keras.Model); got "
            f"{cls.__module__}.{cls.__qualname__}."
        )
    if not model.built:
        raise UserError(
            f"Model {model.name!r} is not built, so it has no weights yet. "
            "Give it a keras.Input, or call it once on data."
        )


def matching(
    pattern: str, known: Iterable[str], similar: Iterable[str] = ()
) -> list[str]:
    """Returns the paths that a glob pattern matches.

    Args:
        pattern: The glob pattern.
        known: The paths of kernels.
        similar: More paths that the error may suggest.

    Raises:
        UserError: It matches none; the message suggests the nearest path.
    """
    known = list(known)
    matches = [path for path in known if fnmatch.fnmatchcase(path, pattern)]
    if not matches:
        nearest = registry.nearest(pattern, [*known, *similar])
        raise UserError(
            f"{pattern!r} matches no kernel.{nearest} "
            f"Kernels: {', '.join(known)}."
        )
    return matches


def _role(layer: keras.layers.Layer, name: str) -> str:
    if name.startswith("recurrent"):
        return "recurrent"
    if isinstance(layer, keras.layers.Embedding):
        return "embedding"
    return "conv" if isinstance(layer, _CONVOLUTIONS) else "dense"


def _select(
    known: dict[str, Kernel],
    named: dict[str, Kernel],
    include: Patterns,
    exclude: Patterns,
) -> list[str]:
    chosen = set(known) if include is None else set()
    for pattern in _patterns(include):
        hits = fnmatch.filter(named, pattern)
        kernels = [path for path in hits if path in known]
        chosen.update(kernels or hits or matching(pattern, known, named))
    for pattern in _patterns(exclude):
        chosen.difference_update(matching(pattern, named))
    return [path for path in named if path in chosen]


def _patterns(patterns: Patterns) -> list[str]:
    if patterns is None:
        return []
    return [patterns] if isinstance(patterns, str) else list(patterns)

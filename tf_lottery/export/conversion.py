"""What a model must be for a converter to take it."""

import contextlib
from collections.abc import Iterator

import keras

from tf_lottery.core.errors import UserError
from tf_lottery.export import muting
from tf_lottery.export.source import Network

_HALF = ("float16", "bfloat16")


@contextlib.contextmanager
def computing_in_float32(model: keras.Model) -> Iterator[None]:
    """Has layers compute in float32 where they compute in half precision.

    Weights stay as they are: those of mixed precision are float32 already.
    """
    changed = []
    for layer in model._flatten_layers():
        if layer.compute_dtype in _HALF:
            changed.append((layer, layer.dtype_policy))
            layer.dtype_policy = "float32"
    try:
        yield
    finally:
        for layer, policy in changed:
            layer.dtype_policy = policy


@contextlib.contextmanager
def unrolled(model: keras.Model) -> Iterator[None]:
    """Has recurrent layers write their time steps out, without a loop."""
    changed = [layer for layer in recurrent(model) if not layer.unroll]
    for layer in changed:
        layer.unroll = True
    try:
        yield
    finally:
        for layer in changed:
            layer.unroll = False


def recurrent(model: keras.Model) -> list[keras.layers.RNN]:
    """Returns the recurrent layers of a model."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN)
    ]


def advice(network: Network, *formats: str) -> str:
    """Returns what helps where a format cannot compute what a model does."""
    text = f"rite another format ({', '.join(formats)})."
    if not any(None in spec.shape[1:] for spec in network.signature.specs):
        return f"W{text}"
    return (
        "Give its keras.Input fixed sizes (a fixed number of time steps, where "
        f"it is recurrent); or w{text}"
    )


@contextlib.contextmanager
def refusing(model: keras.Model, name: str, advice: str) -> Iterator[None]:
    """Turns what a converter prints and raises into one line.

    Args:
        model: What is converted.
        name: The format that it is converted to.
        advice: What the user can do.

    Raises:
        ValueError: The converter failed.
    """
    try:
        with muting.muted():
            yield
    except Exception as error:  # whatever a converter raises
        raise UserError(
            f"Model {model.name!r} cannot be converted to {name}: "
            f"{muting.first_line(error)} {advice}"
        ) from error

"""Temporary changes to a model that converters need, and their errors."""

import contextlib
from collections.abc import Iterator

import keras

from tf_lottery.core.errors import UserError
from tf_lottery.export import suppress_output
from tf_lottery.export.exported_model import ExportedModel

_HALF = ("float16", "bfloat16")


@contextlib.contextmanager
def computing_in_float32(model: keras.Model) -> Iterator[None]:
    """Makes layers that compute in half precision compute in float32.

    Weights do not change: those of mixed precision are float32 already.

    Args:
        model: The model; restored at the end.
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
    """Unrolls recurrent layers: no loop over time steps.

    Args:
        model: The model; restored at the end.
    """
    changed = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN) and not layer.unroll
    ]
    for layer in changed:
        layer.unroll = True
    try:
        yield
    finally:
        for layer in changed:
            layer.unroll = False


def advice(exported: ExportedModel, *formats: str) -> str:
    """Returns what a user can do if a format cannot express the model.

    Args:
        exported: The model.
        *formats: Formats to suggest.
    """
    text = f"rite another format ({', '.join(formats)})."
    if not any(None in spec.shape[1:] for spec in exported.signature.specs):
        return f"W{text}"
    return (
        "Give its keras.Input fixed sizes (a fixed number of time steps, where "
        f"it is recurrent); or w{text}"
    )


@contextlib.contextmanager
def report_errors(model: keras.Model, name: str, advice: str) -> Iterator[None]:
    """Turns what a converter prints and raises into an error of one line.

    Args:
        model: The model that is converted.
        name: The format that it is converted to.
        advice: What the user can do.

    Raises:
        UserError: The converter failed.
    """
    try:
        with suppress_output.suppress_stderr():
            yield
    except Exception as error:  # A converter may raise anything.
        raise UserError(
            f"Model {model.name!r} cannot be converted to {name}: "
            f"{suppress_output.error_summary(error)} {advice}"
        ) from error

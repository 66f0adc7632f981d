"""This module knows how a network becomes a SavedModel to serve."""

import os
import pathlib
import shutil

import keras
import tensorflow as tf

from tf_lottery.export import source as sources


def saved_model(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
) -> pathlib.Path:
    """Writes a SavedModel of stock layers, pruned weights at zero.

    `tf.saved_model.load` reads it where tf_lottery is not installed; it has
    the endpoint `serve` and the signature `serving_default`. Each weight is
    stored once: `keras.Model.export` stores it twice (keras#23553).

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The directory to write; a SavedModel there is replaced.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.

    Returns:
        The directory.

    Raises:
        ValueError: The ticket holds no trained weights, or `path` is
            something else than a SavedModel.
    """
    plain = sources.plain(source, rewound)
    target = pathlib.Path(path)
    if target.exists() and not (target / "saved_model.pb").exists():
        raise ValueError(
            f"{target} exists and is no SavedModel. Remove it, or export "
            "somewhere else."
        )
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(plain, beside)
        if target.exists():
            shutil.rmtree(target)
        os.replace(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _write(model: keras.Model, path: pathlib.Path) -> None:
    spec = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=f"input_{i}")
        for i, tensor in enumerate(model.inputs)
    ]
    module = tf.Module()
    # A plain module that tracks the variables and nothing of Keras.
    module.weights = [variable.value for variable in model.variables]

    @tf.function(input_signature=spec, autograph=False)
    def serve(*inputs: tf.Tensor) -> tf.Tensor:
        given = inputs[0] if len(inputs) == 1 else list(inputs)
        return model(given, training=False)

    module.serve = serve
    tf.saved_model.save(
        module,
        str(path),
        signatures={"serving_default": serve.get_concrete_function()},
    )

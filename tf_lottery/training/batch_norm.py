"""Re-estimation of the moving statistics of BatchNorm layers."""

import itertools
from collections.abc import Iterable

import keras

from tf_lottery import masking
from tf_lottery.masking.paths import layers_by_path
from tf_lottery.training.input_pipeline import Batch
from tf_lottery.training.state import Arrays, assign, values

_BATCHES = 20


def reestimated(
    model: keras.Model, weights: Arrays, batches: Iterable[Batch]
) -> Arrays:
    """Returns weights with BatchNorm statistics estimated on data.

    On the line between two trained networks, the interpolated statistics are
    not those of the interpolated network (Jordan et al. 2023,
    arXiv:2211.08403). Mean and variance are averaged over batches, without
    shuffling and augmentation.

    Args:
        model: A model of the architecture; its variables are used as scratch
            space and restored.
        weights: Path to value of every variable.
        batches: Training data; the first 20 batches are used.

    Returns:
        New weights that differ in the moving statistics only; `weights`
        itself if the model has no BatchNorm layer.
    """
    layers = layers_by_path(model)
    norms = {
        path: layer
        for path, layer in layers.items()
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    if not norms:
        return weights
    variables = masking.variables_by_path(model)
    before = values(variables)
    momenta = {path: layer.momentum for path, layer in norms.items()}
    try:
        assign(variables, weights)
        masking.derive(model)
        for i, batch in enumerate(itertools.islice(batches, _BATCHES)):
            for layer in norms.values():
                # Makes the moving average the plain mean of all batches.
                layer.momentum = i / (i + 1)
            model(batch.examples.x, training=True)
        after = values(variables)
    finally:
        for path, layer in norms.items():
            layer.momentum = momenta[path]
        assign(variables, before)
        masking.derive(model)
    return {
        path: after[path] if _is_statistic(path, norms) else value
        for path, value in weights.items()
    }


def _is_statistic(path: str, norms: Iterable[str]) -> bool:
    layer, _, name = path.rpartition("/")
    return layer in norms and name.startswith("moving_")

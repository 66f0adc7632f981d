"""A summary of a model with the density of each layer."""

import math

import keras

from tf_lottery.core.density_table import Row, Table
from tf_lottery.masking import coverage, models, paths

# Left out, unless they have weights that none of their layers has.
_HIDDEN = (keras.Model, keras.layers.InputLayer)


def summary(model: keras.Model) -> Table:
    """Returns a table of the layers of a model and their densities.

    It is `model.summary()` with columns for the weights that masks keep. It
    prints as text, also in a notebook.

    Args:
        model: A built Keras 3 model, masked or not. The layers of nested
            models are listed.

    Raises:
        UserTypeError: It is not a Keras 3 model.
        UserError: It is not built, or has no kernel to mask.

    Example:
        >>> dense = keras.layers.Dense(3)
        >>> summary(keras.Sequential([keras.Input((2,)), dense], name="one"))
        Model: "one"
        ┏━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━┳━━━━━━┳━━━━━━━━━━━━━━━━━━━━━┓
        ┃ layer (type)  ┃ output shape ┃ params ┃ kept ┃ density             ┃
        ┡━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━╇━━━━━━╇━━━━━━━━━━━━━━━━━━━━━┩
        │ dense (Dense) │ (None, 3)    │      9 │    6 │ 100.00 % ██████████ │
        └───────────────┴──────────────┴────────┴──────┴─────────────────────┘
        Params: 9; in kernels: 6, of which 6 are kept (100.00 %).
    """
    masks = models.get_masks(model)
    listed = _listed(model)
    params = dict.fromkeys(listed, 0)
    kept, size = dict(params), dict(params)
    weights = {id(weight) for weight in model.weights}
    for path, variable in paths.variables_by_path(model).items():
        if id(variable) not in weights:  # the state of a seed generator
            continue
        owner = max((p for p in listed if _owns(p, path)), key=len)
        params[owner] += math.prod(variable.shape)
        if path in masks:
            kept[owner] += masks.counts[path]
            size[owner] += masks[path].size
    rows = [
        Row(
            (_name(path, layer), _output(layer), f"{params[path]:,}"),
            kept[path] if size[path] else None,
            size[path],
        )
        for path, layer in listed.items()
        if params[path] or not isinstance(layer, _HIDDEN)
    ]
    return Table(
        f'Model: "{model.name}"',
        ("layer (type)", "output shape", "params"),
        tuple(rows),
        (
            f"Params: {sum(params.values()):,}; in kernels: {masks.size:,}, "
            f"of which {masks.kept:,} are kept ({100 * masks.density:.2f} %).",
            *(
                f"Not masked: {row.path}: {row.reason}."
                for row in coverage.coverage_of(model)
                if row.role and row.reason
            ),
        ),
    )


def _listed(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns the model, its layers and those of nested models, by path."""
    listed: dict[str, keras.layers.Layer] = {"": model}
    for path, layer in paths.layers_by_path(model).items():
        if isinstance(listed.get(path.rpartition("/")[0]), keras.Model):
            listed[path] = layer
    return listed


def _owns(path: str, variable: str) -> bool:
    return not path or variable.startswith(f"{path}/")


def _name(path: str, layer: keras.layers.Layer) -> str:
    return f"{path or layer.name} ({type(layer).__name__})"


def _output(layer: keras.layers.Layer) -> str:
    try:
        output = layer.output
    except AttributeError:  # only ever called on values
        return "?"
    return str(keras.tree.map_structure(lambda t: tuple(t.shape), output))

"""Models as text."""

import json

import keras
import numpy as np
import pytest
from masked_models import (
    Composite,
    Subclassed,
    classes,
    holding,
    same,
    stack,
    values,
)
from small_models import BUILDERS, IMAGE

from tf_lottery.masking import architecture_of, mask_model, variables_by_path

L = keras.layers


def siamese():
    inputs = keras.Input(IMAGE)
    tied = L.Conv2D(2, 1)
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(tied(tied(inputs)))))


def with_operations():
    inputs = keras.Input(IMAGE)
    x = L.Flatten()(inputs) * 2
    return keras.Model(inputs, L.Dense(3)(keras.ops.relu(x) + 1))


ARCHITECTURES = {
    **{b.__name__: b for b in (siamese, with_operations)},
    **{name: b for name, b in BUILDERS.items() if name != "shared"},
}

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


@every_architecture
@pytest.mark.parametrize("masked", [False, True])
def test_an_architecture_is_the_same_text_for_every_build(name, masked):
    models = [ARCHITECTURES[name]() for _ in range(2)]
    if masked:
        models = [mask_model(model) for model in models]
    models[0].compile("adam", "mse")
    one, other = (architecture_of(model) for model in models)
    assert one is not None
    assert one == other
    assert json.loads(one)["class_name"] == type(models[0]).__name__


@every_architecture
def test_an_architecture_rebuilds_the_model(name, images):
    model = ARCHITECTURES[name]()
    rebuilt = keras.models.model_from_json(architecture_of(model))
    assert classes(rebuilt) == classes(model)
    assert not same(values(rebuilt), values(model))
    for path, variable in variables_by_path(rebuilt).items():
        variable.assign(values(model)[path])
    assert np.array_equal(rebuilt(images), model(images))
    assert architecture_of(rebuilt) == architecture_of(model)


def test_other_models_have_other_architectures():
    texts = {architecture_of(build()) for build in ARCHITECTURES.values()}
    texts.add(architecture_of(stack(4)))
    texts.add(architecture_of(stack(5)))
    assert len(texts) == len(ARCHITECTURES) + 2


@pytest.mark.parametrize(
    "make",
    [
        Subclassed,
        lambda: holding(Composite()),
        lambda: holding(L.Lambda(lambda x: x * 2)),
        BUILDERS["shared"],
    ],
    ids=["subclassed", "a layer of its own", "lambda", "shared by containers"],
)
def test_what_cannot_be_rebuilt_has_no_architecture(make):
    assert architecture_of(make()) is None

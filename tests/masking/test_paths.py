"""Paths of variables are stable and unique."""

import keras
import numpy as np
import pytest
from masked_models import PATHS, Composite
from small_models import BUILDERS

from tf_lottery.masking import kernels, variables_by_path
from tf_lottery.masking.paths import layers_by_path

L = keras.layers


@pytest.mark.parametrize("name", BUILDERS)
def test_paths_do_not_wander_within_a_process(name):
    for _ in range(3):
        model = BUILDERS[name]()
        assert list(variables_by_path(model)) == PATHS[name].split()


def test_every_variable_stands_under_its_path_once(build):
    model = build()
    found = list(variables_by_path(model).values())
    seeds = [v for v in found if v.name == "seed_generator_state"]
    assert {id(v) for v in found} == {id(v) for v in model.variables} | {
        id(v) for v in seeds
    }
    assert len({id(v) for v in found}) == len(found)


def test_layers_of_layers_come_in_the_order_they_were_given():
    # Pins Layer._flatten_layers, for which Keras has no public name.
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2)(Composite()(inputs)))
    block = layers_by_path(model)["composite"]
    assert layers_by_path(block) == {
        "dense": block.first,
        "dense_1": block.rest[0],
        "mine": block.rest[1],
        "dense_2": block.named["a"],
    }
    assert [p for p in variables_by_path(model) if "bias" not in p] == [
        "composite/dense/kernel",
        "composite/dense_1/kernel",
        "composite/mine/kernel",
        "composite/dense_2/kernel",
        "composite/scale",
        "dense/kernel",
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["stem", "body", "head"],
        ["layer_1", "layer_2", "layer_3"],
        ["model_3", "operation", "object_7"],
        ["conv_1", "fc_2", "fc_10"],
    ],
    ids=" ".join,
)
def test_names_given_by_the_user_stay(names):
    model = keras.Sequential(
        [keras.Input((3,)), *(L.Dense(2, name=name) for name in names)]
    )
    assert list(kernels(model)) == [f"{name}/kernel" for name in names]


def test_an_automatic_name_makes_way_for_the_users():
    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(2), L.Dense(2, name="head"), L.Dense(2)]
    )
    names = ["dense/kernel", "head/kernel", "dense_1/kernel"]
    assert list(kernels(model)) == names


def test_automatic_numbers_leave_out_those_the_user_gave():
    [L.Dense(1) for _ in range(3)]  # Keras, too, must number past dense_1
    model = keras.Sequential(
        [
            keras.Input((3, 3, 1)),
            L.Dense(2),
            L.Dense(2),
            L.Conv2D(2, 2, name="dense_1"),
        ]
    )
    paths = ["dense/kernel", "dense_2/kernel", "dense_1/kernel"]
    assert list(kernels(model)) == paths


def test_layers_of_one_name_are_kept_apart():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = (L.Dense(n, name="twin") for n in (3, 2))

        def call(self, x):
            return self.b(self.a(x))

    model = Twins()
    model(np.ones((1, 4)))
    assert [k.layer for k in kernels(model).values()] == [model.a, model.b]
    for kernel in kernels(model).values():
        assert kernel.layer.kernel is kernel.variable

"""Which variables of a model are kernels to mask."""

import keras
import pytest
import tensorflow as tf
from masked_models import PATHS
from small_models import BUILDERS

from tf_lottery.masking import (
    get_masks,
    kernels,
    mask_model,
    strip_masks,
    variables_by_path,
)

L = keras.layers


ROLES = {
    "sequential": ["conv", "dense", "output"],
    "functional": ["conv", "conv", "output"],
    "nested": ["conv", "dense", "dense", "output"],
    "shared": ["dense", "dense", "output"],
}


@pytest.mark.parametrize("name", BUILDERS)
def test_kernels_are_those_of_dense_and_conv_layers_with_their_roles(name):
    model = BUILDERS[name]()
    found = kernels(model)
    expected = [p for p in PATHS[name].split() if p.endswith("kernel")]
    assert list(found) == expected
    assert [k.role for k in found.values()] == ROLES[name]
    for path, kernel in found.items():
        assert kernel.path == path
        assert kernel.variable is variables_by_path(model)[path]
        assert kernel.variable is kernel.layer.kernel


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (None, None, ["encoder/conv2d", "encoder/dense", "dense", "dense_1"]),
        ("encoder/*", None, ["encoder/conv2d", "encoder/dense"]),
        ("dense*", None, ["dense", "dense_1"]),
        (["dense_1/*", "*conv*"], None, ["encoder/conv2d", "dense_1"]),
        (None, "*conv*", ["encoder/dense", "dense", "dense_1"]),
        (None, ["dense/kernel", "encoder/*"], ["dense_1"]),
        ("encoder/*", "*/dense/*", ["encoder/conv2d"]),
    ],
)
def test_patterns_choose_kernels_in_the_models_order(
    include, exclude, expected
):
    found = kernels(BUILDERS["nested"](), include, exclude)
    assert list(found) == [f"{path}/kernel" for path in expected]
    # Roles are those of the whole model.
    for kernel in found.values():
        assert (kernel.role == "output") == (kernel.path == "dense_1/kernel")


def test_frozen_layers_are_left_out():
    model = BUILDERS["sequential"]()
    model.get_layer(index=0).trainable = False
    assert list(kernels(model)) == ["dense/kernel", "dense_1/kernel"]


@pytest.mark.parametrize("verb", [kernels, mask_model])
@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"include": "dens/kernel"},
            "'dens/kernel' matches no kernel. Did you mean 'dense/kernel'",
        ),
        ({"exclude": ["zzz"]}, "'zzz' matches no kernel. Kernels: conv2d/ker"),
        ({"exclude": "*"}, r"Excluding '\*' leaves no kernel of \['conv2d/"),
        ({"include": []}, "leaves no kernel"),
    ],
)
def test_a_choice_of_nothing_is_refused(verb, choice, message):
    with pytest.raises(ValueError, match=message):
        verb(BUILDERS["sequential"](), **choice)


VERBS = [kernels, mask_model, get_masks, strip_masks]

every_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda v: v.__name__)


@every_verb
def test_an_unbuilt_model_is_refused(verb):
    model = keras.Sequential([L.Dense(3)], name="tower")
    with pytest.raises(ValueError, match="'tower' is not built.*keras.Input"):
        verb(model)


@pytest.mark.parametrize("verb", VERBS[:-1], ids=lambda v: v.__name__)
def test_a_model_without_kernels_is_refused(verb):
    model = keras.Sequential([keras.Input((4,)), L.BatchNormalization()])
    with pytest.raises(ValueError, match="has no kernel to mask: no trainable"):
        verb(model)


@every_verb
@pytest.mark.parametrize("thing", [None, "lenet", L.Dense(3), tf.Module()])
def test_other_things_than_models_are_refused_by_their_full_name(verb, thing):
    name = f"{type(thing).__module__}.{type(thing).__qualname__}"
    with pytest.raises(TypeError, match=f"keras.Model.; got {name}"):
        verb(thing)


# tf_keras 2.21 warns of itself and of NumPy as it is imported.
@pytest.mark.filterwarnings("ignore")
def test_a_tf_keras_model_is_told_from_a_keras_one():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,))])
    for verb in VERBS:
        with pytest.raises(TypeError, match="Keras 3 model.*; got tf_keras"):
            verb(model)

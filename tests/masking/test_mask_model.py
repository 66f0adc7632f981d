"""Masks go into models and out again."""

import keras
import numpy as np
import pytest
from masked_models import Composite, classes, holding, same, stored, values
from small_models import BUILDERS

from tf_lottery.core.masks import Masks
from tf_lottery.masking import (
    get_masks,
    kernels,
    mask_model,
    set_masks,
    strip_masks,
    variables_by_path,
)
from tf_lottery.masking.layers import CATALOGUE, MaskedDense
from tf_lottery.masking.paths import layers_by_path

L = keras.layers


class MaskedComposite(Composite):
    dense = MaskedDense


class MyDense(L.Dense):
    pass


def test_a_masked_model_is_the_same_model(build, images):
    model = build()
    before, plain = values(model), classes(model)
    masked = mask_model(model)

    assert same(values(masked), before)
    assert np.array_equal(masked(images), model(images))
    assert get_masks(masked) == get_masks(model)
    assert get_masks(masked).density == 1
    assert classes(masked) == {
        path: CATALOGUE.get(cls, cls) for path, cls in plain.items()
    }
    assert len(masked.trainable_variables) == len(model.trainable_variables)

    # The argument stays as it is, also when the result is changed.
    for variable in masked.trainable_variables:
        variable.assign(variable + 1)
    assert same(values(model), before)
    assert classes(model) == plain


def test_masks_go_in_and_come_out(build, images, some_masks):
    model = build()
    masked, masks = mask_model(model), some_masks(model)
    set_masks(masked, masks)
    assert get_masks(masked) == masks
    for path, value in values(masked).items():
        mask = masks.get(path, True)
        assert np.array_equal(value, np.where(mask, values(model)[path], 0))
    assert not np.array_equal(masked(images), model(images))
    # Larger masks let weights be trained again; they do not bring them back.
    set_masks(masked, Masks.ones(masks.shapes))
    assert get_masks(masked).density == 1
    assert np.all(values(masked)[list(masks)[0]][~masks[list(masks)[0]]] == 0)


def test_stripped_models_are_plain_and_give_the_same_outputs(
    build, images, some_masks
):
    model = build()
    masked = mask_model(model)
    set_masks(masked, some_masks(model))
    stripped = strip_masks(masked)
    assert classes(stripped) == classes(model)
    assert same(values(stripped), values(masked))
    assert np.array_equal(stripped(images), masked(images))
    assert same(values(strip_masks(model)), values(model))


def test_stripping_zeroes_what_only_the_mask_hid(images, some_masks):
    masked = mask_model(BUILDERS["nested"]())
    masks = some_masks(masked)
    set_masks(masked, masks)
    for path in masks:
        variable = variables_by_path(masked)[path]
        variable.value.assign(np.where(masks[path], variable, 9))
    stripped = strip_masks(masked)
    assert np.array_equal(stripped(images), masked(images))
    for path, mask in masks.items():
        assert np.all(values(stripped)[path][~mask] == 0)
        assert np.all(stored(masked)[path][~mask] == 9)


def test_a_shared_layer_stays_one_layer():
    masked = mask_model(BUILDERS["shared"]())
    assert masked.get_layer("tied") is masked.get_layer("inner").layers[0]
    assert type(masked.get_layer("tied")) is MaskedDense


@pytest.mark.parametrize("functional", [False, True])
def test_a_layer_shared_by_two_containers_stays_one_layer(functional):
    def container(layer):
        inputs = keras.Input((4,))
        if functional:
            return keras.Model(inputs, layer(inputs))
        return keras.Sequential([inputs, layer])

    tied, inputs = L.Dense(4), keras.Input((4,))
    one, other = container(tied), container(tied)
    model = keras.Model(inputs, L.Dense(3)(other(one(inputs))))
    for verb in (mask_model, strip_masks):
        new = verb(model)
        inner = [new.layers[i].layers[-1] for i in (1, 2)]
        assert inner[0] is inner[1]
        assert len(new.trainable_variables) == 4
        assert np.array_equal(new(np.eye(4)), model(np.eye(4)))


@pytest.mark.parametrize(
    ("choice", "masked"),
    [
        ({"include": "encoder/*"}, ["encoder/conv2d", "encoder/dense"]),
        ({"exclude": "encoder/*"}, ["dense", "dense_1"]),
    ],
)
def test_only_chosen_kernels_are_masked(choice, masked):
    model = mask_model(BUILDERS["nested"](), **choice)
    found = {
        path
        for path, layer in layers_by_path(model).items()
        if isinstance(layer, tuple(CATALOGUE.values()))
    }
    assert found == set(masked)
    assert get_masks(model).density == 1
    assert len(get_masks(model)) == 4


def test_the_masks_of_a_partly_masked_model_can_be_set_again():
    model = mask_model(BUILDERS["nested"](), include="encoder/*")
    masks = get_masks(model)
    set_masks(model, masks)
    assert get_masks(model) == masks


def test_masking_a_masked_model_keeps_its_masks(some_masks):
    model = mask_model(BUILDERS["sequential"]())
    masks = some_masks(model)
    set_masks(model, masks)
    assert get_masks(mask_model(model)) == masks


def test_a_frozen_masked_model_still_has_its_masks(some_masks):
    model = mask_model(BUILDERS["sequential"]())
    masks = some_masks(model)
    set_masks(model, masks)
    model.trainable = False
    assert get_masks(model) == masks


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.TimeDistributed(L.Dense(3)),
        Composite,
        lambda: MyDense(3),
        lambda: L.Dense(3),
    ],
    ids=["wrapped", "in a layer", "a subclass", "plain"],
)
def test_every_kernel_is_masked_or_the_model_is_refused(layer):
    model = holding(layer())
    try:
        masked = mask_model(model)
    except ValueError:
        return
    carried = {
        f"{path}/kernel"
        for path, layer in layers_by_path(masked).items()
        if hasattr(layer, "kernel_mask")
    }
    assert carried == set(kernels(model))


def test_no_masked_layer_outlives_stripping():
    model = holding(MaskedComposite())
    try:
        stripped = strip_masks(model)
    except ValueError:
        return
    assert not set(CATALOGUE.values()) & set(classes(stripped).values())


def test_what_old_momentum_moves_under_a_mask_is_never_seen(
    images, labels, some_masks, tmp_path
):
    model = mask_model(BUILDERS["nested"]())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    model.fit(images, labels, verbose=0)
    masks = some_masks(model)
    set_masks(model, masks)
    model.fit(images, labels, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for path, mask in masks.items():
        assert not np.any(kernels(model)[path].layer.kernel[~mask])
        assert not np.any(values(strip_masks(model))[path][~mask])
        assert not np.any(values(loaded)[path][~mask])


def test_a_plain_model_cannot_be_given_masks(some_masks):
    model = BUILDERS["sequential"]()
    before = values(model)
    with pytest.raises(ValueError, match=r"no masked layer. Use `model = mask"):
        set_masks(model, some_masks(model))
    assert same(values(model), before)


def misfits(masks):
    first = next(iter(masks))
    yield Masks({p: m for p, m in masks.items() if p != first}), "miss kernel"
    yield Masks({**masks, "other/kernel": [1]}), "which is no kernel here"
    yield Masks({**masks, first: [[1]]}), "the kernel has shape"


@pytest.mark.parametrize("which", range(3))
def test_masks_that_do_not_fit_change_nothing(some_masks, which):
    model = mask_model(BUILDERS["nested"]())
    before = values(model)
    bad, message = list(misfits(some_masks(model)))[which]
    with pytest.raises(ValueError, match=message):
        set_masks(model, bad)
    assert same(values(model), before)
    assert get_masks(model).density == 1

import json
import pickle
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import BUILDERS, IMAGE

from tf_lottery.core.masks import Masks
from tf_lottery.masking import (
    MaskGuard,
    architecture_of,
    get_masks,
    kernels,
    mask_model,
    masked_optimizer,
    set_masks,
    strip_masks,
    variables_by_path,
)
from tf_lottery.masking.layers import CATALOGUE, MaskedDense
from tf_lottery.masking.paths import layers_by_path

L = keras.layers
LambdaCallback = keras.callbacks.LambdaCallback


def values(model):
    return {p: v.numpy() for p, v in variables_by_path(model).items()}


def stored(model):
    """What TensorFlow holds, past what masked variables give out."""
    return {p: v.value.numpy() for p, v in variables_by_path(model).items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(value, other[path]) for path, value in one.items()
    )


def classes(model):
    return {
        path: type(layer)
        for path, layer in layers_by_path(model).items()
        # Keras gives unnamed inputs of a clone names by counting.
        if not isinstance(layer, L.InputLayer)
    }


class Composite(L.Layer):
    """A layer with layers of its own: attributes, a list and a mapping."""

    dense = L.Dense

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = self.dense(4)
        self.rest = [self.dense(4), self.dense(4, name="mine")]
        self.named = {"a": self.dense(4)}
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def build(self, shape):
        for layer in (self.first, *self.rest, self.named["a"]):
            layer.build((None, 4))

    def call(self, x):
        for layer in (self.first, *self.rest, self.named["a"]):
            x = layer(x)
        return x * self.scale


class MaskedComposite(Composite):
    dense = MaskedDense


class Subclassed(keras.Model):
    """A model that is no graph of layers."""

    def __init__(self):
        super().__init__()
        self.hidden = L.Dense(4, activation="tanh")
        self.top = L.Dense(3)
        self.build((None, 5))

    def build(self, shape):
        self.hidden.build((None, 5))
        self.top.build((None, 4))
        self.built = True

    def call(self, x):
        return self.top(self.hidden(x))


class MyDense(L.Dense):
    pass


# Paths.

PATHS = {
    "sequential": "conv2d/kernel conv2d/bias batch_normalization/gamma "
    "batch_normalization/beta batch_normalization/moving_mean "
    "batch_normalization/moving_variance dense/kernel dense/bias "
    "dense_1/kernel dense_1/bias",
    "functional": "conv2d/kernel conv2d/bias shortcut/kernel shortcut/bias "
    "dropout/seed_generator_state head/kernel head/bias",
    "nested": "encoder/conv2d/kernel encoder/conv2d/bias encoder/dense/kernel "
    "encoder/dense/bias dense/kernel dense/bias dense_1/kernel dense_1/bias",
    "shared": "dense/kernel dense/bias tied/kernel tied/bias dense_1/kernel "
    "dense_1/bias",
}


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


# Kernels.


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


# Masks into models and out again.


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


def holding(layer):
    inputs = keras.Input((2, 4))
    return keras.Model(inputs, L.Dense(2, name="head")(layer(inputs)))


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


# The masked optimizer.

K = keras.optimizers
OPTIMIZERS = {
    "sgd": lambda: K.SGD(0.1),
    "momentum_nesterov": lambda: K.SGD(0.1, momentum=0.9, nesterov=True),
    "sgd_weight_decay": lambda: K.SGD(0.1, weight_decay=0.1),
    "sgd_accumulating": lambda: K.SGD(
        0.1, momentum=0.9, gradient_accumulation_steps=2
    ),
    "sgd_ema": lambda: K.SGD(0.1, momentum=0.9, use_ema=True),
    "adam": lambda: K.Adam(0.1),
    "adam_amsgrad": lambda: K.Adam(0.1, amsgrad=True),
    "adam_clipvalue": lambda: K.Adam(0.1, clipvalue=0.01),
    "adam_clipnorm": lambda: K.Adam(0.1, clipnorm=0.01),
    "adam_global_clipnorm": lambda: K.Adam(0.1, global_clipnorm=0.01),
    "adam_accumulating": lambda: K.Adam(0.1, gradient_accumulation_steps=2),
    "adam_loss_scaled": lambda: K.LossScaleOptimizer(K.Adam(0.1)),
    "adamw": lambda: K.AdamW(0.1, weight_decay=0.1),
    "adamw_ema_overwriting": lambda: K.AdamW(
        0.1, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=2
    ),
    "adadelta": lambda: K.Adadelta(1.0),
    "adafactor": lambda: K.Adafactor(0.1),
    "adagrad": lambda: K.Adagrad(0.1),
    "adamax": lambda: K.Adamax(0.1),
    "ftrl": lambda: K.Ftrl(0.1, l1_regularization_strength=1e-3),
    "lamb": lambda: K.Lamb(0.1),
    "lion": lambda: K.Lion(0.1),
    "muon": lambda: K.Muon(0.1),
    "muon_ema": lambda: K.Muon(0.1, use_ema=True),
    "nadam": lambda: K.Nadam(0.1),
    "rmsprop": lambda: K.RMSprop(0.1, momentum=0.9, centered=True),
}
if hasattr(K, "ScheduleFreeAdamW"):  # Keras 3.14 or later
    OPTIMIZERS["schedule_free"] = lambda: K.ScheduleFreeAdamW(
        0.1, warmup_steps=0
    )
if hasattr(K, "MultiOptimizer"):  # Keras 3.15 or later
    OPTIMIZERS["multi"] = lambda: K.MultiOptimizer(
        K.OptimizerMap(K.Adam(0.1), {".*bias": K.SGD(0.1)})
    )
SLOTS_OPT_OUT = {
    "adafactor": "its slots of a kernel are means over rows and columns",
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)

X = np.random.default_rng(3).normal(size=(8, 5)).astype("float32")
Y = np.random.default_rng(4).normal(size=(8, 3)).astype("float32")


def test_every_optimizer_of_keras_has_a_row():
    shipped = {
        cls
        for cls in vars(K).values()
        if isinstance(cls, type) and issubclass(cls, K.Optimizer)
    } - {K.Optimizer}
    assert {type(make()) for make in OPTIMIZERS.values()} == shipped


def pruned_training(name):
    """A subclassed net, its masks, and an optimizer masked and built."""
    keras.utils.set_random_seed(2)
    model = Subclassed()
    rng = np.random.default_rng(6)
    masks = Masks(
        {
            p: rng.random(k.variable.shape) < 0.5
            for p, k in kernels(model).items()
        }
    )
    optimizer = masked_optimizer(OPTIMIZERS[name](), masks, model)
    optimizer.build(model.trainable_variables)
    return model, masks, optimizer


def tape_step(model, optimizer, x=X):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x) - Y) ** 2)
        if isinstance(optimizer, K.LossScaleOptimizer):
            loss = optimizer.scale_loss(loss)
    variables = model.trainable_variables
    optimizer.apply_gradients(
        zip(tape.gradient(loss, variables), variables, strict=True)
    )


def revived(model, masks):
    """How many stored weights are pruned and not exactly zero."""
    return sum(
        np.count_nonzero(stored(model)[path][~mask])
        for path, mask in masks.items()
    )


def pruned_slots(optimizer, masks):
    """What the slots hold for pruned weights, by slot."""
    kernels_of = {mask.shape: mask for mask in masks.values()}
    assert len(kernels_of) == len(masks)
    return {
        slot.path: slot.numpy()[~kernels_of[tuple(slot.shape)]]
        for slot in optimizer.variables
        if tuple(slot.shape) in kernels_of
    }


def assert_only_survivors_trained(model, masks, start):
    assert revived(model, masks) == 0
    for path, mask in masks.items():
        assert np.all(values(model)[path][mask] != start[path][mask]), path


def assert_slots_untouched(name, optimizer, masks, initial):
    if name not in SLOTS_OPT_OUT:
        # Zero, or the initial accumulator of Adagrad and Ftrl.
        assert same(pruned_slots(optimizer, masks), initial)


@every_optimizer
def test_no_step_of_a_tape_loop_moves_a_pruned_weight(name):
    model, masks, optimizer = pruned_training(name)
    initial = pruned_slots(optimizer, masks)
    start = values(model)
    assert revived(model, masks) == 0
    for _ in range(3):  # odd: Lion cannot step back to its start
        tape_step(model, optimizer)
        assert revived(model, masks) == 0
    assert_only_survivors_trained(model, masks, start)
    assert_slots_untouched(name, optimizer, masks, initial)


def masked_layers(name):
    """A subclassed net with masked layers, its masks, a plain optimizer."""
    model, masks, _ = pruned_training("sgd")
    masked = mask_model(model)
    set_masks(masked, masks)
    optimizer = OPTIMIZERS[name]()
    optimizer.build(masked.trainable_variables)
    return masked, masks, optimizer


@every_optimizer
def test_no_step_of_a_plain_optimizer_moves_a_pruned_weight_of_a_layer(name):
    model, masks, optimizer = masked_layers(name)
    initial, start = pruned_slots(optimizer, masks), values(model)
    for _ in range(3):
        tape_step(model, optimizer)
        assert revived(model, masks) == 0
    assert_only_survivors_trained(model, masks, start)
    # Muon's momentum is of gradients, its average of what it mixed up.
    if name != "muon_ema":
        assert_slots_untouched(name, optimizer, masks, initial)


@pytest.mark.parametrize("name", ["muon", "adamw_ema_overwriting", "ftrl"])
def test_nothing_in_a_plain_fit_sees_a_pruned_weight_of_a_layer_move(name):
    model, masks, optimizer = masked_layers(name)
    start, watch = values(model), Watch(masks)
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(X, Y, 3, 3, 0, callbacks=[watch], validation_data=(X, Y))
    assert set(watch.seen) == {0}
    assert_only_survivors_trained(model, masks, start)


@pytest.mark.parametrize("eager", [False, True])
def test_muon_with_averages_leaves_none_of_its_mixture(eager):
    # At the end of `fit` Keras stores averages past the variable.
    model, masks, optimizer = masked_layers("muon_ema")
    model.compile(optimizer, "mse", jit_compile=False, run_eagerly=eager)
    model.fit(X, Y, 3, 2, 0)
    assert revived(model, masks) == 0


def test_new_masks_clean_the_slots_of_the_compiled_optimizer():
    model, masks, _ = masked_layers("sgd")
    set_masks(model, Masks.ones(masks.shapes))
    model.compile(K.Adam(0.1, use_ema=True), "mse", jit_compile=False)
    model.fit(X, Y, verbose=0)
    slots = pruned_slots(model.optimizer, masks).values()
    assert all(np.any(slot) for slot in slots)
    set_masks(model, masks)
    slots = pruned_slots(model.optimizer, masks).values()
    assert not any(np.any(slot) for slot in slots)
    model.fit(X, Y, verbose=0)
    assert revived(model, masks) == 0


class Watch(keras.callbacks.Callback):
    """Counts revived weights wherever a callback may look."""

    def __init__(self, masks):
        super().__init__()
        self.masks, self.seen = masks, []

    def look(self, *_, **__):
        self.seen.append(revived(self.model, self.masks))

    on_train_batch_end = on_epoch_end = on_train_end = look
    on_test_batch_begin = on_test_end = look


@every_optimizer
def test_nothing_in_fit_sees_a_pruned_weight_move(name):
    model, masks, optimizer = pruned_training(name)
    initial = pruned_slots(optimizer, masks)
    start, watch = values(model), Watch(masks)
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(X, Y, 3, 3, 0, callbacks=[watch], validation_data=(X, Y))
    assert len(watch.seen) > 10
    assert set(watch.seen) == {0}
    assert_only_survivors_trained(model, masks, start)
    assert_slots_untouched(name, optimizer, masks, initial)


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_fit_compiled_by_xla_moves_no_pruned_weight(name):
    model, masks, optimizer = pruned_training(name)
    start = values(model)
    model.compile(optimizer, "mse", jit_compile=True)
    model.fit(X, Y, 4, 2, 0)
    assert_only_survivors_trained(model, masks, start)


def test_mixed_float16_fit_moves_no_pruned_weight():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, masks, optimizer = pruned_training("adam")
    finally:
        keras.config.set_dtype_policy("float32")
    start = values(model)
    model.compile(optimizer, "mse", jit_compile=False)
    assert isinstance(model.optimizer, K.LossScaleOptimizer)
    model.fit(X, Y, 4, 2, 0)
    assert_only_survivors_trained(model, masks, start)


@pytest.mark.parametrize(
    "name", ["sgd", "momentum_nesterov", "adam", "adam_global_clipnorm"]
)
def test_masked_layers_and_masked_optimizer_train_the_same_weights(
    name, images, labels, some_masks
):
    model = BUILDERS["sequential"]()
    masks = some_masks(model)
    layered = mask_model(model)
    set_masks(layered, masks)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    start = values(layered)
    for one, optimizer in (
        (layered, OPTIMIZERS[name]()),
        (model, masked_optimizer(OPTIMIZERS[name](), masks, model)),
    ):
        one.compile(optimizer, loss, jit_compile=False)
        one.fit(images, labels, 4, 2, 0, shuffle=False)
    assert same(values(model), values(layered))
    assert not same(values(model), start)


@every_optimizer
def test_masks_of_ones_train_as_the_plain_optimizer(name):
    trained = []
    for masked in (False, True):
        keras.utils.set_random_seed(2)
        model, optimizer = Subclassed(), OPTIMIZERS[name]()
        if masked:
            masked_optimizer(optimizer, get_masks(model), model)
        for _ in range(2):
            tape_step(model, optimizer)
        trained.append(values(model))
    assert same(*trained)


# Closed forms (K13): the inner product of ones with the weights 0 ... 9.


def inner_product(masked):
    inputs = keras.Input((10,))
    model = keras.Model(inputs, L.Dense(1, use_bias=False)(inputs))
    model.layers[-1].kernel.assign(np.arange(10.0)[:, None])
    even = Masks({"dense/kernel": np.arange(10)[:, None] % 2 == 0})
    if masked == "layers":
        model = mask_model(model)
        set_masks(model, even)
        return model, lambda optimizer: optimizer
    return model, lambda optimizer: masked_optimizer(optimizer, even, model)


@pytest.mark.parametrize("masked", ["layers", "optimizer"])
@pytest.mark.parametrize(
    ("optimizer", "output"),
    [
        # d/dw (20 - 40)^2 = -40 each; 5 survivors, 5 * 0.01 * 40 = 2.
        (lambda: K.SGD(0.01), 22),
        # Clipped to norm 1 over the 5 survivors: 5 * 0.1 / sqrt(5).
        (lambda: K.SGD(0.1, global_clipnorm=1.0), 20 + 0.5 / 5**0.5),
        (lambda: K.SGD(0.1, clipvalue=1.0), 20 + 5 * 0.1),
        # Adam's and Lion's first step is the learning rate.
        (lambda: K.Adam(0.1), 20 + 5 * 0.1),
        (lambda: K.Lion(0.1), 20 + 5 * 0.1),
        # Decay first, 20 * (1 - 0.01 * 0.5), gradient as before.
        (lambda: K.SGD(0.01, weight_decay=0.5), 19.9 + 2),
    ],
    ids=["sgd", "clipnorm", "clipvalue", "adam", "lion", "weight_decay"],
)
def test_one_step_by_hand(masked, optimizer, output):
    model, mask = inner_product(masked)
    x = np.ones((1, 10), "float32")
    assert float(model(x)[0, 0]) == (20 if masked == "layers" else 45)
    mask(optimizer := optimizer())
    optimizer.build(model.trainable_variables)
    assert float(model(x)[0, 0]) == 20
    with tf.GradientTape() as tape:
        loss = (model(x)[0, 0] - 40) ** 2
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    assert float(model(x)[0, 0]) == pytest.approx(output, rel=1e-5)


@pytest.mark.parametrize("masked", ["layers", "optimizer"])
def test_negative_weights_train_too(masked):
    model, mask = inner_product(masked)
    kernel = model.trainable_variables[0]
    kernel.assign(np.where(np.arange(10)[:, None] % 2 == 0, -1, kernel))
    model.compile(mask(K.SGD(0.001)), "mse", jit_compile=False)
    start = kernel.numpy()
    model.fit(np.ones((1, 10)), np.array([[40]]), epochs=2, verbose=0)
    trained = kernel.numpy()
    assert np.all(trained[::2] > start[::2])
    assert np.all(trained[::2] < 0)
    assert np.all(trained[1::2] == 0)


def test_clipping_by_global_norm_sees_no_pruned_gradient():
    # A net with two inputs pruned is the net without them.
    keep = np.array([0, 2, 4])
    mask = np.isin(np.arange(5), keep)[:, None] & np.ones((5, 3), bool)
    x = X * np.where(np.isin(np.arange(5), keep), 1, 1e3).astype("float32")
    wide, thin = (
        keras.Sequential([keras.Input((n,)), L.Dense(3)]) for n in (5, 3)
    )
    start = wide.layers[0].kernel.numpy()[keep]
    thin.layers[0].kernel.assign(start)
    masked, plain = (K.SGD(0.5, global_clipnorm=0.1) for _ in range(2))
    masked_optimizer(masked, Masks({"dense/kernel": mask}), wide)
    masked.build(wide.trainable_variables)
    for _ in range(3):
        tape_step(wide, masked, x)
        tape_step(thin, plain, x[:, keep])
    trained = wide.layers[0].kernel.numpy()[keep]
    assert np.allclose(trained, thin.layers[0].kernel, rtol=1e-5, atol=1e-7)
    assert np.abs(trained - start).max() > 1e-2


def test_the_first_gradient_of_a_tape_loop_is_that_of_the_masked_net():
    model, mask = inner_product("optimizer")
    optimizer, x = mask(K.SGD(0.01)), np.ones((1, 10), "float32")
    for output in (20, 22):  # as in the closed form of SGD above
        with tf.GradientTape() as tape:
            y = model(x)[0, 0]
            loss = (y - 40) ** 2
        assert float(y) == pytest.approx(output)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)


# What a pruned gradient may be.


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["momentum_nesterov", "adam_global_clipnorm"])
def test_a_pruned_gradient_that_is_no_number_does_no_harm(name, poison):
    trained = []
    for value in (1.0, poison):
        model, masks, optimizer = pruned_training(name)
        variables = model.trainable_variables
        paths = {id(v): p for p, v in variables_by_path(model).items()}
        optimizer.apply(
            [
                tf.constant(
                    np.where(masks.get(paths[id(v)], True), 1.0, value)
                    * np.ones(v.shape),
                    "float32",
                )
                for v in variables
            ],
            variables,
        )
        trained.append(values(model))
        assert revived(model, masks) == 0
    assert same(*trained)
    assert all(np.isfinite(value).all() for value in trained[0].values())


def test_sparse_gradients_are_masked_by_row():
    layer = L.Embedding(4, 2, name="embedding")
    layer.build((None,))
    mask = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], bool)
    optimizer = masked_optimizer(
        K.SGD(1.0, momentum=0.9), Masks({"embedding/embeddings": mask})
    )
    optimizer.build([layer.embeddings])
    start = layer.embeddings.numpy()
    assert np.all(start[~mask] == 0)
    gradient = tf.IndexedSlices(
        tf.constant([[1.0, np.nan], [np.nan, 1.0]]), [0, 2], (4, 2)
    )
    for _ in range(2):
        optimizer.apply([gradient], [layer.embeddings])
    moved = layer.embeddings.numpy() != start
    assert moved.tolist() == [
        [True, False],
        [False] * 2,
        [False, True],
        [False] * 2,
    ]
    assert np.isfinite(layer.embeddings.numpy()).all()
    (momentum,) = (v for v in optimizer.variables if v.shape == (4, 2))
    assert np.all(momentum.numpy()[~mask] == 0)
    assert np.isfinite(momentum.numpy()).all()


def test_variables_without_gradient_or_mask_are_left_to_the_optimizer():
    model, masks, optimizer = pruned_training("sgd")
    start = values(model)
    variables = model.trainable_variables
    only_bias = [None, tf.ones(4), None, None]
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply(only_bias, variables)
    changed = [p for p, v in values(model).items() if not (v == start[p]).all()]
    assert changed == ["dense/bias"]


# Which variable a path means.


def stack(units=4):
    return keras.Sequential([keras.Input((4,)), L.Dense(units), L.Dense(units)])


def in_and_out():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4)], name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, L.Dense(4)(inner(inputs)))


@pytest.mark.parametrize("given", ["model", "no model"])
@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("make", [stack, in_and_out])
def test_every_mask_finds_its_own_variable(make, before, given):
    # Whatever layers the process has numbered before.
    keras.utils.clear_session(free_memory=False)
    for _ in range(before):
        L.Dense(4)
    model = make()
    rng = np.random.default_rng(0)
    masks = Masks({p: rng.random((4, 4)) < 0.5 for p in kernels(model)})
    optimizer = masked_optimizer(
        K.SGD(0.1), masks, model if given == "model" else None
    )
    # Without a model it may refuse, but must not guess.
    try:
        optimizer.build(model.trainable_variables)
    except ValueError:
        assert given == "no model"
        return
    for path, mask in masks.items():
        assert np.array_equal(values(model)[path] != 0, mask), path


@pytest.mark.parametrize(
    ("path", "shape", "message"),
    [
        ("conv/kernel", (4, 4), r"the mask of 'conv/kernel', shape \(4, 4\)"),
        ("dense/kernel", (4, 5), "Give the model too: masked_optimizer"),
        ("kernel", (4, 4), r"Give the model too"),
    ],
)
def test_a_path_that_means_no_variable_or_several_is_refused(
    path, shape, message
):
    keras.utils.clear_session(free_memory=False)
    model = stack()
    optimizer = masked_optimizer(K.SGD(), Masks.ones({path: shape}))
    with pytest.raises(ValueError, match=message):
        optimizer.build(model.trainable_variables)


@pytest.mark.parametrize(
    ("path", "shape", "message"),
    [
        ("dense_3/kernel", (4, 4), "'dense_3/kernel', which is no kernel here"),
        ("dense/kernel", (4, 5), r"has shape \(4, 5\); the kernel has shape"),
    ],
)
def test_masks_that_do_not_fit_the_model_are_refused_at_once(
    path, shape, message
):
    with pytest.raises(ValueError, match=message):
        masked_optimizer(K.SGD(), Masks.ones({path: shape}), stack())


@pytest.mark.parametrize("thing", ["adam", None, K.Adam])
def test_other_things_than_optimizers_are_refused(thing):
    with pytest.raises(TypeError, match="Keras 3 optimizer is needed; got "):
        masked_optimizer(thing, Masks({"k": [1]}))


# Masks that change, optimizers that have trained already.


def test_the_same_optimizer_is_returned_and_masked_once():
    masks = Masks.ones({"dense/kernel": (4, 4)})
    optimizer = K.Adam()
    assert masked_optimizer(optimizer, masks) is optimizer
    cls = type(optimizer)
    assert type(masked_optimizer(optimizer, masks)) is cls
    assert isinstance(optimizer, K.Adam)


@pytest.mark.parametrize("jit", [False, True])
def test_new_masks_reach_a_fit_that_is_compiled_already(jit):
    model, masks, optimizer = pruned_training("sgd")
    model.compile(optimizer, "mse", jit_compile=jit)
    model.fit(X, Y, verbose=0)
    fewer = masks & Masks(
        {
            p: np.arange(m.size).reshape(m.shape) % 3 > 0
            for p, m in masks.items()
        }
    )
    assert fewer.kept < masks.kept
    masked_optimizer(optimizer, fewer, model)
    assert revived(model, fewer) == 0
    model.fit(X, Y, verbose=0)
    assert revived(model, fewer) == 0


@pytest.mark.parametrize("name", ["adam", "sgd_ema"])
def test_an_optimizer_that_has_trained_forgets_pruned_weights(name):
    keras.utils.set_random_seed(2)
    model, optimizer = Subclassed(), OPTIMIZERS[name]()
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(X, Y, verbose=0)
    _, masks, _ = pruned_training("sgd")
    masked_optimizer(optimizer, masks, model)
    assert revived(model, masks) == 0
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(X, Y, verbose=0)
    assert revived(model, masks) == 0
    for slot in pruned_slots(optimizer, masks).values():
        assert np.all(slot == 0)


# Saving.


def test_a_masked_optimizer_is_saved_and_loaded_as_the_plain_one(
    tmp_path, images, labels, some_masks
):
    model = BUILDERS["nested"]()
    optimizer = masked_optimizer(K.Adam(0.01), some_masks(model), model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    model.fit(images, labels, verbose=0)
    assert K.serialize(optimizer)["class_name"] == "Adam"
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as file:
        assert b"tf_lottery" not in file.read("config.json")

    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded.optimizer) is K.Adam
    assert same(values(loaded), values(model))
    assert len(optimizer.variables) == len(loaded.optimizer.variables)
    for one, other in zip(
        optimizer.variables, loaded.optimizer.variables, strict=True
    ):
        assert np.array_equal(one, other)
    assert int(loaded.optimizer.iterations) == 1


def test_a_masked_optimizer_is_pickled_as_the_plain_one():
    # Keras pickles no optimizer that is built.
    optimizer = masked_optimizer(K.Adam(0.3), Masks({"only/kernel": [1]}))
    again = pickle.loads(pickle.dumps(optimizer))
    assert type(again) is K.Adam
    assert again.get_config() == optimizer.get_config()


def test_a_model_that_fit_builds_is_masked_by_its_first_step():
    model = keras.Sequential([L.Dense(4, name="only")], name="late")
    mask = np.arange(20).reshape(5, 4) % 2 == 0
    optimizer = masked_optimizer(K.SGD(0.1), Masks({"only/kernel": mask}))
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(X, np.ones((8, 4)), verbose=0)
    kernel = model.layers[0].kernel.numpy()
    assert np.all(kernel[~mask] == 0)
    assert np.all(kernel[mask] != 0)


# Architecture.


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


# Who breaks it is named.


class Reviver(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            kernel = self.model.trainable_variables[0]
            # Past the variable: assigning to a masked one revives nothing.
            kernel.value.assign(np.ones(kernel.shape))


@pytest.mark.parametrize("layered", [True, False])
@pytest.mark.parametrize("watched", [True, False])
def test_a_callback_that_revives_weights_is_caught(layered, watched):
    model, masks, optimizer = (masked_layers if layered else pruned_training)(
        "sgd"
    )
    callbacks = [LambdaCallback(), Reviver()] if watched else []
    guard = MaskGuard(callbacks, None if layered else masks)
    model.compile(optimizer, "mse", jit_compile=False)
    outside = [] if watched else [Reviver()]
    blamed = (
        r"test_masking.Reviver.on_train_batch_end set them"
        if watched
        else "a callback outside the guard, before on_train_"
    )
    count = int((~masks["dense/kernel"]).sum())
    message = f"{count} pruned weights of 'dense/kernel' are not zero: .*"
    with pytest.raises(RuntimeError, match=message + blamed):
        model.fit(X, Y, 2, verbose=0, callbacks=[*outside, guard])


def test_a_guard_lets_honest_callbacks_work():
    model, masks, optimizer = masked_layers("adam")
    seen = []
    watched = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs))
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(X, Y, verbose=0, callbacks=[MaskGuard([watched])])
    assert len(seen) == 1
    assert seen[0]["loss"] > 0
    assert watched.model is model

"""A masked optimizer keeps pruned weights at zero."""

import pickle
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from masked_models import (
    OPTIMIZERS,
    K,
    Subclassed,
    X,
    Y,
    masked_layers,
    pruned_training,
    same,
    stack,
    stored,
    values,
)
from small_models import BUILDERS

from tf_lottery.core.masks import Masks
from tf_lottery.masking import (
    get_masks,
    kernels,
    mask_model,
    masked_optimizer,
    set_masks,
    variables_by_path,
)

L = keras.layers


SLOTS_OPT_OUT = {
    "adafactor": "its slots of a kernel are means over rows and columns",
}

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def test_every_optimizer_of_keras_has_a_row():
    shipped = {
        cls
        for cls in vars(K).values()
        if isinstance(cls, type) and issubclass(cls, K.Optimizer)
    } - {K.Optimizer}
    assert {type(make()) for make in OPTIMIZERS.values()} == shipped


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


@pytest.mark.slow
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

"""A masked layer is the plain layer, and masks only shrink."""

import copy
import pickle
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.core.masks import Masks
from tf_lottery.masking import get_masks, mask_model, set_masks
from tf_lottery.masking.conversion import mask_weight
from tf_lottery.masking.layers import CATALOGUE, MaskedDense
from tf_lottery.masking.masked_variable import MaskedVariable

L = keras.layers
X = np.random.default_rng(3).normal(size=(8, 5)).astype("float32")
Y = np.random.default_rng(4).normal(size=(8, 3)).astype("float32")


def plain_model():
    layers = [L.Dense(4, activation="tanh"), L.BatchNormalization(), L.Dense(3)]
    return keras.Sequential([keras.Input((5,)), *layers])


def masks_of(model, seed=6, density=0.5):
    rng = np.random.default_rng(seed)
    shapes = get_masks(model).shapes
    return Masks({p: rng.random(s) < density for p, s in shapes.items()})


def masked_model(seed=6, density=0.5):
    model = mask_model(plain_model())
    set_masks(model, masks_of(model, seed, density))
    return model


def kernels(model):
    return [w for w in model.weights if isinstance(w, MaskedVariable)]


def assert_obeys(model, masks):
    """Whoever reads a pruned weight reads zero; so does TensorFlow."""
    assert get_masks(model) == masks
    assert masks.density < 1
    got = [
        value
        for value, weight in zip(
            model.get_weights(), model.weights, strict=True
        )
        if isinstance(weight, MaskedVariable)
    ]
    for kernel, mask, value in zip(
        kernels(model), masks.values(), got, strict=True
    ):
        for seen in (
            value,
            kernel.numpy(),
            np.array(kernel),
            tf.convert_to_tensor(kernel).numpy(),
            kernel.value.numpy(),
        ):
            assert np.all(seen[~mask] == 0)
        assert np.any(kernel.numpy()[mask])


# The plain layer in all that a caller can see.


def built_dense(**arguments):
    layer = MaskedDense(3, **arguments)
    layer.build((None, 5))
    return layer


@pytest.mark.parametrize("constraint", [None, "non_neg"])
@pytest.mark.parametrize("regularizer", [None, "l2"])
def test_the_kernel_is_the_stored_variable(constraint, regularizer):
    arguments = {
        "name": "mine",
        "kernel_constraint": constraint,
        "kernel_regularizer": regularizer,
    }
    masked, plain = built_dense(**arguments), L.Dense(3, **arguments)
    plain.build((None, 5))
    assert masked.kernel is masked.weights[0]
    assert isinstance(masked.kernel, keras.Variable)
    for name in ("constraint", "regularizer", "initializer"):
        own = getattr(masked.kernel, name, None)
        assert type(own) is type(getattr(plain.kernel, name, None))
    assert masked.kernel.constraint is masked.kernel_constraint
    for name in ("name", "path", "dtype", "shape", "trainable", "ndim"):
        assert getattr(masked.kernel, name) == getattr(plain.kernel, name)
    masked.kernel.assign(np.full((5, 3), 2.0))
    assert np.all(masked.kernel.numpy() == 2)
    with pytest.raises(ValueError, match="must match"):
        masked.kernel.assign(np.ones((1, 3)))


def test_an_optimizer_finds_a_constraint_and_others_the_layers_own():
    layer = built_dense()
    seen = []

    class Watching(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            seen.append(layer.kernel.constraint)
            super().update_step(gradient, variable, learning_rate)

    optimizer = Watching(0.1)
    layer.kernel_mask.assign(np.arange(15).reshape(5, 3) % 2 == 0)
    layer.kernel.value.assign(np.ones((5, 3)))  # as if momentum had done it
    optimizer.apply([tf.zeros((5, 3))], [layer.kernel])
    assert seen[0] is not None
    assert layer.kernel.constraint is None
    assert np.array_equal(layer.kernel.value, layer.kernel_mask)


class Probing(MaskedDense):
    """Shows what its `kernel` is while its code runs."""

    def call(self, inputs):
        self.seen = self.kernel
        if self.fails:
            raise RuntimeError("no")
        if self.in_another_thread:
            thread = threading.Thread(target=self.look)
            thread.start()
            thread.join()
        return super().call(inputs)

    def look(self):
        self.seen_there = self.kernel


def test_only_the_thread_that_computes_sees_the_masked_tensor():
    layer = Probing(3)
    layer.fails, layer.in_another_thread = False, True
    layer(X)
    assert tf.is_tensor(layer.seen)
    assert not isinstance(layer.seen, keras.Variable)
    assert layer.seen_there is layer.kernel
    assert layer.kernel is layer.weights[0]


def test_a_call_that_fails_leaves_the_variable():
    layer = Probing(3)
    layer.build(X.shape)
    layer.fails = True
    with pytest.raises(RuntimeError, match="no"):
        layer(X)
    assert not isinstance(layer.seen, keras.Variable)
    assert layer.kernel is layer.weights[0]


def test_an_lstm_computes_with_the_masked_kernels_of_its_cell():
    # On a GPU it gives them to a kernel for the whole sequence.
    class ProbingLSTM(CATALOGUE[L.LSTM]):
        def call(self, sequences, initial_state=None, mask=None):
            self.seen = self.cell.kernel
            return super().call(sequences, initial_state, mask)

    layer = ProbingLSTM(2)
    layer(np.ones((1, 2, 3)))
    assert not isinstance(layer.seen, keras.Variable)
    assert layer.cell.kernel is layer.cell.weights[0]


def test_a_subclass_of_a_masked_layer_has_masks_once():
    class Scaled(MaskedDense):
        def build(self, shape):
            super().build(shape)
            self.scale = self.add_weight(name="scale", initializer="ones")

        def call(self, inputs):
            return keras.ops.matmul(inputs, self.kernel) * self.scale

    layer = Scaled(3)
    layer.build(X.shape)
    layer.kernel_mask.assign(np.zeros((5, 3)))
    layer.kernel.value.assign(np.ones((5, 3)))
    assert not np.any(layer(X))
    assert [w.name for w in layer.weights] == ["kernel", "bias", "scale"]


def test_a_subclass_without_code_of_its_own_adds_nothing():
    class Named(CATALOGUE[L.SimpleRNNCell]):
        pass

    assert Named.call is CATALOGUE[L.SimpleRNNCell].call
    cell = Named(2)
    cell.build((None, 3))
    assert cell.kernel is cell.weights[0]
    assert cell.kernel_mask is cell.kernel.mask


def test_two_layers_that_hold_one_variable_share_its_mask():
    one, other = L.Dense(5, use_bias=False), L.Dense(5, use_bias=False)
    one.build((None, 5))
    other.build((None, 5))
    vars(other)["_kernel"] = one._kernel  # built layers take no more
    for layer in (one, other):
        mask_weight(layer, "kernel")
    assert one.kernel_mask is other.kernel_mask
    one.kernel_mask.assign(np.zeros((5, 5)))
    assert not np.any(one.kernel.value)
    assert not np.any(other(X))


def gradient(model, compiled=False):
    def of_loss():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(X) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    return (tf.function(of_loss) if compiled else of_loss)()


def test_a_rematerialised_call_masks_gradients_too():
    with keras.RematScope("full"):
        model = keras.Sequential(
            [keras.Input((5,)), MaskedDense(4), MaskedDense(3)]
        )
    masks = masks_of(model)
    set_masks(model, masks)
    found = [g.numpy() for g in gradient(model)[::2]]
    for value, mask in zip(found, masks.values(), strict=True):
        assert np.all(value[~mask] == 0)
        assert np.all(value[mask] != 0)


def test_a_layer_that_reads_anothers_kernel_gets_masked_gradients():
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder = MaskedDense(4)

        def call(self, x):
            code = self.encoder(x)
            kernel = keras.ops.transpose(self.encoder.kernel)
            return keras.ops.matmul(code, kernel)

    model = Tied()
    model(X)
    mask = np.arange(20).reshape(5, 4) % 3 == 0
    model.encoder.kernel_mask.assign(mask)
    found = gradient(model, compiled=True)[0].numpy()
    assert np.all(found[~mask] == 0)
    assert np.all(found[mask] != 0)


def test_whoever_reads_a_weight_that_tensorflow_has_set_reads_zeros():
    layer = built_dense(use_bias=False)
    mask = np.arange(15).reshape(5, 3) % 2 == 0
    layer.kernel_mask.assign(mask)
    layer.kernel.value.assign(np.ones((5, 3)))
    for seen in (
        layer.get_weights()[0],
        layer.kernel.numpy(),
        np.array(layer.kernel),
        tf.convert_to_tensor(layer.kernel),
        keras.ops.convert_to_numpy(layer.kernel),
    ):
        assert np.array_equal(seen, mask)


def test_a_stateless_call_takes_the_plain_models_values():
    model, masked = plain_model(), masked_model()
    values = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    y, _ = masked.stateless_call(values, others, X)
    masked.set_weights(model.get_weights())
    assert np.array_equal(y, masked(X))
    assert not np.array_equal(y, model(X))


@keras.saving.register_keras_serializable("tests")
class Mine(L.Dense):
    """A layer of a user's."""


def mine():
    layer = Mine(3)
    layer.build((None, 5))
    mask_weight(layer, "bias")
    return layer


@pytest.mark.parametrize(
    "make",
    [built_dense, lambda: CATALOGUE[L.Conv1D](2, 2), mine],
    ids=["dense", "conv_1d", "mine"],
)
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
)
def test_a_layer_is_copied_and_pickled_with_its_masks(make, duplicate):
    layer = make()
    if not layer.built:
        layer.build((None, 4, 5))
    mask = next(w for w in layer.weights if isinstance(w, MaskedVariable)).mask
    mask.assign(np.arange(np.prod(mask.shape)).reshape(mask.shape) % 2 == 0)
    other = duplicate(layer)
    assert type(other) is type(layer)
    for one, two in zip(layer.weights, other.weights, strict=True):
        assert np.array_equal(one, two)
        assert type(one) is type(two)
        if isinstance(one, MaskedVariable):
            assert np.array_equal(one.mask, two.mask)


# Masks only shrink.


def by_set_weights(model, other, path):
    model.set_weights(other.get_weights())


def by_set_weights_of_layers(model, other, path):
    for layer, source in zip(model.layers, other.layers, strict=True):
        layer.set_weights(source.get_weights())


def by_assign(model, other, path):
    for variable, source in zip(model.weights, other.weights, strict=True):
        variable.assign(source)


def by_assign_add(model, other, path):
    for variable in model.trainable_variables:
        variable.assign_add(np.ones(variable.shape))


def by_weights_file(model, other, path):
    other.save_weights(path / "m.weights.h5")
    model.load_weights(path / "m.weights.h5")


def by_keras_file(model, other, path):
    other.save(path / "m.keras")
    model.load_weights(path / "m.keras")


def by_checkpoint(model, other, path):
    prefix = tf.train.Checkpoint(model=other).save(str(path / "c"))
    tf.train.Checkpoint(model=model).restore(prefix).expect_partial()


def by_model_checkpoint(model, other, path):
    file = str(path / "best.weights.h5")
    other.compile("sgd", "mse", jit_compile=False)
    callback = keras.callbacks.ModelCheckpoint(file, save_weights_only=True)
    other.fit(X, Y, verbose=0, callbacks=[callback])
    model.load_weights(file)


ROUTES = [
    by_set_weights,
    by_set_weights_of_layers,
    by_assign,
    by_assign_add,
    by_weights_file,
    by_keras_file,
    by_checkpoint,
    by_model_checkpoint,
]
every_route = pytest.mark.parametrize("route", ROUTES, ids=lambda r: r.__name__)


def ones(model):
    for variable in model.weights:
        variable.assign(np.ones(variable.shape))
    return model


def model_of_ones():
    return mask_model(plain_model())


@every_route
@pytest.mark.parametrize("other", [plain_model, model_of_ones])
def test_no_route_brings_a_pruned_weight_back(route, other, tmp_path):
    model = masked_model()
    masks = get_masks(model)
    before = model.get_weights()
    route(model, ones(other()), tmp_path)
    assert_obeys(model, masks)
    assert not np.array_equal(before[0], model.get_weights()[0])


EXCHANGES = [r for r in ROUTES if r not in (by_assign_add, by_model_checkpoint)]


@pytest.mark.parametrize("route", EXCHANGES, ids=lambda r: r.__name__)
@pytest.mark.parametrize("to_plain", [True, False])
def test_plain_and_masked_models_exchange_weights(route, to_plain, tmp_path):
    masked, plain = masked_model(), plain_model()
    source, target = (masked, plain) if to_plain else (plain, masked)
    route(target, source, tmp_path)
    for value, other, weight in zip(
        masked.get_weights(), plain.get_weights(), masked.weights, strict=True
    ):
        kept = getattr(weight, "mask", np.ones(weight.shape, bool))
        assert np.array_equal(value, np.where(kept, other, 0))
    if to_plain:
        assert np.array_equal(plain(X), masked(X))


FILES = [by_weights_file, by_keras_file, by_checkpoint]


@pytest.mark.parametrize("route", FILES, ids=lambda r: r.__name__)
def test_loading_masks_prunes_what_either_has_pruned(route, tmp_path):
    model, other = masked_model(seed=1), masked_model(seed=2)
    one, two = get_masks(model), get_masks(other)
    route(model, other, tmp_path)
    assert one.kept > (one & two).kept
    assert_obeys(model, one & two)


@pytest.mark.parametrize("route", FILES, ids=lambda r: r.__name__)
def test_a_model_of_ones_takes_the_masks_of_a_file(route, tmp_path):
    model, other = model_of_ones(), masked_model()
    route(model, other, tmp_path)
    assert_obeys(model, get_masks(other))
    assert np.array_equal(model(X), other(X))


def test_early_stopping_restores_no_pruned_weight():
    class Pruning(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                set_masks(self.model, masks_of(self.model))

    model = mask_model(plain_model())
    stop = keras.callbacks.EarlyStopping(
        "loss", mode="max", patience=5, restore_best_weights=True
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.fit(X, Y, 8, 4, 0, callbacks=[stop, Pruning()], shuffle=False)
    assert stop.best_epoch == 0
    assert all(np.all(w != 0) for w in stop.best_weights[:1])
    assert_obeys(model, masks_of(model))


@pytest.mark.parametrize("jit", [False, True])
def test_moving_averages_swapped_in_obey_the_masks(jit):
    class Looking(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            seen.append(
                [k.numpy()[~k.mask.numpy()] for k in kernels(self.model)]
            )

    seen, model = [], masked_model()
    masks = get_masks(model)
    optimizer = keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, "mse", jit_compile=jit)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=False)
    callbacks = [swap, Looking()]
    model.fit(X, Y, 4, 2, 0, validation_data=(X, Y), callbacks=callbacks)
    assert len(seen) == 2
    assert all(not np.any(value) for each in seen for value in each)
    assert_obeys(model, masks)


def test_a_model_built_after_restoring_gets_its_masks(tmp_path):
    class Late(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.top = MaskedDense(4), MaskedDense(3)

        def build(self, shape):
            self.hidden.build(shape)
            self.top.build((None, 4))

        def call(self, x):
            return self.top(self.hidden(x))

    saved, late = Late(), Late()
    saved.build(X.shape)
    set_masks(saved, masks_of(saved))
    prefix = tf.train.Checkpoint(model=saved).save(str(tmp_path / "c"))
    tf.train.Checkpoint(model=late).restore(prefix).expect_partial()
    late.build(X.shape)
    assert np.array_equal(late(X), saved(X))
    assert_obeys(late, get_masks(saved))


# Files of TensorFlow.


@pytest.mark.parametrize(
    "save",
    [
        lambda model, path: tf.saved_model.save(model, path),
        lambda model, path: model.export(path, verbose=False),
    ],
    ids=["save", "export"],
)
def test_a_masked_model_becomes_a_saved_model(save, tmp_path):
    model = masked_model()
    save(model, str(tmp_path / "m"))
    served = tf.saved_model.load(str(tmp_path / "m"))
    (y,) = served.signatures["serving_default"](tf.constant(X)).values()
    assert np.allclose(y, model(X), atol=1e-6)


def test_masks_are_in_a_checkpoint_by_the_name_of_their_weight(tmp_path):
    prefix = tf.train.Checkpoint(model=masked_model()).save(str(tmp_path / "c"))
    names = [name for name, _ in tf.train.list_variables(prefix)]
    assert sum("/kernel_masks/kernel_mask/" in name for name in names) == 2


def test_what_tensorflow_alone_has_written_is_in_no_checkpoint(tmp_path):
    model = masked_model()
    for kernel in kernels(model):
        kernel.value.assign(np.ones(kernel.shape))
    prefix = tf.train.Checkpoint(model=model).save(str(tmp_path / "c"))
    plain = plain_model()
    tf.train.Checkpoint(model=plain).restore(prefix).expect_partial()
    for layer, kernel in zip(plain.layers[::2], kernels(model), strict=True):
        assert np.array_equal(layer.kernel, kernel.mask)


def test_replicas_keep_pruned_weights_at_zero():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = masked_model()
        masks = get_masks(model)
        model.compile("adam", "mse", jit_compile=False)
    model.fit(X, Y, 4, 2, 0)
    model.set_weights([np.ones_like(w) for w in model.get_weights()])
    assert get_masks(model) == masks
    for kernel, mask in zip(kernels(model), masks.values(), strict=True):
        assert np.array_equal(kernel.numpy(), mask)

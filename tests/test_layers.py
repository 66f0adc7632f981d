"""Every masked layer of the catalogue keeps every promise."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.layers import CATALOGUE

L = keras.layers

# Plain layer, its arguments, the shape of a batch. One row or more a layer.
ROWS = {
    "dense": (L.Dense, {"units": 3}, (4, 5)),
    "dense_no_bias": (L.Dense, {"units": 3, "use_bias": False}, (4, 5)),
    "dense_on_sequences": (
        L.Dense,
        {"units": 3, "activation": "tanh"},
        (4, 2, 5),
    ),
    "conv": (
        L.Conv2D,
        {"filters": 4, "kernel_size": 2, "activation": "tanh"},
        (3, 5, 5, 2),
    ),
    "conv_grouped_strided": (
        L.Conv2D,
        {"filters": 4, "kernel_size": 3, "strides": 2, "groups": 2},
        (3, 7, 7, 4),
    ),
    "conv_dilated": (
        L.Conv2D,
        {
            "filters": 3,
            "kernel_size": 2,
            "dilation_rate": 2,
            "padding": "same",
            "use_bias": False,
        },
        (3, 5, 5, 2),
    ),
}
ONE_EACH = ("dense", "conv")

REGULARIZER = keras.regularizers.L2(0.25)
INITIALIZER = keras.initializers.RandomNormal(stddev=0.5, seed=3)
# Every argument of a plain layer, at another value than its default.
ARGUMENTS = {
    "units": {"units": 7},
    "filters": {"filters": 6},
    "kernel_size": {"kernel_size": (3, 1)},
    "strides": {"strides": (2, 1)},
    "padding": {"padding": "same"},
    "data_format": {"data_format": "channels_first"},
    "dilation_rate": {"dilation_rate": (2, 1)},
    "groups": {"groups": 2},
    "activation": {"activation": "gelu"},
    "use_bias": {"use_bias": False},
    "kernel_initializer": {"kernel_initializer": INITIALIZER},
    "bias_initializer": {"bias_initializer": INITIALIZER},
    "kernel_regularizer": {"kernel_regularizer": REGULARIZER},
    "bias_regularizer": {"bias_regularizer": REGULARIZER},
    "activity_regularizer": {"activity_regularizer": REGULARIZER},
    "kernel_constraint": {"kernel_constraint": "non_neg"},
    "bias_constraint": {"bias_constraint": "non_neg"},
    "lora_rank": {"lora_rank": 2},
    "lora_alpha": {"lora_rank": 2, "lora_alpha": 5},
    "quantization_config": {
        "quantization_config": keras.quantizers.Int8QuantizationConfig()
    },
    "name": {"name": "mine"},
    "trainable": {"trainable": False},
    "dtype": {"dtype": "mixed_bfloat16"},
}


def arguments_of(cls):
    names = set(inspect.signature(cls.__init__).parameters)
    return sorted(names - {"self", "kwargs"} | {"name", "trainable", "dtype"})


every_row = pytest.mark.parametrize("row", ROWS)
each_layer = pytest.mark.parametrize("row", ONE_EACH)


def masked_layer(row, seed=0, **more):
    """A built masked layer, all weights random and non-zero."""
    cls, arguments, shape = ROWS[row]
    layer = CATALOGUE[cls](**arguments, **more)
    layer.build(shape)
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return layer


def plain_twin(layer, row):
    """The plain layer with the same kernel, as it is stored, and bias."""
    cls, arguments, shape = ROWS[row]
    twin = cls(**arguments)
    twin.build(shape)
    for variable, source in zip(
        twin.weights, layer.trainable_variables, strict=True
    ):
        variable.assign(source)
    return twin


def batch(row):
    shape = ROWS[row][2]
    return np.random.default_rng(5).normal(size=shape).astype("float32")


def half_mask(layer):
    return np.random.default_rng(2).random(layer.kernel.shape) < 0.5


def stored_kernel(layer):
    return layer.trainable_variables[0]


def output_and_gradients(layer, x):
    """The outputs; the gradients of kernel, bias and inputs."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y * y)
    gradients = tape.gradient(loss, [*layer.trainable_variables, x])
    return y.numpy(), [g.numpy() for g in gradients]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a, b)


def network(layer, row):
    inputs = keras.Input(ROWS[row][2][1:])
    x = L.Flatten()(layer(inputs))
    return keras.Model(inputs, L.Dense(1, name="sum")(x))


# The catalogue.


def test_every_layer_of_the_catalogue_has_a_row():
    assert {cls for cls, _, _ in ROWS.values()} == set(CATALOGUE)
    assert {ROWS[row][0] for row in ONE_EACH} == set(CATALOGUE)


@pytest.mark.parametrize("cls", CATALOGUE)
def test_a_masked_layer_is_the_plain_one_with_a_mask(cls):
    assert CATALOGUE[cls].__name__ == f"Masked{cls.__name__}"
    assert issubclass(CATALOGUE[cls], cls)


# Null cases (K14) and gradients (K15).


@every_row
def test_a_mask_of_ones_is_the_plain_layer_bit_for_bit(row):
    layer = masked_layer(row)
    y, gradients = output_and_gradients(layer, batch(row))
    plain_y, plain_gradients = output_and_gradients(
        plain_twin(layer, row), batch(row)
    )
    assert np.array_equal(y, plain_y)
    assert_same(gradients, plain_gradients)


@every_row
def test_pruned_weights_take_no_part_and_get_no_gradient(row):
    layer, mask = masked_layer(row), half_mask(masked_layer(row))
    before, _ = output_and_gradients(layer, batch(row))
    layer.kernel_mask.assign(mask)
    y, gradients = output_and_gradients(layer, batch(row))

    zeroed = plain_twin(layer, row)
    zeroed.kernel.assign(np.where(mask, stored_kernel(layer), 0))
    zeroed_y, zeroed_gradients = output_and_gradients(zeroed, batch(row))

    assert np.array_equal(y, zeroed_y)
    assert not np.array_equal(y, before)
    assert np.all(gradients[0][~mask] == 0)
    assert np.any(zeroed_gradients[0][~mask] != 0)
    assert np.array_equal(gradients[0][mask], zeroed_gradients[0][mask])
    assert_same(gradients[1:], zeroed_gradients[1:])


@every_row
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_pruned_weight_that_is_no_number_does_no_harm(row, poison):
    layer, mask = masked_layer(row), half_mask(masked_layer(row))
    layer.kernel_mask.assign(mask)
    expected = output_and_gradients(layer, batch(row))
    kernel = stored_kernel(layer)
    kernel.assign(np.where(mask, kernel, poison))
    y, gradients = output_and_gradients(layer, batch(row))
    assert np.array_equal(y, expected[0])
    assert_same(gradients, expected[1])


@each_layer
def test_the_mask_is_a_weight_that_nothing_trains(row):
    layer = masked_layer(row)
    names = [v.name for v in layer.weights]
    assert names == ["kernel", "bias", "kernel_mask"]
    assert [v.name for v in layer.non_trainable_weights] == ["kernel_mask"]
    assert layer.kernel_mask.dtype == "bool"
    assert layer.kernel_mask.shape == layer.kernel.shape
    assert np.all(layer.kernel_mask)


@each_layer
def test_an_unbuilt_layer_has_no_mask_yet(row):
    cls, arguments, _ = ROWS[row]
    layer = CATALOGUE[cls](**arguments)
    assert layer.kernel_mask is None
    with pytest.raises(AttributeError, match="must build the layer"):
        layer.kernel  # noqa: B018


# Configuration.


@pytest.mark.parametrize(
    ("cls", "argument"),
    [(cls, name) for cls in CATALOGUE for name in arguments_of(cls)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_argument_survives_the_configuration(cls, argument):
    row = next(r for r in ONE_EACH if ROWS[r][0] is cls)
    basic = {"name": "default", **ROWS[row][1]}
    # A new argument of Keras fails here until it has a value above.
    given = {**basic, **ARGUMENTS[argument]}
    config = CATALOGUE[cls](**given).get_config()
    again = CATALOGUE[cls].from_config(config)
    assert type(again) is CATALOGUE[cls]
    assert str(again.get_config()) == str(config)
    assert str(cls(**given).get_config()) == str(config)
    assert str(CATALOGUE[cls](**basic).get_config()) != str(config)


# Files.


def saved_network(row):
    """A network whose stored kernel is not clean at pruned weights."""
    layer = masked_layer(row)
    model = network(layer, row)
    layer.kernel_mask.assign(half_mask(layer))
    return model, layer


@each_layer
def test_a_keras_file_brings_back_mask_and_outputs(row, tmp_path):
    model, layer = saved_network(row)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    twin = loaded.get_layer(layer.name)
    assert type(twin) is type(layer)
    assert np.array_equal(twin.kernel_mask, layer.kernel_mask)
    assert np.array_equal(loaded(batch(row)), model(batch(row)))
    assert np.any(stored_kernel(layer).numpy()[~half_mask(layer)] != 0)
    assert np.all(stored_kernel(twin).numpy()[~half_mask(layer)] == 0)


@each_layer
def test_a_weights_file_loads_into_a_network_built_anew(row, tmp_path):
    model, layer = saved_network(row)
    model.save_weights(tmp_path / "m.weights.h5")
    other = masked_layer(row, seed=9)
    anew = network(other, row)
    assert not np.array_equal(anew(batch(row)), model(batch(row)))
    anew.load_weights(tmp_path / "m.weights.h5")
    assert np.array_equal(other.kernel_mask, layer.kernel_mask)
    assert np.array_equal(anew(batch(row)), model(batch(row)))
    assert np.all(stored_kernel(other).numpy()[~half_mask(layer)] == 0)


def variables_saved_by(layer):
    store = {}
    layer.save_own_variables(store)
    return {name: np.array(value) for name, value in store.items()}


@every_row
def test_the_variables_of_a_plain_layer_load(row):
    plain = plain_twin(masked_layer(row, seed=4), row)
    layer = masked_layer(row)
    layer.load_own_variables(variables_saved_by(plain))
    assert np.all(layer.kernel_mask)
    assert np.array_equal(layer(batch(row)), plain(batch(row)))


@each_layer
def test_the_variables_of_a_plain_layer_keep_the_mask_there_is(row):
    layer = masked_layer(row)
    mask = half_mask(layer)
    layer.kernel_mask.assign(mask)
    plain = plain_twin(masked_layer(row, seed=4), row)
    layer.load_own_variables(variables_saved_by(plain))
    assert np.array_equal(layer.kernel_mask, mask)
    assert np.array_equal(layer.kernel, np.where(mask, plain.kernel, 0))


@each_layer
def test_the_variables_of_a_plain_layer_load_with_pruned_weights_at_zero(row):
    layer = masked_layer(row)
    mask = half_mask(layer)
    layer.kernel_mask.assign(mask)
    plain = plain_twin(masked_layer(row, seed=4), row)
    layer.load_own_variables(variables_saved_by(plain))
    assert np.all(stored_kernel(layer).numpy()[~mask] == 0)


@each_layer
def test_variables_of_another_layer_are_refused(row):
    store = variables_saved_by(masked_layer(row))
    del store["1"]
    with pytest.raises(ValueError, match="expected .* variables"):
        masked_layer(row).load_own_variables(store)


def test_an_unbuilt_layer_saves_nothing():
    layer = CATALOGUE[L.Dense](3)
    assert variables_saved_by(layer) == {}


# Plain `fit`.


def fitted(layer, row, optimizer, epochs=3, **compiled):
    model = network(layer, row)
    keras.utils.set_random_seed(1)
    model.get_layer("sum").kernel.assign(
        np.ones(model.get_layer("sum").kernel.shape)
    )
    compiled = {"jit_compile": False, **compiled}
    model.compile(optimizer, "mse", **compiled)
    targets = np.arange(len(batch(row)), dtype="float32")[:, None]
    model.fit(batch(row), targets, 2, epochs, shuffle=False, verbose=0)
    return model


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(1e-3, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(1e-2),
    "adamw": lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1),
}


def assert_fit_keeps_pruned_weights_at_zero(row, make, jit=False, **more):
    layer = masked_layer(row, **more)
    mask = half_mask(layer)
    layer.kernel_mask.assign(mask)
    start = np.where(mask, stored_kernel(layer), 0)
    stored_kernel(layer).assign(start)
    fitted(layer, row, make(), jit_compile=jit)
    trained = stored_kernel(layer).numpy()
    assert np.all(trained[~mask] == 0)
    assert np.all(np.isfinite(trained))
    assert np.all(trained[mask] != start[mask])
    assert np.array_equal(layer.kernel_mask, mask)
    return layer


@each_layer
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_fit_keeps_stored_pruned_weights_at_zero(row, make):
    assert_fit_keeps_pruned_weights_at_zero(row, make)


@each_layer
def test_fit_compiled_by_xla_keeps_stored_pruned_weights_at_zero(row):
    assert_fit_keeps_pruned_weights_at_zero(row, OPTIMIZERS["adam"], jit=True)


@each_layer
def test_mixed_precision_keeps_dtypes_and_zeros(row):
    layer = assert_fit_keeps_pruned_weights_at_zero(
        row, OPTIMIZERS["momentum"], dtype="mixed_bfloat16"
    )
    assert [v.dtype for v in layer.trainable_variables] == ["float32"] * 2
    assert layer.kernel_mask.dtype == "bool"
    assert layer(batch(row)).dtype == "bfloat16"


@each_layer
def test_fit_with_a_mask_of_ones_is_plain_training_bit_for_bit(row):
    layer = masked_layer(row)
    plain = plain_twin(layer, row)
    start = stored_kernel(layer).numpy()
    for one in (layer, plain):
        fitted(one, row, OPTIMIZERS["adam"]())
    assert_same(layer.trainable_variables, plain.trainable_variables)
    assert not np.array_equal(stored_kernel(layer), start)

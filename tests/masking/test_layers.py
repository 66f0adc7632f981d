"""Every masked layer of the catalogue keeps every promise."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.masking import conversion
from tf_lottery.masking.layers import CATALOGUE
from tf_lottery.masking.masked_variable import MaskedVariable

L = keras.layers

SEQUENCE = (4, 3, 5)
CONV = {"filters": 4, "kernel_size": 2}
# Plain layer, its arguments, the shape of a batch. One row or more a layer.
ROWS = {
    "dense": (L.Dense, {"units": 3}, (4, 5)),
    "dense_no_bias": (L.Dense, {"units": 3, "use_bias": False}, (4, 5)),
    "dense_on_sequences": (
        L.Dense,
        {"units": 3, "activation": "tanh"},
        (4, 2, 5),
    ),
    "einsum_dense": (
        L.EinsumDense,
        {"equation": "abc,cd->abd", "output_shape": (3, 3), "bias_axes": "d"},
        SEQUENCE,
    ),
    "conv_1d": (L.Conv1D, {**CONV, "padding": "causal"}, (3, 5, 2)),
    "conv": (L.Conv2D, {**CONV, "activation": "tanh"}, (3, 5, 5, 2)),
    "conv_grouped_strided": (
        L.Conv2D,
        {"filters": 4, "kernel_size": 3, "strides": 2, "groups": 2},
        (3, 7, 7, 4),
    ),
    "conv_dilated": (
        L.Conv2D,
        {**CONV, "dilation_rate": 2, "padding": "same", "use_bias": False},
        (3, 5, 5, 2),
    ),
    "conv_3d": (L.Conv3D, CONV, (2, 3, 3, 3, 2)),
    "conv_1d_transpose": (L.Conv1DTranspose, CONV, (3, 4, 2)),
    "conv_2d_transpose": (
        L.Conv2DTranspose,
        {**CONV, "strides": 2},
        (3, 3, 3, 2),
    ),
    "conv_3d_transpose": (L.Conv3DTranspose, CONV, (2, 2, 2, 2, 2)),
    "depthwise_1d": (L.DepthwiseConv1D, {"kernel_size": 3}, (3, 5, 4)),
    "depthwise_2d": (
        L.DepthwiseConv2D,
        {"kernel_size": 2, "depth_multiplier": 2},
        (3, 4, 4, 3),
    ),
    "separable_1d": (L.SeparableConv1D, CONV, (3, 5, 3)),
    "separable_2d": (L.SeparableConv2D, CONV, (3, 4, 4, 3)),
    "embedding": (L.Embedding, {"input_dim": 4, "output_dim": 5}, (4, 3)),
    "embedding_tied": (
        L.ReversibleEmbedding,
        {"input_dim": 4, "output_dim": 5},
        (4, 3),
    ),
    "embedding_untied": (
        L.ReversibleEmbedding,
        {"input_dim": 4, "output_dim": 5, "tie_weights": False},
        (4, 3),
    ),
    "simple_rnn": (L.SimpleRNN, {"units": 4}, SEQUENCE),
    "lstm": (L.LSTM, {"units": 4, "return_sequences": True}, SEQUENCE),
    "gru": (L.GRU, {"units": 4}, SEQUENCE),
    "gru_reset_before": (
        L.GRU,
        {"units": 4, "reset_after": False, "unroll": True},
        SEQUENCE,
    ),
    "conv_lstm_1d": (L.ConvLSTM1D, CONV, (2, 2, 4, 2)),
    "conv_lstm_2d": (L.ConvLSTM2D, CONV, (2, 2, 3, 3, 2)),
    "conv_lstm_3d": (L.ConvLSTM3D, CONV, (2, 2, 2, 2, 2, 2)),
    "attention": (
        L.MultiHeadAttention,
        {"num_heads": 2, "key_dim": 3},
        SEQUENCE,
    ),
    "grouped_attention": (
        L.GroupQueryAttention,
        {"head_dim": 2, "num_query_heads": 4, "num_key_value_heads": 2},
        SEQUENCE,
    ),
}
# Cells come with the layers that unroll them, and are no layer of a model.
CELLS = {cls for cls in CATALOGUE if cls.__name__.endswith("Cell")}
ONE_EACH = list(
    {cls: row for row, (cls, *_) in reversed(ROWS.items())}.values()
)

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
    "name": {"name": "mine"},
    "trainable": {"trainable": False},
    "dtype": {"dtype": "mixed_bfloat16"},
}
if hasattr(keras.quantizers, "Int8QuantizationConfig"):  # Keras 3.13 or later
    config = keras.quantizers.Int8QuantizationConfig()
    ARGUMENTS["quantization_config"] = {"quantization_config": config}


def arguments_of(cls):
    names = set(inspect.signature(cls.__init__).parameters)
    return sorted(names - {"self", "kwargs"} | {"name", "trainable", "dtype"})


every_row = pytest.mark.parametrize("row", ROWS)
each_layer = pytest.mark.parametrize("row", ONE_EACH)


def batch(row):
    cls, _, shape = ROWS[row]
    rng = np.random.default_rng(5)
    if issubclass(cls, L.Embedding):
        return rng.integers(4, size=shape)
    return rng.normal(size=shape).astype("float32")


def called(layer, x):
    attends = isinstance(layer, L.MultiHeadAttention | L.GroupQueryAttention)
    y = layer(x, x) if attends else layer(x)
    is_reversible = isinstance(layer, L.ReversibleEmbedding)
    return layer(y, reverse=True) if is_reversible else y


def masked_layer(row, seed=0, **more):
    """A built masked layer, all weights random and non-zero."""
    cls, arguments, _ = ROWS[row]
    layer = CATALOGUE[cls](**arguments, **more)
    called(layer, batch(row))
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(rng.uniform(0.1, 1.1, variable.shape))
    return layer


def plain_twin(layer, row):
    """The plain layer with the same weights, as they are stored."""
    cls, arguments, _ = ROWS[row]
    twin = cls(**arguments)
    called(twin, batch(row))
    for variable, source in zip(
        twin.trainable_variables, layer.trainable_variables, strict=True
    ):
        variable.assign(source)
    return twin


def pairs(layer):
    """The stored kernels, each with the variable of its mask."""
    return [
        (weight, weight.mask)
        for weight in layer.weights
        if isinstance(weight, MaskedVariable)
    ]


def prune(layer):
    """Prunes about half of every kernel."""
    rng = np.random.default_rng(2)
    for kernel, mask in pairs(layer):
        mask.assign(rng.random(kernel.shape) < 0.5)
    return [mask.numpy() for _, mask in pairs(layer)]


def pruned(layer):
    """What is stored where kernels are pruned."""
    return np.concatenate(
        [kernel.value.numpy()[~mask.numpy()] for kernel, mask in pairs(layer)]
    )


def put(layer, value):
    """Stores a value where kernels are pruned, which only TensorFlow can."""
    for kernel, mask in pairs(layer):
        kernel.value.assign(np.where(mask, kernel, value))


def output_and_gradients(layer, row):
    """The outputs; the gradients of the weights by their index."""
    with tf.GradientTape() as tape:
        y = called(layer, batch(row))
        loss = tf.reduce_sum(y * y)
    gradients = tape.gradient(loss, layer.trainable_variables)
    return y.numpy(), [tf.convert_to_tensor(g).numpy() for g in gradients]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a, b)


def network(layer, row):
    cls, _, shape = ROWS[row]
    inputs = keras.Input(
        shape[1:], dtype="int32" if issubclass(cls, L.Embedding) else None
    )
    x = L.Flatten()(called(layer, inputs))
    return keras.Model(inputs, L.Dense(1, name="sum")(x))


# The catalogue.


def test_every_layer_of_the_catalogue_has_a_row():
    assert {cls for cls, _, _ in ROWS.values()} | CELLS == set(CATALOGUE)


def test_a_weight_of_keras_that_is_called_a_kernel_is_known():
    # A layer that a new version of Keras brings fails here until it is known.
    known = {cls for masked in CATALOGUE for cls in masked.__mro__}
    known.add(L.STFTSpectrogram)  # its kernels are constants
    for cls in vars(L).values():
        if isinstance(cls, type) and cls not in known:
            source = inspect.getsource(cls)
            assert "kernel = self.add_weight" not in source
            assert "embeddings = self.add_weight" not in source


@pytest.mark.parametrize("cls", CATALOGUE)
def test_a_masked_layer_is_the_plain_one_with_a_mask(cls):
    masked = CATALOGUE[cls]
    assert masked.__qualname__ == f"Masked{cls.__name__}"
    assert issubclass(masked, cls)
    assert masked.__doc__.startswith(f"`{cls.__name__}` with masks on ")
    assert conversion.plain_class(masked) is cls


# Null cases (K14) and gradients (K15).


@every_row
def test_masks_of_ones_are_the_plain_layer_bit_for_bit(row):
    layer = masked_layer(row)
    y, gradients = output_and_gradients(layer, row)
    plain_y, plain_gradients = output_and_gradients(plain_twin(layer, row), row)
    assert np.array_equal(y, plain_y)
    assert_same(gradients, plain_gradients)


@every_row
def test_pruned_weights_take_no_part_and_get_no_gradient(row):
    layer = masked_layer(row)
    before, _ = output_and_gradients(layer, row)
    prune(layer)
    assert np.all(pruned(layer) == 0)
    put(layer, 5)
    y, gradients = output_and_gradients(layer, row)
    zeroed, zeroed_gradients = output_and_gradients(plain_twin(layer, row), row)

    assert np.array_equal(y, zeroed)
    assert not np.array_equal(y, before)
    mask_of = {id(kernel): mask.numpy() for kernel, mask in pairs(layer)}
    for variable, gradient, other in zip(
        layer.trainable_variables, gradients, zeroed_gradients, strict=True
    ):
        mask = mask_of.pop(id(variable), np.ones(gradient.shape, bool))
        assert np.all(gradient[~mask] == 0)
        assert np.array_equal(gradient[mask], other[mask])
    assert not mask_of


@every_row
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_pruned_weight_that_is_no_number_does_no_harm(row, poison):
    layer = masked_layer(row)
    prune(layer)
    expected = output_and_gradients(layer, row)
    put(layer, poison)
    y, gradients = output_and_gradients(layer, row)
    assert np.array_equal(y, expected[0])
    assert_same(gradients, expected[1])


@pytest.mark.slow
@each_layer
def test_masks_are_no_weights_that_anybody_sees(row):
    layer = masked_layer(row)
    masks = [mask for _, mask in pairs(layer)]
    assert masks
    assert all(np.all(mask) and mask.dtype == "bool" for mask in masks)
    assert not any(mask.trainable for mask in masks)
    plain = plain_twin(layer, row)
    for kind in (
        "weights",
        "variables",
        "trainable_weights",
        "trainable_variables",
        "non_trainable_weights",
        "non_trainable_variables",
    ):
        names = [[v.name for v in getattr(x, kind)] for x in (layer, plain)]
        assert names[0] == names[1]
    assert layer.count_params() == plain.count_params()
    assert len(layer._flatten_layers()) == len(plain._flatten_layers())


def test_a_mask_is_reached_by_the_name_of_its_weight():
    dense = masked_layer("dense")
    assert dense.kernel_mask is pairs(dense)[0][1]
    cell = masked_layer("lstm").cell
    assert cell.recurrent_kernel_mask.name == "recurrent_kernel_mask"
    assert masked_layer("separable_2d").pointwise_kernel_mask.shape[-1] == 4


@pytest.mark.parametrize("row", ["dense", "depthwise_2d"])
def test_an_unbuilt_layer_has_no_mask_yet(row):
    cls, arguments, _ = ROWS[row]
    layer = CATALOGUE[cls](**arguments)
    assert layer.kernel_mask is None
    with pytest.raises(AttributeError, match="must build the layer"):
        layer.kernel  # noqa: B018


# Configuration.


@pytest.mark.parametrize(
    ("cls", "argument"),
    [(c, name) for c in (L.Dense, L.Conv2D) for name in arguments_of(c)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_argument_survives_the_configuration(cls, argument):
    row = "dense" if cls is L.Dense else "conv"
    basic = {"name": "default", **ROWS[row][1]}
    # A new argument of Keras fails here until it has a value above.
    given = {**basic, **ARGUMENTS[argument]}
    config = CATALOGUE[cls](**given).get_config()
    again = CATALOGUE[cls].from_config(config)
    assert type(again) is CATALOGUE[cls]
    assert str(again.get_config()) == str(config)
    assert str(cls(**given).get_config()) == str(config)
    assert str(CATALOGUE[cls](**basic).get_config()) != str(config)


@each_layer
def test_the_configuration_is_the_plain_layers(row):
    cls, arguments, _ = ROWS[row]
    given = {"name": "mine", **arguments}
    config = CATALOGUE[cls](**given).get_config()
    assert str(cls(**given).get_config()) == str(config)
    assert type(CATALOGUE[cls].from_config(config)) is CATALOGUE[cls]


# Files.


def saved_network(row):
    """A network whose stored kernels are not clean at pruned weights."""
    layer = masked_layer(row)
    model = network(layer, row)
    prune(layer)
    put(layer, 5)
    assert np.all(pruned(layer) != 0)
    return model, layer


@each_layer
def test_a_keras_file_brings_back_masks_and_outputs(row, tmp_path):
    model, layer = saved_network(row)
    before = model(batch(row))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    twin = loaded.get_layer(layer.name)
    assert type(twin) is type(layer)
    assert_same([m for _, m in pairs(twin)], [m for _, m in pairs(layer)])
    assert np.array_equal(loaded(batch(row)), before)
    assert np.all(pruned(twin) == 0)


@each_layer
def test_files_of_weights_cross_between_plain_and_masked(row, tmp_path):
    model, layer = saved_network(row)
    outputs = model(batch(row))
    model.save_weights(tmp_path / "masked.weights.h5")

    again = masked_layer(row, seed=9)
    reestimate_batch_norm = network(again, row)
    reestimate_batch_norm.load_weights(tmp_path / "masked.weights.h5")
    assert np.array_equal(reestimate_batch_norm(batch(row)), outputs)
    assert_same([m for _, m in pairs(again)], [m for _, m in pairs(layer)])
    assert np.all(pruned(again) == 0)

    twin = plain_twin(masked_layer(row, seed=4), row)
    plain = network(twin, row)
    plain.load_weights(tmp_path / "masked.weights.h5")
    assert np.array_equal(plain(batch(row)), outputs)

    for variable in plain.trainable_variables:
        variable.assign(np.full(variable.shape, 0.25))
    plain.save_weights(tmp_path / "plain.weights.h5")
    model.load_weights(tmp_path / "plain.weights.h5")
    assert np.all(pruned(layer) == 0)
    assert np.array_equal(pairs(again)[0][1], pairs(layer)[0][1])
    kernel, mask = pairs(layer)[0]
    assert np.all(kernel.numpy()[mask.numpy()] == 0.25)


def test_variables_of_another_layer_are_refused():
    store = {}
    masked_layer("dense").save_own_variables(store)
    del store["1"]
    with pytest.raises(ValueError, match="expected .* variables"):
        masked_layer("dense").load_own_variables(store)


def test_an_unbuilt_layer_saves_nothing():
    store = {}
    CATALOGUE[L.Dense](3).save_own_variables(store)
    assert store == {}


@each_layer
def test_a_layer_masked_in_place_is_that_of_the_catalogue(row):
    layer = masked_layer(row)
    prune(layer)
    plain = plain_twin(layer, row)
    for part in list(plain._flatten_layers()):
        for name in conversion.stored_kernels(part):
            conversion.mask_weight(part, name)
    conversion.mask_container(plain)
    assert type(plain) is type(layer)
    prune(plain)
    assert_same(
        output_and_gradients(plain, row)[1], output_and_gradients(layer, row)[1]
    )
    y = called(layer, batch(row))
    for part in list(plain._flatten_layers()):
        conversion.unmask_layer(part)
    assert type(plain) is ROWS[row][0]
    assert not pairs(plain)
    assert np.array_equal(called(plain, batch(row)), y)


# Plain `fit`.


def fitted(layer, row, optimizer, epochs=2, **compiled):
    model = network(layer, row)
    model.get_layer("sum").kernel.assign(
        np.ones(model.get_layer("sum").kernel.shape)
    )
    compiled = {"jit_compile": False, **compiled}
    model.compile(optimizer, "mse", **compiled)
    targets = np.arange(len(batch(row)), dtype="float32")[:, None]
    keras.utils.set_random_seed(1)
    model.fit(batch(row), targets, 2, epochs, shuffle=False, verbose=0)
    return model


def assert_fit_keeps_pruned_weights_at_zero(row, optimizer, jit=False, **more):
    layer = masked_layer(row, **more)
    masks = prune(layer)
    put(layer, 0)
    start = [kernel.numpy() for kernel, _ in pairs(layer)]
    fitted(layer, row, optimizer, jit_compile=jit)
    assert np.all(pruned(layer) == 0)
    for (kernel, mask), before, given in zip(
        pairs(layer), start, masks, strict=True
    ):
        assert np.all(np.isfinite(kernel))
        assert np.any(kernel.numpy()[given] != before[given]), kernel.path
        assert np.array_equal(mask, given)
    return layer


@each_layer
def test_no_step_moves_a_pruned_weight(row):
    layer = masked_layer(row)
    prune(layer)
    put(layer, 0)
    start = [kernel.numpy() for kernel, _ in pairs(layer)]
    optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
    for _ in range(2):
        _, gradients = output_and_gradients(layer, row)
        optimizer.apply(
            [tf.constant(g) for g in gradients], layer.trainable_variables
        )
        assert np.all(pruned(layer) == 0)
    for (kernel, mask), before in zip(pairs(layer), start, strict=True):
        kept = mask.numpy()
        assert np.all(kernel.numpy()[kept] != before[kept]), kernel.path


@pytest.mark.parametrize(
    "row", ["dense", "conv", "separable_2d", "embedding", "lstm", "attention"]
)
def test_fit_keeps_stored_pruned_weights_at_zero(row):
    optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
    assert_fit_keeps_pruned_weights_at_zero(row, optimizer)


@pytest.mark.parametrize("row", ["dense", "embedding"])
def test_fit_compiled_by_xla_keeps_stored_pruned_weights_at_zero(row):
    optimizer = keras.optimizers.Adam(1e-2)
    assert_fit_keeps_pruned_weights_at_zero(row, optimizer, jit=True)


@pytest.mark.parametrize(
    ("row", "policy"),
    [
        ("dense", "mixed_bfloat16"),
        ("dense", "mixed_float16"),
        ("separable_2d", "mixed_bfloat16"),
        ("gru", "mixed_bfloat16"),
    ],
)
def test_mixed_precision_keeps_dtypes_and_zeros(row, policy):
    layer = assert_fit_keeps_pruned_weights_at_zero(
        row, keras.optimizers.SGD(1e-3, momentum=0.9), dtype=policy
    )
    assert {v.dtype for v in layer.trainable_variables} == {"float32"}
    assert {mask.dtype for _, mask in pairs(layer)} == {"bool"}
    assert called(layer, batch(row)).dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize("row", ["dense", "conv"])
def test_fit_with_masks_of_ones_is_plain_training_bit_for_bit(row):
    layer = masked_layer(row)
    plain = plain_twin(layer, row)
    start = pairs(layer)[0][0].numpy()
    for one in (layer, plain):
        fitted(one, row, keras.optimizers.Adam(1e-2))
    assert_same(layer.trainable_variables, plain.trainable_variables)
    assert not np.array_equal(pairs(layer)[0][0], start)


def test_a_constraint_of_the_users_is_kept_and_cannot_revive():
    class AtLeast(keras.constraints.Constraint):
        def __call__(self, w):
            return keras.ops.maximum(w, 0.5)

    layer = assert_fit_keeps_pruned_weights_at_zero(
        "dense", keras.optimizers.SGD(1e-2), kernel_constraint=AtLeast()
    )
    (kernel, mask), *_ = pairs(layer)
    assert np.all(kernel.numpy()[mask.numpy()] >= 0.5)
    assert isinstance(layer.kernel_constraint, AtLeast)
    conversion.unmask_layer(layer)
    assert isinstance(kernel.constraint, AtLeast)

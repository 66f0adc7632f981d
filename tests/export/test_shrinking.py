"""Shrinking removes dead units and changes no output."""

import re

import keras
import numpy as np
import pytest
import sample_tickets
import toy

from tf_lottery import export, masking, models

L = keras.layers


def disturb(model, density, draw):
    """Gives a model random weights, of which some kernels' stay."""
    for variable in model.weights:
        value = draw.normal(scale=0.5, size=variable.shape)
        if variable.name == "kernel":
            value *= draw.random(variable.shape) < density
        if variable.name == "moving_variance":
            value = value**2 + 0.5
        variable.assign(value)
    return model


def agree(model, shrunk, draw):
    shapes = [(5, *tensor.shape[1:]) for tensor in model.inputs]
    x = [draw.normal(scale=2, size=shape).astype("float32") for shape in shapes]
    x = x if len(x) > 1 else x[0]
    expected = keras.tree.flatten(model(x, training=False))
    outputs = keras.tree.flatten(shrunk.model(x, training=False))
    for one, other in zip(expected, outputs, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        scale = max(1.0, np.abs(one).max())
        np.testing.assert_allclose(other / scale, one / scale, atol=1e-5)
    assert shrunk.after == shrunk.model.count_params() <= shrunk.before


def block(x, draw, filters):
    """A few random layers on images."""
    conv = L.Conv2D(
        filters,
        int(draw.integers(1, 4)),
        strides=int(draw.integers(1, 3)),
        padding=str(draw.choice(["same", "valid"])),
        use_bias=bool(draw.integers(2)),
        activation=draw.choice([None, "relu", "tanh"]),
    )
    choices = [
        conv,
        L.Conv2D(filters, 1, padding="same"),
        L.Dense(filters, activation="sigmoid"),
        L.BatchNormalization(scale=bool(draw.integers(2))),
        L.Activation(draw.choice(["relu", "elu", "softmax"])),
        L.ReLU(max_value=2.0),
        L.Dropout(0.5),
        L.ZeroPadding2D(1),
        L.MaxPooling2D(2, 1, padding=str(draw.choice(["same", "valid"]))),
        L.AveragePooling2D(2, 1, padding="same"),
        L.DepthwiseConv2D(1),
        L.LayerNormalization(),
    ]
    for index in draw.permutation(len(choices))[:3]:
        if min(x.shape[1:3]) > 2:
            x = choices[index](x)
    return x


def random_graph(draw):
    """A functional graph with residual adds, concatenations and heads."""
    image = keras.Input((8, 8, 2))
    x = L.Conv2D(5, 3, padding=str(draw.choice(["same", "valid"])))(image)
    for _ in range(draw.integers(1, 4)):
        x = block(x, draw, int(draw.integers(2, 6)))
        width, how = x.shape[-1], draw.integers(5)
        y = L.Conv2D(width, 1, activation="relu")(x)
        if how == 0:
            x = L.Add()([x, y])
        if how == 1:
            x = L.Concatenate()([y, x, y])
        if how == 2:
            x = L.Maximum()([L.BatchNormalization()(y), x, x])
        if how == 3:
            x = x + y
    x = (L.Flatten() if draw.integers(2) else L.GlobalAveragePooling2D())(x)
    for units in draw.integers(2, 7, size=draw.integers(3)):
        y = L.Dense(int(units), activation="relu")(x)
        x = L.Concatenate()([x, y]) if draw.integers(2) else y
    heads = [L.Dense(3)(x), L.Dense(2, activation="softmax")(x)]
    return keras.Model(image, heads if draw.integers(2) else heads[0])


@pytest.mark.parametrize("density", [0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_give_the_same_outputs(seed, density):
    draw = np.random.default_rng([seed, int(100 * density)])
    model = disturb(random_graph(draw), density, draw)
    agree(model, export.shrink(model, skip_inputs=bool(seed % 2)), draw)


def test_nested_and_shared_models_give_the_same_outputs(build):
    draw = np.random.default_rng(3)
    model = disturb(build(), 0.1, draw)
    shrunk = export.shrink(model, skip_inputs=True)
    agree(model, shrunk, draw)
    assert shrunk.after < shrunk.before
    stock = {type(layer).__module__ for layer in shrunk.model.layers}
    assert all(module.startswith("keras.") for module in stock)


def chain(*layers, shape=(4,)):
    """A Sequential of ones, whose kernels and biases a test then sets."""
    model = keras.Sequential([keras.Input(shape), *layers])
    for variable in model.weights:
        variable.assign(np.ones(variable.shape))
    return model


def kill_inputs(layer, *units, bias=1.0):
    """Takes all inputs from units; they have a constant, not 0."""
    kernel, biases = layer.get_weights()
    kernel[..., list(units)], biases[list(units)] = 0, bias
    layer.set_weights([kernel, biases])


def kill_outputs(layer, *inputs):
    kernel, biases = layer.get_weights()
    kernel[..., list(inputs), :] = 0
    layer.set_weights([kernel, biases])


def sizes(shrunk):
    return [after for _, after in shrunk.units.values()]


def check(model, skip_inputs=False):
    shrunk = export.shrink(model, skip_inputs=skip_inputs)
    assert shrunk.before == model.count_params()
    agree(model, shrunk, np.random.default_rng(0))
    return shrunk


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_dead_unit_takes_along_those_that_only_it_served(depth):
    model = chain(*(L.Dense(3, "relu") for _ in range(depth)), L.Dense(2))
    kill_inputs(model.layers[0], 0)
    for layer in model.layers[1:-1]:
        kernel, bias = layer.get_weights()
        # Unit 0 reads unit 0 alone.
        kernel[1:, 0] = 0
        layer.set_weights([kernel, bias])
    assert sizes(check(model)) == [*[2] * depth, 2]


def test_units_that_nobody_reads_take_along_those_that_only_they_read():
    model = chain(L.Dense(3, "relu"), L.Dense(3, "tanh"), L.Dense(2))
    kill_outputs(model.layers[2], 1)
    first, bias = model.layers[1].get_weights()
    first[0, [0, 2]] = 0  # unit 0 serves unit 1 alone
    model.layers[1].set_weights([first, bias])
    assert sizes(check(model)) == [2, 2, 2]


def test_a_layer_without_a_bias_gets_one_for_the_constants():
    model = chain(L.Dense(3, "sigmoid"), L.Dense(2, use_bias=False))
    kill_inputs(model.layers[0], 0, 2)
    shrunk = check(model)
    assert sizes(shrunk) == [1, 2]
    assert shrunk.after < shrunk.before


def test_inputs_that_no_weight_reads_are_skipped():
    model = chain(L.Dense(3, "relu"), L.Dense(2))
    kill_outputs(model.layers[0], 1, 3)
    assert check(model).after == check(model).before
    shrunk = check(model, skip_inputs=True)
    assert shrunk.before - shrunk.after == 2 * 3
    assert shrunk.model.input_shape == (None, 4)


def test_constants_pass_batch_normalisation_pooling_and_flatten():
    model = chain(
        L.Conv2D(4, 3),
        L.BatchNormalization(),
        L.ReLU(),
        L.MaxPooling2D(),
        L.Dropout(0.5),
        L.Conv2D(3, 2),
        L.AveragePooling2D(2, 1, padding="same"),
        L.Flatten(),
        L.Dense(2),
        shape=(8, 8, 2),
    )
    kill_inputs(model.layers[0], 0, 3, bias=0.5)
    kill_inputs(model.layers[5], 1)
    assert sizes(check(model)) == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("padding", "bias", "filters"),
    [("valid", 1.0, 2), ("same", 1.0, 3), ("same", -1.0, 2), ("same", 0.0, 2)],
)
def test_a_constant_that_is_padded_with_zeros_stays(padding, bias, filters):
    model = chain(
        L.Conv2D(3, 1, activation="relu"),
        L.Conv2D(2, 3, padding=padding),
        shape=(5, 5, 1),
    )
    kill_inputs(model.layers[0], 1, bias=bias)
    shrunk = check(model)
    assert sizes(shrunk) == [filters, 2]
    assert [("pads it with zeros" in line) for line in shrunk.stayed] == (
        [True] if filters == 3 else []
    )


def test_a_constant_behind_zero_padding_stays():
    model = chain(
        L.Conv2D(3, 1, activation="relu"),
        L.ZeroPadding2D(1, name="pad"),
        L.Conv2D(2, 3),
        shape=(5, 5, 1),
    )
    kill_inputs(model.layers[0], 1)
    shrunk = check(model)
    assert sizes(shrunk) == [3, 2]
    assert shrunk.stayed[0].endswith("it stays in line with others at 'pad'.")
    kill_inputs(model.layers[0], 1, bias=-1.0)
    assert sizes(check(model)) == [2, 2]


def residual(dead_in_shortcut):
    image = keras.Input((5,))
    x = L.Dense(4, "relu", name="shortcut")(image)
    y = L.Dense(4, name="branch")(x)
    model = keras.Model(
        image, L.Dense(2, name="head")(L.Add(name="add")([x, y]))
    )
    draw = np.random.default_rng(0)
    disturb(model, 1.0, draw)
    kill_inputs(model.get_layer("branch"), 0)
    if dead_in_shortcut:
        kill_inputs(model.get_layer("shortcut"), 0)
    return model


def test_what_is_dead_in_both_arms_of_an_add_goes():
    shrunk = check(residual(True))
    assert shrunk.units["shortcut"] == shrunk.units["branch"] == (4, 3)
    assert shrunk.stayed == ()


def test_what_is_added_to_a_living_unit_stays_and_says_so():
    shrunk = check(residual(False))
    assert shrunk.units["branch"] == (4, 4)
    assert shrunk.stayed == (
        "1 of 'branch': it stays in line with others at 'add'.",
    )


def test_concatenated_units_go_one_by_one():
    image = keras.Input((4,))
    arms = [L.Dense(3, "relu", name=f"arm{i}")(image) for i in (0, 1)]
    head = L.Dense(2, name="head")(L.Concatenate()(arms))
    model = disturb(keras.Model(image, head), 1.0, np.random.default_rng(0))
    kill_inputs(model.get_layer("arm0"), 1)
    kill_outputs(model.get_layer("head"), 3, 4)
    shrunk = check(model)
    assert shrunk.units["arm0"] == (3, 2)
    assert shrunk.units["arm1"] == (3, 1)


def test_a_layer_that_has_died_keeps_one_unit():
    model = chain(L.Dense(3, "relu"), L.Dense(2))
    kill_inputs(model.layers[0], 0, 1, 2)
    shrunk = check(model)
    assert sizes(shrunk) == [1, 2]
    assert shrunk.stayed[0].endswith("a layer keeps one unit at least.")


def test_layers_that_are_not_known_stay_whole_and_are_named():
    model = chain(L.Dense(3), L.LayerNormalization(name="norm"), L.Dense(2))
    kill_inputs(model.layers[0], 0)
    shrunk = check(model)
    assert sizes(shrunk) == [3, 3, 2]
    assert "'norm' (LayerNormalization) may use it" in shrunk.stayed[0]


def test_a_model_with_every_weight_stays_as_it_is():
    model = disturb(toy.convnet(), 1.0, np.random.default_rng(0))
    shrunk = check(model)
    assert shrunk.after == shrunk.before
    assert shrunk.stayed == ()
    x, _ = toy.digits(20)
    assert np.array_equal(shrunk.model(x), model(x))


def test_the_original_stays_as_it_is():
    model = masking.mask_model(toy.convnet())
    masking.set_masks(model, toy.random_masks(model, 0.1))
    before = [w.numpy() for w in model.weights], model.to_json()
    export.shrink(model)
    after = [w.numpy() for w in model.weights], model.to_json()
    assert all(map(np.array_equal, before[0], after[0]))
    assert before[1] == after[1]


def test_a_ticket_is_shrunk_with_its_trained_weights(tmp_path):
    ticket = sample_tickets.trained_ticket(toy.mlp(), density=0.08)
    shrunk = export.shrink(ticket)
    assert shrunk.after < shrunk.before
    agree(ticket.model(), shrunk, np.random.default_rng(0))


def test_a_shrunk_model_is_saved_and_loaded_by_keras_alone(tmp_path):
    model = disturb(toy.convnet(), 0.1, np.random.default_rng(0))
    shrunk = export.shrink(model).model
    shrunk.save(tmp_path / "shrunk.keras")
    loaded = keras.models.load_model(tmp_path / "shrunk.keras")
    x, _ = toy.digits(20)
    assert np.array_equal(loaded(x), shrunk(x))


@pytest.mark.parametrize("name", ["conv_2", "resnet_18"])
def test_the_papers_networks_shrink(name):
    model = models.build_model(name, input_shape=(32, 32, 3), classes=10)
    kernels = masking.kernels(model)
    draw = np.random.default_rng(0)
    for kernel in kernels.values():
        value = kernel.variable.numpy()
        value *= draw.random(value.shape) < 0.01
        kernel.variable.assign(value)
    shrunk = export.shrink(model)
    assert shrunk.after < shrunk.before
    x = draw.normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(
        shrunk.model(x, training=False), model(x, training=False), atol=1e-5
    )


@pytest.mark.parametrize("training", [True, "symbolic"])
def test_a_nested_model_called_in_training_stays_whole(training):
    inner = chain(L.Dense(3, "relu"), L.BatchNormalization(), L.Dense(3))
    tensor = keras.Input(inner.input_shape[1:])
    inputs, flag = tensor, training
    if training == "symbolic":
        flag = keras.Input((), batch_size=1, dtype="bool")
        inputs, flag = [tensor, flag], flag[0]
    x = inner(tensor, training=flag)
    model = keras.Model(inputs, L.Dense(2)(x))
    disturb(model, 1.0, np.random.default_rng(0))
    kill_inputs(inner.layers[0], 0)
    shrunk = export.shrink(model)
    x = np.random.default_rng(1).normal(size=(5, *tensor.shape[1:]))
    x = x.astype("float32")
    if training == "symbolic":
        x = [x, np.array([True])]
    expected, shrunk_outputs = model(x), shrunk.model(x)
    np.testing.assert_allclose(shrunk_outputs, expected, atol=1e-5)
    assert shrunk.after == shrunk.before


@keras.saving.register_keras_serializable("test_shrinking")
class Mine(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = L.Dense(3)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("deep", [False, True], ids=["beside", "within"])
def test_a_model_called_plainly_and_in_training_stays_one(deep):
    tensor, x = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model(tensor, L.Dense(4)(L.Dense(5, "relu")(tensor)))
    outer = keras.Model(tensor, inner(tensor)) if deep else inner
    total = L.Add()([outer(x), inner(x, training=True)])
    model = keras.Model(x, L.Dense(2)(total))
    draw = np.random.default_rng(0)
    disturb(model, 0.3, draw)
    shrunk = export.shrink(model)
    assert model.count_params() == shrunk.before
    agree(model, shrunk, draw)
    assert len(shrunk.model.weights) == len(model.weights)


def test_a_nested_subclassed_model_stays_whole_and_is_named():
    model = chain(L.Dense(4), Mine(name="mine"), L.Dense(2))
    kill_inputs(model.layers[0], 0)
    shrunk = check(model)
    assert shrunk.after == shrunk.before
    # A copy of a class whose configuration holds no name is numbered.
    pattern = r"'mine(_\d+)?' \(Mine\) is a model that is called as a whole"
    assert re.search(pattern, " ".join(shrunk.stayed))


def test_inputs_and_outputs_keep_their_names():
    inputs = {
        "b": keras.Input((3,), name="b"),
        "a": keras.Input((4,), name="a"),
    }
    outputs = {
        "z": L.Dense(2)(L.Dense(3, "relu")(inputs["b"])),
        "y": L.Dense(2)(inputs["a"]),
    }
    model = keras.Model(inputs, outputs)
    draw = np.random.default_rng(0)
    disturb(model, 0.4, draw)
    x = {"b": draw.normal(size=(5, 3)), "a": draw.normal(size=(5, 4))}
    x = {name: array.astype("float32") for name, array in x.items()}
    expected, shrunk_outputs = model(x), export.shrink(model).model(x)
    assert shrunk_outputs.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            shrunk_outputs[name], expected[name], atol=1e-5
        )


def test_a_list_of_one_output_stays_one():
    tensor = keras.Input((3,))
    model = keras.Model(tensor, [L.Dense(2)(tensor)])
    shrunk = export.shrink(model).model
    for network in (model, shrunk):
        assert isinstance(network.output, list)
        assert isinstance(network(tensor), list)


def test_a_subclassed_model_is_written_as_keras_does(tmp_path):
    model = Mine()
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    expected = model(x)
    model = masking.mask_model(model)
    path = export.keras_file(model, tmp_path / "mine.keras")
    loaded = keras.models.load_model(path)
    assert type(loaded) is Mine
    assert np.array_equal(loaded(x), expected)


def test_a_subclassed_model_cannot_be_shrunk():
    model = Mine()
    model(np.ones((1, 3)))
    with pytest.raises(ValueError, match="is subclassed.*Export it whole"):
        export.shrink(model)


def test_an_adapted_layer_stays_as_it_is():
    x = np.random.default_rng(0).normal(5, 3, size=(50, 4)).astype("float32")
    layer = L.Normalization()
    layer.adapt(x)
    model = keras.Sequential(
        [keras.Input((4,)), layer, L.Dense(6, "relu"), L.Dense(2)]
    )
    kill_inputs(model.layers[1], 0)
    shrunk = export.shrink(model)
    assert shrunk.after < shrunk.before
    np.testing.assert_allclose(shrunk.model(x), model(x), atol=1e-5)

"""Every network of `MODELS` against the paper's tables (Fig. 2, App. G-I)."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.core.masks import Masks
from tf_lottery.lottery import search
from tf_lottery.masking import (
    architecture_of,
    get_masks,
    kernels,
    mask_model,
    variables_by_path,
)
from tf_lottery.models import MODELS, build_model
from tf_lottery.pruning import keep_best
from tf_lottery.pruning.rates import rates_by_path


@dataclasses.dataclass(frozen=True)
class Row:
    """What the literature says of a network."""

    image: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]  # of every kernel, by layer
    weights: int  # in kernels
    convolutions: int  # of these, in convolutions
    others: int  # biases, batch normalisation
    least: int  # rows and columns of the smallest image
    rates: dict[str, float]
    allocation: str
    densities: tuple[float, ...]  # of levels 0, 1, ..., in percent


def convolutions(*filters):
    """Kernels conv1, conv2, ... of a chain with these numbers of filters."""
    pairs = zip((3, *filters), filters, strict=False)
    return {f"conv{i}": (3, 3, *p) for i, p in enumerate(pairs, 1)}


def dense(inputs, *units, names=("fc1", "fc2", "output")):
    pairs = zip((inputs, *units), units, strict=False)
    return dict(zip(names, pairs, strict=True))


def residual():
    found = {"conv1": (3, 3, 3, 16)}
    before = 16
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in (1, 2, 3):
            name = f"stage{stage}_block{block}"
            found[f"{name}_conv1"] = (3, 3, before, filters)
            if before != filters:
                found[f"{name}_shortcut"] = (1, 1, before, filters)
            found[f"{name}_conv2"] = (3, 3, filters, filters)
            before = filters
    return found | {"output": (64, 10)}


VGG = convolutions(*[64] * 2, *[128] * 2, *[256] * 4, *[512] * 8)

# Densities: the sum of size * (1 - rate)**level over all kernels. The labels of
# the paper's axes confirm them, except for Conv-6, where it prints 1.7M weights
# that its table does not give.
ROWS = {
    "lenet_300_100": Row(
        image=(28, 28, 1),
        shapes=dense(784, 300, 100, 10),
        weights=266_200,
        convolutions=0,
        others=410,
        least=1,
        rates={"output": 0.1},
        allocation="layerwise",
        densities=(100, 80.04, 64.06, 51.28, 41.05, 32.87, 26.32, 21.07),
    ),
    "conv_2": Row(
        image=(32, 32, 3),
        shapes=convolutions(64, 64) | dense(16_384, 256, 256, 10),
        weights=4_300_992,
        convolutions=38_592,
        others=650,
        least=2,
        rates={"conv": 0.1, "output": 0.1},
        allocation="layerwise",
        densities=(100, 80.10, 64.16, 51.41, 41.20, 33.02, 26.47, 21.23),
    ),
    "conv_4": Row(
        image=(32, 32, 3),
        shapes=convolutions(64, 64, 128, 128) | dense(8_192, 256, 256, 10),
        weights=2_425_024,
        convolutions=259_776,
        others=906,
        least=4,
        rates={"conv": 0.1, "output": 0.1},
        allocation="layerwise",
        densities=(100, 81.08, 65.84, 53.55, 43.63, 35.61, 29.13, 23.88),
    ),
    "conv_6": Row(
        image=(32, 32, 3),
        shapes=convolutions(64, 64, 128, 128, 256, 256)
        | dense(4_096, 256, 256, 10),
        weights=2_261_184,
        convolutions=1_144_512,
        others=1_418,
        least=8,
        rates={"conv": 0.15, "output": 0.1},
        allocation="layerwise",
        densities=(100, 82.54, 68.20, 56.39, 46.68, 38.67, 32.07, 26.61),
    ),
    "resnet_18": Row(
        image=(32, 32, 3),
        shapes=residual(),
        weights=270_896,
        convolutions=270_256,
        others=3_146,  # so that all are the 274K of Fig. 2
        least=1,
        rates={"*shortcut*": 0.0, "output": 0.0},
        allocation="global",
        densities=(100, 80.24, 64.43, 51.78, 41.66, 33.56, 27.09, 21.91),
    ),
    "vgg_19": Row(
        image=(32, 32, 3),
        shapes=VGG | dense(512, 10, names=["output"]),
        weights=20_024_000,
        convolutions=20_018_880,
        others=22_026,
        least=16,
        rates={"output": 0.0},
        allocation="global",
        densities=(100, 80.01, 64.01, 51.21, 40.98, 32.79, 26.23, 20.99),
    ),
}
IMAGES = [name for name in MODELS if name != "lenet_300_100"]
WITH_DROPOUT = ["conv_2", "conv_4", "conv_6"]
NORMALISED = ["resnet_18", "vgg_19"]

every_model = pytest.mark.parametrize("name", MODELS)
every_image_model = pytest.mark.parametrize("name", IMAGES)
every_dropout = pytest.mark.parametrize("name", WITH_DROPOUT)
every_normalised = pytest.mark.parametrize("name", NORMALISED)


@functools.cache
def network(name):
    """The network with its defaults, for tests that leave it as it is."""
    return build_model(name)


def images(name, count=4):
    draw = np.random.default_rng(0)
    return draw.normal(size=(count, *ROWS[name].image)).astype("float32")


def values(model):
    return {p: v.numpy() for p, v in variables_by_path(model).items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(value, other[path]) for path, value in one.items()
    )


def test_every_model_has_a_row():
    assert list(ROWS) == list(MODELS)


# What they are made of.


@every_model
def test_the_network_of_the_literature_has_its_weights(name):
    row, model = ROWS[name], network(name)
    assert model.name == name
    assert model.input_shape == (None, *row.image)
    assert model.output_shape == (None, 10)
    shapes = {p: k.variable.shape for p, k in kernels(model).items()}
    assert shapes == {f"{n}/kernel": shape for n, shape in row.shapes.items()}
    assert sum(map(np.prod, shapes.values())) == row.weights
    assert model.count_params() == row.weights + row.others


@every_model
def test_roles_tell_convolutions_dense_layers_and_the_output(name):
    found = kernels(network(name))
    assert {path: k.role for path, k in found.items()} == {
        f"{layer}/kernel": "output"
        if layer == "output"
        else {2: "dense", 4: "conv"}[len(shape)]
        for layer, shape in ROWS[name].shapes.items()
    }
    assert list(found)[-1] == "output/kernel"
    assert ROWS[name].convolutions == sum(
        np.prod(k.variable.shape) for k in found.values() if k.role == "conv"
    )


@every_model
def test_models_are_plain_keras_ending_in_logits(name):
    model = network(name)
    for layer in model.layers:
        assert type(layer).__module__.startswith("keras.")
    assert model.layers[-1].name == "output"
    assert model.layers[-1].activation is keras.activations.linear


@every_model
def test_input_shape_down_to_the_smallest_and_classes_are_honoured(name):
    shape = (ROWS[name].least, ROWS[name].least + 11, 2)
    model = build_model(name, input_shape=shape, classes=7)
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, 7)
    assert list(kernels(model)) == list(kernels(network(name)))
    logits = model(np.ones((2, *shape), "float32")).numpy()
    assert logits.shape == (2, 7)
    assert np.isfinite(logits).all()


@every_model
def test_every_model_can_be_masked_and_written_down(name):
    model = network(name)
    masked = mask_model(model)
    assert get_masks(masked).shapes == get_masks(model).shapes
    x = images(name, 1)
    assert np.array_equal(masked(x), model(x))
    assert architecture_of(model) is not None


# How they start.


@every_model
def test_a_seed_gives_its_weights_whatever_the_global_seed(name):
    one = values(network(name))
    keras.utils.set_random_seed(1)
    drawn = np.random.random()
    keras.utils.set_random_seed(1)
    assert same(values(build_model(name, seed=0)), one)
    assert np.random.random() == drawn


@every_model
def test_another_seed_gives_other_weights(name):
    other = values(build_model(name, seed=1))
    for path, kernel in kernels(network(name)).items():
        assert not np.array_equal(other[path], kernel.variable.numpy())


@every_model
def test_no_two_kernels_start_from_the_same_draws(name):
    starts = [
        tuple(np.sign(k.variable.numpy().ravel()[:50]))
        for k in kernels(network(name)).values()
    ]
    assert len(set(starts)) == len(starts)


@every_model
def test_kernels_start_from_gaussian_glorot(name):
    for kernel in kernels(network(name)).values():
        value = kernel.variable.numpy()
        *size, inputs, outputs = value.shape
        std = (2 / (np.prod(size) * (inputs + outputs))) ** 0.5
        error = 4 / value.size**0.5
        assert value.std() == pytest.approx(std, rel=error), kernel.path
        assert abs(value.mean()) < error * std, kernel.path
        # Normal, cut at two standard deviations; a uniform has kurtosis 1.8.
        assert np.mean(value**4) / value.var() ** 2 > 2.1, kernel.path


@every_model
def test_all_else_starts_at_zero_or_one(name):
    weights = values(network(name))
    for path in weights.keys() - kernels(network(name)).keys():
        variable = path.split("/")[-1]
        start = float(variable in ("gamma", "moving_variance"))
        assert np.unique(weights[path]).tolist() == [start], path


# What they compute: written out once more, from the weights by path.


def convolve(x, weights, name, strides=1):
    kernel = weights[f"{name}/kernel"]
    size = kernel.shape[0]
    x = np.pad(x, [(0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)])
    y = tf.nn.conv2d(x, kernel, strides, "VALID").numpy()
    return y + weights.get(f"{name}/bias", 0)


def normalise(x, weights, name):
    gamma, beta, mean, variance = (
        weights[f"{name}_norm/{variable}"]
        for variable in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def pool(x):
    images, rows, columns, channels = x.shape
    return x.reshape((images, rows // 2, 2, columns // 2, 2, channels)).max(
        axis=(2, 4)
    )


def multiply(x, weights, name):
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def relu(x):
    return np.maximum(x, 0)


def dense_net(x, weights):
    x = x.reshape((len(x), -1))
    for layer in ("fc1", "fc2"):
        x = relu(multiply(x, weights, layer))
    return multiply(x, weights, "output")


def conv_net(x, weights, modules):
    for module in range(1, modules + 1):
        for layer in (f"conv{2 * module - 1}", f"conv{2 * module}"):
            x = relu(convolve(x, weights, layer))
        x = pool(x)
    return dense_net(x, weights)


def vgg_net(x, weights):
    for layer in range(1, 17):
        name = f"conv{layer}"
        x = relu(normalise(convolve(x, weights, name), weights, name))
        if layer in (2, 4, 8, 12):
            x = pool(x)
    return multiply(x.mean(axis=(1, 2)), weights, "output")


def residual_net(x, weights):
    def layer(x, name, strides=1):
        return normalise(convolve(x, weights, name, strides), weights, name)

    x = relu(layer(x, "conv1"))
    for stage in (1, 2, 3):
        for block in (1, 2, 3):
            name = f"stage{stage}_block{block}"
            half = f"{name}_shortcut/kernel" in weights
            y = relu(layer(x, f"{name}_conv1", 2 if half else 1))
            y = layer(y, f"{name}_conv2")
            x = relu(y + (layer(x, f"{name}_shortcut", 2) if half else x))
    return multiply(x.mean(axis=(1, 2)), weights, "output")


NETWORKS = {
    "lenet_300_100": dense_net,
    "conv_2": functools.partial(conv_net, modules=1),
    "conv_4": functools.partial(conv_net, modules=2),
    "conv_6": functools.partial(conv_net, modules=3),
    "resnet_18": residual_net,
    "vgg_19": vgg_net,
}


@every_model
def test_logits_are_those_of_the_network_written_out(name):
    model, draw = build_model(name), np.random.default_rng(1)
    for path, variable in variables_by_path(model).items():
        if path.split("/")[-1] != "kernel":
            start = variable.numpy()
            variable.assign(start + draw.uniform(-0.3, 0.3, start.shape))
    x = images(name, 2)
    expected = NETWORKS[name](x, values(model))
    np.testing.assert_allclose(model(x), expected, rtol=1e-3, atol=1e-4)


@every_model
def test_gradients_reach_every_kernel(name):
    model = build_model(name)
    paths, variables = zip(
        *[(p, k.variable) for p, k in kernels(model).items()], strict=True
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(np.arange(4), model(images(name), training=True))
    gradients = tape.gradient(value, [v.value for v in variables])
    for path, gradient in zip(paths, gradients, strict=True):
        assert np.isfinite(gradient).all(), path
        # A dead unit takes its inputs along; whole kernels do not die.
        assert np.mean(gradient.numpy() != 0) > 0.2, path


@every_model
def test_a_call_outside_training_changes_nothing(name):
    model = network(name)
    before = values(model)
    one, other = model(images(name)), model(images(name))
    assert np.array_equal(one, other)
    assert same(values(model), before)


@pytest.mark.parametrize("name", [n for n in MODELS if n not in NORMALISED])
def test_without_normalisation_and_dropout_training_changes_no_output(name):
    model, x = network(name), images(name)
    before = values(model)
    assert np.array_equal(model(x, training=True), model(x))
    assert same(values(model), before)


# Batch normalisation.


@every_normalised
def test_every_convolution_is_normalised_and_has_no_bias(name):
    paths = values(network(name)).keys()
    for path, kernel in kernels(network(name)).items():
        layer = path.removesuffix("/kernel")
        assert (f"{layer}_norm/moving_mean" in paths) == (kernel.role == "conv")
        assert (f"{layer}/bias" in paths) == (kernel.role == "output")


@every_normalised
def test_training_moves_every_moving_statistic(name):
    model, x = build_model(name), images(name)
    before = values(model)
    in_training = model(x, training=True)
    after = values(model)
    for path in before:
        moved = not np.array_equal(before[path], after[path])
        assert moved == ("moving_" in path), path
    assert not np.array_equal(in_training, model(x))


@every_normalised
def test_a_tenth_of_each_batch_goes_into_the_moving_statistics(name):
    model, x = build_model(name), images(name)
    first = convolve(x, values(model), "conv1")
    model(x, training=True)
    after = values(model)
    for variable, expected in (
        ("moving_mean", 0.1 * first.mean(axis=(0, 1, 2))),
        ("moving_variance", 0.9 + 0.1 * first.var(axis=(0, 1, 2))),
    ):
        np.testing.assert_allclose(
            after[f"conv1_norm/{variable}"], expected, rtol=1e-4, atol=1e-6
        )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


# Dropout.


@every_dropout
def test_dropout_changes_nothing_outside_training(name):
    plain, model = network(name), build_model(name, dropout=0.5)
    assert np.array_equal(model(images(name)), plain(images(name)))
    assert list(kernels(model)) == list(kernels(plain))


@every_dropout
def test_no_dropout_means_no_dropout_layers(name):
    assert same(values(build_model(name, dropout=0.0)), values(network(name)))
    assert not any("dropout" in layer.name for layer in network(name).layers)


@every_dropout
def test_dropout_drops_that_share_of_the_hidden_dense_layers(name):
    model = build_model(name, dropout=0.25)
    names = [layer.name for layer in model.layers]
    assert names[-5:] == ["fc1", "fc1_dropout", "fc2", "fc2_dropout", "output"]
    dropped = []
    for layer in ("fc1", "fc2"):
        kept = keras.ops.ones((100, 256))
        kept = model.get_layer(f"{layer}_dropout")(kept, training=True).numpy()
        dropped.append(kept == 0)
        assert dropped[-1].mean() == pytest.approx(0.25, abs=0.02)
        assert np.allclose(kept[kept != 0], 4 / 3)
    assert not np.array_equal(*dropped)


@every_dropout
def test_a_seed_gives_its_dropout_and_every_step_its_own(name):
    x = images(name)
    models = [build_model(name, seed=s, dropout=0.5) for s in (3, 3, 4)]
    models[2].set_weights(models[0].get_weights())
    steps = [
        [model(x, training=True).numpy() for _ in range(2)] for model in models
    ]
    assert np.array_equal(steps[0], steps[1])
    assert not np.array_equal(steps[0][0], steps[0][1])
    assert not np.array_equal(steps[0][0], steps[2][0])


@pytest.mark.parametrize("rate", [-0.1, 1, 50, float("nan")])
def test_a_dropout_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\); got"):
        build_model("conv_2", dropout=rate)


# Pruning.


@every_model
def test_levels_have_the_papers_densities(name):
    row, found = ROWS[name], kernels(network(name))
    masks = Masks.ones({p: k.variable.shape for p, k in found.items()})
    how = search.Pruning(
        len(row.densities) - 1,
        rates_by_path(found, 0.2, row.rates),
        allocation=row.allocation,
    )
    densities = []
    for level in range(len(row.densities)):
        kept = search.budgets(masks, how, level)
        pruned = {path for group in kept for path in group}
        whole = sum(n for p, n in masks.counts.items() if p not in pruned)
        densities.append(100 * (sum(kept.values()) + whole) / masks.size)
    assert densities == pytest.approx(list(row.densities), abs=0.0051)


def test_the_shortcut_pattern_finds_exactly_the_shortcuts():
    found = kernels(network("resnet_18"), include="*shortcut*")
    assert {p: k.variable.shape for p, k in found.items()} == {
        "stage2_block1_shortcut/kernel": (1, 1, 16, 32),
        "stage3_block1_shortcut/kernel": (1, 1, 32, 64),
    }


def test_the_papers_rates_leave_shortcuts_and_output_of_resnet_whole():
    row, found = ROWS["resnet_18"], kernels(network("resnet_18"))
    scores = {p: np.abs(k.variable.numpy()) for p, k in found.items()}
    masks = Masks.ones({p: s.shape for p, s in scores.items()})
    rates = rates_by_path(found, 0.2, row.rates)
    how = search.Pruning(2, rates, allocation="global")
    pruned = keep_best(scores, masks, search.budgets(masks, how, 2))
    whole = {p for p, density in pruned.densities.items() if density == 1}
    assert whole == {
        "output/kernel",
        "stage2_block1_shortcut/kernel",
        "stage3_block1_shortcut/kernel",
    }
    assert pruned.kept == 171_326 + 3_200


# The sweeps of LeNet.


@pytest.mark.parametrize("units", [(25, 9), (900, 300)])
def test_lenet_takes_other_numbers_of_units(units):
    model = build_model("lenet_300_100", units=units)
    assert model.name == "lenet_{}_{}".format(*units)
    assert {p: k.variable.shape for p, k in kernels(model).items()} == {
        f"{layer}/kernel": shape
        for layer, shape in dense(784, *units, 10).items()
    }


def test_lenet_starts_from_a_gaussian_of_the_sigma_given():
    model = build_model("lenet_300_100", sigma=0.4)
    for kernel in kernels(model).values():
        value = kernel.variable.numpy()
        assert value.std() == pytest.approx(0.4, rel=0.1)
        # Not cut at two standard deviations.
        assert abs(value).max() > 0.4 * 2.5
    other = values(build_model("lenet_300_100", sigma=0.4, seed=1))
    assert not np.array_equal(other["fc1/kernel"], values(model)["fc1/kernel"])


@pytest.mark.parametrize("sigma", [0, -0.1, float("nan")])
def test_a_sigma_not_above_zero_is_refused(sigma):
    with pytest.raises(ValueError, match="`sigma` must be above 0; got"):
        build_model("lenet_300_100", sigma=sigma)


# What is refused.


def test_an_unknown_model_lists_the_known():
    with pytest.raises(
        ValueError, match="Unknown model 'lenet'.*Known: lenet_300_100"
    ):
        build_model("lenet")


def test_an_unknown_option_lists_the_known():
    with pytest.raises(
        ValueError,
        match="Unknown option of conv_2 'dropot'. Did you mean 'dropout'. "
        "Known: input_shape, classes, seed, dropout.",
    ):
        build_model("conv_2", dropot=0.5)
    with pytest.raises(ValueError, match="Unknown option of resnet_18 'units'"):
        build_model("resnet_18", units=(3, 2))


@pytest.mark.parametrize("name", [n for n in IMAGES if ROWS[n].least > 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_an_image_that_poolings_leave_nothing_of_is_refused(name, axis):
    shape = [64, 64, 3]
    shape[axis] = ROWS[name].least - 1
    with pytest.raises(
        ValueError,
        match=f"of {name} must have {ROWS[name].least} rows .* Pad or resize",
    ):
        build_model(name, input_shape=tuple(shape))


@every_image_model
@pytest.mark.parametrize(
    "shape",
    [(784,), (28, 28), (1, 28, 28, 1), (0, 32, 3), (32, 32, 0), 32, "32,32,3"]
    + [(None, None, 3), (32.0, 32, 3), ("32", 32, 3)],
)
def test_what_is_no_image_is_refused(name, shape):
    with pytest.raises(
        ValueError,
        match=rf"of {name} must be \(rows, columns, channels\).*got .*channel",
    ):
        build_model(name, input_shape=shape)


@pytest.mark.parametrize("shape", [784, (0,), (28, None), "28", (28, -1, 1)])
def test_lenet_refuses_what_is_no_shape(shape):
    with pytest.raises(
        ValueError, match="of lenet_300_100 must be whole numbers.*got .*batch"
    ):
        build_model("lenet_300_100", input_shape=shape)


@pytest.mark.parametrize("shape", [(784,), [28, 28], (np.int64(28), 28, 1)])
def test_lenet_flattens_examples_of_any_shape(shape):
    model = build_model("lenet_300_100", input_shape=shape)
    assert model.count_params() == 266_610

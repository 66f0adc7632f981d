import keras
import numpy as np
import pytest

from tf_lottery.masking import kernels, variables_by_path
from tf_lottery.models import MODELS, build_model

# Name: default input shape, default classes, kernel weights, other weights.
ROWS = {
    "lenet_300_100": ((28, 28, 1), 10, 266_200, 410),
}
every_model = pytest.mark.parametrize("name", MODELS)


def values(model):
    return {p: v.numpy() for p, v in variables_by_path(model).items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(value, other[path]) for path, value in one.items()
    )


def test_every_model_has_a_row():
    assert set(ROWS) == set(MODELS)


@every_model
def test_the_network_of_the_literature_has_its_weights(name):
    shape, classes, kernel_weights, others = ROWS[name]
    model = build_model(name)
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, classes)
    sizes = [k.variable.numpy().size for k in kernels(model).values()]
    assert sum(sizes) == kernel_weights
    assert model.count_params() == kernel_weights + others
    logits = model(np.zeros((2, *shape), "float32"))
    assert logits.shape == (2, classes)


@every_model
def test_a_seed_gives_its_weights_and_another_gives_others(name):
    weights = [values(build_model(name, seed=seed)) for seed in (3, 3, 4)]
    assert same(weights[0], weights[1])
    for kernel in kernels(build_model(name)):
        assert not np.array_equal(weights[0][kernel], weights[2][kernel])


@every_model
def test_initialisation_ignores_and_leaves_the_global_seed(name):
    keras.utils.set_random_seed(1)
    one = values(build_model(name))
    drawn = np.random.random()
    keras.utils.set_random_seed(1)
    assert np.random.random() == drawn
    assert same(values(build_model(name)), one)


@every_model
def test_no_two_kernels_start_from_the_same_draws(name):
    starts = [
        tuple(np.sign(k.variable.numpy().ravel()[:50]))
        for k in kernels(build_model(name)).values()
    ]
    assert len(set(starts)) == len(starts)


@every_model
def test_input_shape_and_classes_are_honoured(name):
    model = build_model(name, input_shape=(32, 32, 3), classes=7)
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 7)
    assert list(kernels(model)) == list(kernels(build_model(name)))


@every_model
def test_models_are_plain_keras_ending_in_logits(name):
    model = build_model(name)
    for layer in model.layers:
        assert type(layer).__module__.startswith("keras.")
    assert model.layers[-1].activation is keras.activations.linear
    assert [p for p, k in kernels(model).items() if k.role == "output"] == [
        list(kernels(model))[-1]
    ]


def test_lenet_starts_from_gaussian_glorot_and_zero_biases():
    model = build_model("lenet_300_100")
    weights = values(model)
    kernel = weights["fc1/kernel"]
    assert kernel.std() == pytest.approx((2 / (784 + 300)) ** 0.5, rel=0.05)
    assert abs(kernel.mean()) < 1e-3
    # Normal, cut at two standard deviations; a uniform has kurtosis 1.8.
    assert np.mean(kernel**4) / kernel.var() ** 2 > 2.2
    assert not any(v.any() for p, v in weights.items() if p.endswith("bias"))


def test_lenet_layers_and_activations():
    model = build_model("lenet_300_100")
    assert {p: k.variable.shape for p, k in kernels(model).items()} == {
        "fc1/kernel": (784, 300),
        "fc2/kernel": (300, 100),
        "output/kernel": (100, 10),
    }
    activations = [model.get_layer(n).activation for n in ("fc1", "fc2")]
    assert activations == [keras.activations.relu] * 2


def test_an_unknown_model_lists_the_known():
    with pytest.raises(
        ValueError, match="Unknown model 'lenet'.*Known: lenet_300_100"
    ):
        build_model("lenet")

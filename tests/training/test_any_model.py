"""Models of every kind are masked, searched, filed, or refused in one line."""

import keras
import numpy as np
import pytest

from tf_lottery.core.masks import Masks
from tf_lottery.masking import (
    coverage_of,
    get_masks,
    kernels,
    mask_model,
    set_masks,
    strip_masks,
    variables_by_path,
)
from tf_lottery.masking.conversion import mask_weight
from tf_lottery.masking.layers import CATALOGUE
from tf_lottery.masking.masked_layer import MaskedKernel
from tf_lottery.ticket_search import TicketSearch

L = keras.layers
IMAGE = (8, 8, 1)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@keras.saving.register_keras_serializable("tests")
class Positions(L.Layer):
    """A layer of the user's, with a matrix of its own."""

    def build(self, shape):
        self.table = self.add_weight(name="table", shape=shape[1:])

    def call(self, x):
        return x + self.table


def vit():
    image = keras.Input(IMAGE)
    x = L.Conv2D(8, 4, strides=4, name="patches")(image)
    x = Positions(name="positions")(L.Reshape((4, 8))(x))
    y = L.LayerNormalization()(x)
    x = x + L.MultiHeadAttention(2, 4, name="attention")(y, y)
    y = L.Dense(16, "gelu", name="up")(L.LayerNormalization()(x))
    x = L.GlobalAveragePooling1D()(x + L.Dense(8, name="down")(y))
    return keras.Model(image, L.Dense(3, name="head")(x))


def gru():
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            L.Embedding(11, 6, mask_zero=True),
            L.Bidirectional(L.GRU(4)),
            L.Dropout(0.2),
            L.Dense(3),
        ]
    )


def backbone():
    """Depthwise and pointwise convolutions, as MobileNet and Xception have."""
    image = keras.Input(IMAGE)
    x = L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3)(image)))
    x = L.ReLU()(L.SeparableConv2D(4, 3, strides=2)(x))
    x = L.TimeDistributed(L.Dense(3))(L.Conv2DTranspose(2, 2)(x))
    return keras.Model(image, L.Dense(3)(L.Flatten()(x)))


class Shared(keras.Model):
    """A subclassed model that calls one layer twice, and Keras can copy."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.flat, self.first = L.Flatten(), L.Dense(units)
        self.tied = L.Dense(units, "tanh")
        self.inner = keras.Sequential([L.Dense(units, name="deep")])
        self.top = L.Dense(3)

    def call(self, x):
        return self.top(
            self.inner(self.tied(self.tied(self.first(self.flat(x)))))
        )


class Hub(keras.Model):
    """A graph whose configuration is its constructor's, as keras-hub's are."""

    def __init__(self, width, **kwargs):
        image = keras.Input(IMAGE)
        inner = keras.Sequential([L.Conv2D(width, 3), L.GroupNormalization(2)])
        x = L.GlobalMaxPooling2D()(inner(image))
        super().__init__(image, L.Dense(3)(x), **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


class OwnStep(Shared):
    def train_step(self, data):
        return super().train_step(data)


class OwnLayers(keras.Model):
    """What Keras cannot copy: it does not know the argument."""

    def __init__(self, top):
        super().__init__()
        self.top = top

    def call(self, x):
        return self.top(x)


def called(model):
    model(np.zeros((1, *IMAGE), "float32"))
    return model


MODELS = {
    "vit": (
        vit,
        "patches attention/query attention/key attention/value "
        "attention/attention_output up down head",
    ),
    "gru": (
        gru,
        "embedding/embeddings "
        "bidirectional/forward_gru/gru_cell/kernel "
        "bidirectional/forward_gru/gru_cell/recurrent_kernel "
        "bidirectional/backward_gru/gru_cell/kernel "
        "bidirectional/backward_gru/gru_cell/recurrent_kernel dense",
    ),
    "backbone": (
        backbone,
        "depthwise_conv2d separable_conv2d/depthwise_kernel "
        "separable_conv2d/pointwise_kernel conv2d_transpose "
        "time_distributed/dense dense",
    ),
    "hub": (lambda: Hub(4), "sequential/conv2d dense"),
    "subclassed": (
        lambda: called(Shared()),
        "dense dense_1 sequential/deep dense_2",
    ),
}
SUBCLASSED = {"subclassed": Shared, "hub": Hub}
every_model = pytest.mark.parametrize("name", MODELS)


def paths_of(name):
    words = MODELS[name][1].split()
    ends = ("kernel", "embeddings")
    return [w if w.endswith(ends) else f"{w}/kernel" for w in words]


def data(name, examples=48):
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=examples)
    if name == "gru":
        return rng.integers(11, size=(examples, 5)), y
    return rng.normal(size=(examples, *IMAGE)).astype("float32"), y


def half_masks(model, seed=1):
    rng = np.random.default_rng(seed)
    return Masks(
        {p: rng.random(m.shape) < 0.5 for p, m in get_masks(model).items()}
    )


def obeys(model, masks):
    variables = variables_by_path(model)
    return all(not np.any(variables[p].numpy()[~m]) for p, m in masks.items())


# The kernels of real models.


@every_model
def test_every_kernel_is_found_wherever_it_sits(name):
    # Whatever else this process has named before.
    for _ in range(2):
        assert list(kernels(MODELS[name][0]())) == paths_of(name)


@every_model
def test_a_masked_model_is_the_model_and_strips_to_it(name):
    model = MODELS[name][0]()
    x, _ = data(name, 4)
    masked = mask_model(model)
    assert type(masked) is type(model)
    assert np.array_equal(masked(x), model(x))
    masks = half_masks(masked)
    set_masks(masked, masks)
    assert get_masks(masked) == masks
    assert not np.allclose(masked(x), model(x))
    assert get_masks(model).density == 1
    again = mask_model(masked)
    assert get_masks(again) == masks
    stripped = strip_masks(masked)
    assert np.array_equal(stripped(x), masked(x))
    kinds = {type(layer) for layer in stripped._flatten_layers()}
    assert kinds == {type(layer) for layer in model._flatten_layers()}
    assert obeys(stripped, masks)


@pytest.mark.slow
@every_model
def test_three_levels_are_found_and_the_ticket_trains_in_plain_fit(name):
    build, _ = MODELS[name]
    model, (x, y) = build(), data(name)
    search = TicketSearch(model, levels=3, rate=0.3)
    search.compile(keras.optimizers.Adam(1e-2), LOSS)
    search.fit(
        x,
        y,
        batch_size=16,
        length="3it",
        evaluate_every=3,
        validation_data=(x, y),
        verbose=False,
    )
    assert [t.level for t in search.tickets] == [0, 1, 2, 3]
    ticket = search.tickets[-1]
    assert ticket.density == pytest.approx(0.7**3, abs=0.02)
    for before, after in zip(search.tickets, search.tickets[1:], strict=False):
        assert all(np.all(m <= before.masks[p]) for p, m in after.masks.items())
        for path, mask in after.masks.items():
            assert not np.any(after.trained[path][~mask])
    assert (ticket.architecture is None) == (name in SUBCLASSED)

    subnet = ticket.build(model if ticket.architecture is None else None)
    assert get_masks(subnet) == ticket.masks
    subnet.compile(keras.optimizers.Adam(1e-2), LOSS, jit_compile=False)
    start = {p: v.numpy() for p, v in variables_by_path(subnet).items()}
    subnet.fit(x, y, 16, verbose=0)
    assert obeys(subnet, ticket.masks)
    trained = {p: v.numpy() for p, v in variables_by_path(subnet).items()}
    head = list(ticket.masks)[-1]
    assert np.any(trained[head] != start[head])


@pytest.mark.slow
def test_a_mobilenet_of_keras_is_searched():
    model = keras.applications.MobileNet(
        (32, 32, 3), 0.25, weights=None, classes=3, classifier_activation=None
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 32, 32, 3)), rng.integers(3, size=40)
    search = TicketSearch(model, levels=3, rate=0.3)
    search.compile(keras.optimizers.Adam(1e-3), LOSS)
    search.fit(x, y, batch_size=20, length="4it", verbose=False)
    assert len(search.tickets[-1].masks) == 28
    assert search.tickets[-1].density == pytest.approx(0.7**3, abs=0.01)
    assert obeys(search.tickets[-1].build(), search.tickets[-1].masks)


# An ordinary Keras model.


@every_model
def test_files_and_clones_keep_masks_and_cross_to_plain(name, tmp_path):
    model = MODELS[name][0]()
    x, _ = data(name, 4)
    masked = mask_model(model)
    set_masks(masked, half_masks(masked))
    outputs = masked(x)
    masked.save_weights(tmp_path / "m.weights.h5")
    model.load_weights(tmp_path / "m.weights.h5")
    assert np.array_equal(model(x), outputs)

    masked.save(tmp_path / "m.keras")
    scope = {cls.__name__: cls for cls in SUBCLASSED.values()}
    with keras.saving.custom_object_scope(scope):
        loaded = keras.models.load_model(tmp_path / "m.keras")
    assert np.array_equal(loaded(x), outputs)
    if name not in SUBCLASSED:  # their own code builds plain layers
        assert get_masks(loaded) == get_masks(masked)
        clone = keras.models.clone_model(masked)
        clone.load_weights(tmp_path / "m.weights.h5")
        assert np.array_equal(clone(x), outputs)
        assert get_masks(clone) == get_masks(masked)


def test_a_train_step_of_ones_own_trains_masked_layers():
    model = mask_model(called(OwnStep()))
    assert type(model) is OwnStep
    masks = half_masks(model)
    set_masks(model, masks)
    model.compile("adam", LOSS, jit_compile=False)
    model.fit(*data("subclassed"), verbose=0)
    assert obeys(model, masks)


def test_what_is_frozen_stays_so_where_no_configuration_says_it():
    model = called(Shared())
    model.tied.trainable = False
    model.inner.get_layer("deep").trainable = False
    masked = mask_model(model)
    paths = {p for p, v in variables_by_path(masked).items() if v.trainable}
    assert not masked.tied.trainable
    assert len(masked.trainable_variables) == len(model.trainable_variables)
    assert "dense/kernel" in paths


def test_a_model_that_keras_cannot_copy_is_masked_itself():
    model = called(OwnLayers(L.Dense(3)))
    with pytest.raises(
        ValueError, match=r"\(OwnLayers\) cannot be copied.*copy"
    ):
        mask_model(model)
    assert mask_model(model, copy=False) is model
    assert isinstance(model.top, MaskedKernel)
    masks = half_masks(model)
    set_masks(model, masks)
    assert obeys(model, masks)
    assert strip_masks(model, copy=False) is model
    assert type(model.top) is L.Dense
    assert obeys(model, masks)


def test_tied_kernels_share_one_mask():
    class Tied(L.Layer):
        def __init__(self, source):
            super().__init__()
            self.source, self.w = source, source.kernel

        def call(self, x):
            return x @ self.w

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = L.Dense(4)
            self.first.build((None, 4))
            self.second = Tied(self.first)

        def call(self, x):
            return self.second(self.first(x))

    model = Net()
    model(np.ones((1, 4)))
    assert list(kernels(model)) == ["dense/kernel"]
    model = mask_model(model)
    mask = np.eye(4, dtype=bool)
    set_masks(model, Masks({"dense/kernel": mask}))
    assert np.array_equal(model.second.w_mask, mask)
    assert not np.any(model.second.w[~mask])
    assert get_masks(model).kept == 4


# What is masked, and what not.


@pytest.mark.slow
def test_layers_of_ones_own_are_masked_by_the_name_of_their_variable(tmp_path):
    model = mask_model(vit(), include=["positions/table", "head/bias", "up/*"])
    assert {p for p, m in get_masks(model).items()} >= {
        "positions/table",
        "head/bias",
        "up/kernel",
    }
    layer = model.get_layer("positions")
    mask = np.arange(32).reshape(4, 8) % 2 == 0
    layer.table_mask.assign(mask)
    model.get_layer("head").bias_mask.assign([True, False, True])
    model.compile("adam", LOSS, jit_compile=False)
    model.fit(*data("vit"), verbose=0)
    assert not np.any(variables_by_path(model)["positions/table"][~mask])
    assert np.all(layer.table.numpy()[mask] != 0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    x, _ = data("vit", 4)
    assert np.array_equal(loaded(x), model(x))
    assert get_masks(loaded) == get_masks(model)
    clone = keras.models.clone_model(loaded)
    assert get_masks(clone).keys() == get_masks(model).keys()
    assert get_masks(mask_model(loaded)) == get_masks(model)
    assert type(strip_masks(loaded).get_layer("positions")) is Positions


def test_a_layer_masked_in_part_is_filed_as_such(tmp_path):
    path = "separable_conv2d/depthwise_kernel"
    model = mask_model(backbone(), include=[path])
    masks = Masks({path: half_masks(model)[path]})
    set_masks(model, masks)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    set_masks(loaded, masks)  # refuses masks but of all that are masked
    assert get_masks(loaded) == get_masks(model)
    whole = mask_model(loaded, include=["separable_conv2d/*"])
    (layer,) = [x for x in whole.layers if isinstance(x, L.SeparableConv2D)]
    assert type(layer) is CATALOGUE[L.SeparableConv2D]


def test_a_search_prunes_variables_that_are_named():
    x, y = data("vit")
    search = TicketSearch(vit(), 1, 0.5, include=["positions/table"])
    search.compile("adam", LOSS)
    search.fit(x, y, length="2it", batch_size=16, verbose=False)
    assert search.tickets[1].masks.counts == {"positions/table": 16}


@pytest.mark.slow
def test_the_masks_of_a_masked_model_hold_from_level_0_on():
    x, y = data("vit")
    model = mask_model(vit())
    masks = half_masks(model)
    set_masks(model, masks)
    before = {p: v.numpy() for p, v in variables_by_path(model).items()}
    search = TicketSearch(model, 1, 0.5)
    search.compile("adam", LOSS)
    search.fit(x, y, length="2it", batch_size=16, verbose=False)
    dense, ticket = search.tickets
    assert dense.masks == masks
    for path, mask in masks.items():
        assert not np.any(dense.trained[path][~mask])
        assert np.all(ticket.masks[path] <= mask)
    for path, variable in variables_by_path(model).items():
        assert np.array_equal(variable, before[path])


def test_the_coverage_says_of_each_matrix_whether_and_why_not(capsys):
    model = vit()
    model.get_layer("patches").trainable = False
    search = TicketSearch(model, 0, exclude="attention/*")
    assert search.coverage == coverage_of(model, exclude="attention/*")
    lines = [str(row) for row in search.coverage]
    assert lines[:3] == [
        "patches/kernel (4, 4, 1, 8) conv not masked: frozen (set `trainable` "
        "of layer 'patches')",
        "positions/table (4, 8)  not masked: no kernel of a Keras layer; "
        "include can name it",
        "attention/query/kernel (8, 2, 4) dense not masked: left out by "
        "include or exclude",
    ]
    assert lines[-1] == "head/kernel (8, 3) output masked"
    x, y = data("vit")
    search.compile("adam", LOSS)
    search.fit(x, y, batch_size=16, length="1it")
    assert capsys.readouterr().out.startswith("\n".join(lines))


def test_roles_tell_embeddings_and_recurrent_kernels():
    roles = [kernel.role for kernel in kernels(gru()).values()]
    assert roles == [
        "embedding",
        "dense",
        "recurrent",
        "dense",
        "recurrent",
        "output",
    ]
    assert next(iter(kernels(backbone()).values())).role == "conv"


# Bad input: one line each.


def adapted():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3), L.Dense(2)])
    model.layers[0].enable_lora(2)
    return model


def quantised():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    model.layers[0].quantize("int8")
    return model


class InList(L.Layer):
    def build(self, shape):
        self.all = [self.add_weight(name="w", shape=(shape[-1], 3))]

    def call(self, x):
        return x @ self.all[0]


def in_list():
    return keras.Sequential([keras.Input((4,)), InList(name="mine")])


def spectral():
    layer = L.SpectralNormalization(L.Dense(3))
    return keras.Sequential([keras.Input((4,)), layer])


@pytest.mark.parametrize(
    ("build", "include", "message"),
    [
        (adapted, "dense/kernel", "it is frozen under LoRA"),
        (quantised, None, "'dense/kernel' is quantised"),
        (
            in_list,
            None,
            r"no kernel to mask.*include=\['path'\]: it has mine/w",
        ),
        (in_list, "mine/w", "'mine/w' is in no attribute of a layer"),
        (
            in_list,
            "mine/v",
            "'mine/v' matches no kernel. Did you mean 'mine/w'",
        ),
        (spectral, None, "is overwritten by SpectralNormalization"),
    ],
)
def test_what_cannot_be_masked_is_refused(build, include, message):
    with pytest.raises(ValueError, match=message) as caught:
        mask_model(build(), include)
    assert "\n" not in str(caught.value)


def test_a_masked_layer_is_quantised_once_stripped():
    model = mask_model(keras.Sequential([keras.Input((4,)), L.Dense(3)]))
    set_masks(model, half_masks(model))
    with pytest.raises(ValueError, match="'dense.*' is masked and cannot be q"):
        model.layers[0].quantize("int8")
    mask = get_masks(model)["dense/kernel"]
    layer = strip_masks(model).layers[0]
    layer.quantize("int8")
    assert not np.any(layer._kernel.numpy()[~mask])


def test_lora_on_a_masked_layer_adapts_survivors_only():
    model = mask_model(keras.Sequential([keras.Input((4,)), L.Dense(3)]))
    layer = model.layers[0]
    mask = np.arange(12).reshape(4, 3) % 2 == 0
    set_masks(model, Masks({"dense/kernel": mask}))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones((2, 3)))
    assert not np.any(layer.kernel[~mask])
    assert np.all(layer.kernel.numpy()[mask] != layer._kernel.numpy()[mask])
    for refused in (strip_masks, lambda model: TicketSearch(model, 0)):
        with pytest.raises(ValueError, match="is masked under LoRA"):
            refused(keras.Sequential([model, L.Dense(2)]))


def test_a_rate_that_leaves_a_small_layer_nothing_trains_nothing():
    model = keras.Sequential([keras.Input((1,)), L.Dense(1), L.Dense(9)])
    x = np.ones((4, 1))
    search = TicketSearch(model, 1, 0.9)
    search.compile("sgd", "mse", metrics=())
    with pytest.raises(ValueError, match="No weight of dense/kernel would be"):
        search.fit(x, np.ones((4, 9)), 2, length="1it", verbose=False)
    assert search.tickets == []


@keras.saving.register_keras_serializable("tests")
class MaskedPositions(MaskedKernel, Positions):
    masked_weights = ("table",)


def test_a_masked_layer_of_ones_own_is_filed_with_its_masks(tmp_path):
    model = keras.Sequential([keras.Input((4, 3)), MaskedPositions()])
    masks = Masks({"masked_positions/table": np.eye(4, 3, dtype=bool)})
    set_masks(model, masks)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert get_masks(loaded) == masks
    assert obeys(loaded, masks)
    assert type(strip_masks(loaded).layers[0]) is Positions


def test_masking_a_weight_twice_changes_nothing():
    layer = L.Dense(2)
    layer.build((None, 3))
    mask_weight(layer, "kernel")
    layer.kernel_mask.assign(np.zeros((3, 2), bool))
    mask_weight(layer, "kernel")
    assert not np.any(layer.kernel_mask)
    assert not np.any(layer.kernel)

"""Every layer of Keras with state, through every verb that copies a model."""

import copy
import dataclasses
import functools
import inspect
import json
import pickle
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lottery import controls, data, masking
from tf_lottery.core.duration import Duration
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.ticket_search import TicketSearch
from tf_lottery.training import Job, Recipe, State, Trainer, checkpoint
from tf_lottery.training.backends.compiled_steps import compiles_with_xla
from tf_lottery.training.state import values

L = keras.layers
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(3, 2, (6, 4)).astype("float32")
STEPS = RNG.normal(size=(6, 3, 4)).astype("float32")
IMAGES = RNG.normal(size=(6, 4, 4, 2)).astype("float32")
VOLUMES = RNG.normal(size=(6, 3, 4, 4, 2)).astype("float32")
INTEGERS = RNG.integers(7, size=(6, 3))
STRINGS = tf.constant([["a b"], ["c"], ["b c"], ["a"], ["é a b"], ["d"]])
WORDS = tf.constant([["a"], ["c"], ["c"], ["b"], ["é"], ["d"]])

serializable = keras.saving.register_keras_serializable("test_copies")


class Shaped(L.Layer):
    def compute_output_shape(self, shape):
        return shape


@serializable
class Counted(Shaped):
    """Keeps what `adapt` counted in a store of its own."""

    shift = None

    def adapt(self, x):
        self.shift = np.asarray(x).mean(axis=0)

    def save_own_variables(self, store):
        if self.shift is not None:
            store["shift"] = self.shift

    def load_own_variables(self, store):
        if "shift" in store:
            self.shift = np.asarray(store["shift"])

    def call(self, x):
        return x if self.shift is None else x - self.shift


@serializable
class Filed(Counted):
    """Keeps it in a file."""

    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass

    def save_assets(self, folder):
        if self.shift is not None:
            np.savetxt(f"{folder}/shift.txt", self.shift)

    def load_assets(self, folder):
        self.shift = np.loadtxt(f"{folder}/shift.txt").astype("float32")


@serializable
class Derived(Shaped):
    """Computes constants from a variable, as `Normalization` does."""

    def build(self, shape):
        self.mean = self.add_weight(
            name="mean", shape=shape[1:], initializer="zeros", trainable=False
        )
        self.built = True
        self.finalize_state()

    def adapt(self, x):
        self.build(x.shape)
        self.mean.assign(x.mean(axis=0))
        self.finalize_state()

    def finalize_state(self):
        self.shift = keras.ops.convert_to_tensor(self.mean) * 2

    def call(self, x):
        return x - self.shift


@serializable
class Logarithmic(Shaped):
    """Saves its weight in another form, and loads it with an error."""

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=shape[1:], initializer="ones")

    def save_own_variables(self, store):
        store["log"] = np.log(np.abs(self.w.numpy()) + 1)

    def load_own_variables(self, store):
        self.w.assign(np.exp(store["log"]) - 1)

    def call(self, x):
        return x * self.w


@serializable
class Consuming(Shaped):
    """Its `finalize_state` makes the variable of what was counted."""

    count, scale = 0, 1

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=shape[1:], initializer="ones")

    def finalize_state(self):
        self.w.assign(self.w * self.count)
        self.scale = self.count

    def call(self, x):
        return x * self.w * self.scale


def adapted(layer, x):
    layer.adapt(x)
    return layer


OWN = {
    "own store": lambda: (adapted(Counted(), VECTORS), VECTORS),
    "own assets": lambda: (adapted(Filed(), VECTORS), VECTORS),
    "own constants": lambda: (adapted(Derived(), VECTORS), VECTORS),
    "own form": lambda: (Logarithmic(), VECTORS),
    "own counts": lambda: (Consuming(), VECTORS),
}

PREPROCESSING = {
    "Normalization": lambda: (adapted(L.Normalization(), VECTORS), VECTORS),
    "Normalization: not adapted": lambda: (L.Normalization(), VECTORS),
    "Normalization: given": lambda: (
        L.Normalization(mean=3.0, variance=2.0),
        VECTORS,
    ),
    "Normalization: inverse": lambda: (
        adapted(L.Normalization(axis=None, invert=True), VECTORS),
        VECTORS,
    ),
    "Discretization": lambda: (
        adapted(L.Discretization(num_bins=3, output_mode="one_hot"), VECTORS),
        VECTORS,
    ),
    "Discretization: given": lambda: (
        L.Discretization([2.0, 4.0]),
        VECTORS,
    ),
    "IntegerLookup": lambda: (adapted(L.IntegerLookup(), INTEGERS), INTEGERS),
    "IntegerLookup: one_hot": lambda: (
        adapted(L.IntegerLookup(output_mode="multi_hot"), INTEGERS),
        INTEGERS,
    ),
    "IntegerLookup: given": lambda: (
        L.IntegerLookup(vocabulary=[4, 2]),
        INTEGERS,
    ),
    "StringLookup": lambda: (adapted(L.StringLookup(), WORDS), WORDS),
    "StringLookup: no oov": lambda: (
        adapted(L.StringLookup(num_oov_indices=0), WORDS),
        WORDS,
    ),
    "StringLookup: given": lambda: (
        L.StringLookup(vocabulary=["b", "c"]),
        WORDS,
    ),
    "StringLookup: tf_idf": lambda: (
        adapted(L.StringLookup(output_mode="tf_idf"), WORDS),
        WORDS,
    ),
    "TextVectorization": lambda: (
        adapted(L.TextVectorization(output_sequence_length=3), STRINGS),
        STRINGS,
    ),
    "TextVectorization: tf_idf": lambda: (
        adapted(L.TextVectorization(output_mode="tf_idf", ngrams=2), STRINGS),
        STRINGS,
    ),
    "Hashing": lambda: (L.Hashing(5, salt=3), INTEGERS),
    "CategoryEncoding": lambda: (L.CategoryEncoding(7), INTEGERS),
    "HashedCrossing": lambda: (
        L.HashedCrossing(5, output_mode="one_hot"),
        [INTEGERS[:, :1], INTEGERS[:, 1:2]],
    ),
}

WEIGHTED = {
    "BatchNormalization": lambda: (L.BatchNormalization(), VECTORS),
    "LayerNormalization": lambda: (L.LayerNormalization(), VECTORS),
    "GroupNormalization": lambda: (L.GroupNormalization(2), VECTORS),
    "RMSNormalization": lambda: (L.RMSNormalization(), VECTORS),
    "SpectralNormalization": lambda: (
        L.SpectralNormalization(L.Dense(3)),
        VECTORS,
    ),
    "PReLU": lambda: (L.PReLU(), VECTORS),
    "Dense": lambda: (L.Dense(3), VECTORS),
    "EinsumDense": lambda: (L.EinsumDense("ab,bc->ac", (3,)), VECTORS),
    "Embedding": lambda: (L.Embedding(7, 2), INTEGERS),
    "ReversibleEmbedding": lambda: (L.ReversibleEmbedding(7, 2), INTEGERS),
    "Conv1D": lambda: (L.Conv1D(2, 2), STEPS),
    "Conv1DTranspose": lambda: (L.Conv1DTranspose(2, 2), STEPS),
    "SeparableConv1D": lambda: (L.SeparableConv1D(2, 2), STEPS),
    "DepthwiseConv1D": lambda: (L.DepthwiseConv1D(2), STEPS),
    "Conv2D": lambda: (L.Conv2D(2, 2), IMAGES),
    "Conv2DTranspose": lambda: (L.Conv2DTranspose(2, 2), IMAGES),
    "SeparableConv2D": lambda: (L.SeparableConv2D(2, 2), IMAGES),
    "DepthwiseConv2D": lambda: (L.DepthwiseConv2D(2), IMAGES),
    "Conv3D": lambda: (L.Conv3D(2, 2), VOLUMES),
    "Conv3DTranspose": lambda: (L.Conv3DTranspose(2, 2), VOLUMES),
    "SimpleRNN": lambda: (L.SimpleRNN(2), STEPS),
    "LSTM": lambda: (L.LSTM(2), STEPS),
    "GRU": lambda: (L.GRU(2), STEPS),
    "SimpleRNNCell": lambda: (L.RNN(L.SimpleRNNCell(2)), STEPS),
    "LSTMCell": lambda: (L.RNN(L.LSTMCell(2)), STEPS),
    "GRUCell": lambda: (L.RNN(L.GRUCell(2)), STEPS),
    "RNN": lambda: (L.RNN([L.GRUCell(2), L.LSTMCell(2)]), STEPS),
    "StackedRNNCells": lambda: (
        L.RNN(L.StackedRNNCells([L.GRUCell(2), L.GRUCell(3)])),
        STEPS,
    ),
    "Bidirectional": lambda: (L.Bidirectional(L.LSTM(2)), STEPS),
    "TimeDistributed": lambda: (L.TimeDistributed(L.Dense(2)), STEPS),
    "ConvLSTM1D": lambda: (L.ConvLSTM1D(2, 2), IMAGES),
    "ConvLSTM2D": lambda: (L.ConvLSTM2D(2, 2), VOLUMES),
    "ConvLSTM3D": lambda: (L.ConvLSTM3D(1, (1, 2, 2)), VOLUMES[:, :, None]),
    "MultiHeadAttention": lambda: (L.MultiHeadAttention(2, 2), [STEPS, STEPS]),
    "GroupedQueryAttention": lambda: (
        L.GroupQueryAttention(2, 2, 1),
        [STEPS, STEPS],
    ),
    "Attention": lambda: (L.Attention(use_scale=True), [STEPS, STEPS]),
    "AdditiveAttention": lambda: (L.AdditiveAttention(), [STEPS, STEPS]),
}
ROWS = {**OWN, **PREPROCESSING, **WEIGHTED}

OTHERS = {
    "FlaxLayer": "needs the backend JAX",
    "InputLayer": "is in every model here",
    "JaxLayer": "needs the backend JAX",
    "Lambda": "has tests of its own below: Keras refuses to read code",
    "Layer": "is the base class",
    "TFSMLayer": "is a file that Keras refuses to read without leave",
    "TorchModuleWrapper": "needs the backend PyTorch",
    "Wrapper": "is the base class of TimeDistributed and Bidirectional",
}

STATELESS = """
Activation ActivityRegularization AdaptiveAveragePooling1D
AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D
AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AlphaDropout AugMix AutoContrast
Average AveragePooling1D AveragePooling2D AveragePooling3D CenterCrop
Concatenate ContrastLimitedAdaptiveHistogramEqualization Cropping1D Cropping2D
Cropping3D CutMix Dot Dropout ELU Equalization Flatten GaussianDropout
GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
Identity LeakyReLU Masking MaxNumBoundingBoxes MaxPooling1D MaxPooling2D
MaxPooling3D Maximum MelSpectrogram Minimum MixUp Multiply Permute Pipeline
RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter
RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip
RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective
RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing
STFTSpectrogram Softmax Solarization SpatialDropout1D SpatialDropout2D
SpatialDropout3D Subtract UnitNormalization UpSampling1D UpSampling2D
UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
"""Layers whose outputs in inference are a function of inputs and settings."""


def test_every_layer_of_keras_has_a_row():
    found = {
        cls.__name__
        for _, cls in inspect.getmembers(L, inspect.isclass)
        if issubclass(cls, L.Layer)
    }
    rows = {name.partition(":")[0] for name in ROWS if name not in OWN}
    listed = [*rows, *OTHERS, *STATELESS.split()]
    assert len(listed) == len(set(listed))
    assert set(listed) == found


# Models around layers.


@serializable
class Net(keras.Model):
    """A subclassed model whose configuration holds its layers."""

    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def build(self, shape):
        for part in self.parts:
            if not part.built:
                part.build(shape)
            shape = part.compute_output_shape(shape)
        self.built = True

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def get_config(self):
        parts = [keras.saving.serialize_keras_object(p) for p in self.parts]
        return {**super().get_config(), "parts": parts}

    @classmethod
    def from_config(cls, config):
        parts = keras.saving.deserialize_keras_object(config.pop("parts"))
        return cls(parts, **config)


def inputs_of(x):
    if isinstance(x, list):
        return [inputs_of(each) for each in x]
    dtype = keras.backend.standardize_dtype(x.dtype)
    return keras.Input(x.shape[1:], dtype=dtype)


def followers():
    return [L.Rescaling(0.1), L.Flatten(), L.Dense(3, "tanh"), L.Dense(2)]


def applied(layers, inputs):
    first, *rest = layers
    takes_several = isinstance(
        first, L.MultiHeadAttention | L.GroupQueryAttention
    )
    x = first(*inputs) if takes_several else first(inputs)
    for layer in rest:
        x = layer(x)
    return x


def plain(layer, x):
    inputs = inputs_of(x)
    return inputs, applied([layer, *followers()], inputs)


def frozen(layer, x):
    made = plain(layer, x)
    layer.trainable = False
    return made


def nested(layer, x):
    inner = inputs_of(x)
    base = keras.Model(inner, applied([layer, L.Rescaling(0.1)], inner))
    outer = keras.Sequential([inputs_of(x), base])
    inputs = inputs_of(x)
    return inputs, applied([outer, *followers()], inputs)


def side_by_side(rows, wrap=plain):
    """Returns a model with an output for each row, and its inputs."""
    made = {name: (*make(), name) for name, make in rows.items()}
    branches = {name: wrap(layer, x) for name, (layer, x, _) in made.items()}
    outputs = {name: output for name, (_, output) in branches.items()}
    model = keras.Model([inputs for inputs, _ in branches.values()], outputs)
    xs = [x for _, x, _ in made.values()]
    return model, tf.nest.map_structure(tf.convert_to_tensor, xs)


def sequential(row):
    layer, x = row()
    return keras.Sequential([inputs_of(x), layer, *followers()]), x


def subclassed(row):
    layer, x = row()
    model = Net([layer, *followers()])
    model.build(x.shape)
    return model, x


def trained(model):
    """Gives every number of a model another value than it begins with."""
    rng = np.random.default_rng(1)
    kept = {
        id(v)
        for layer in model._flatten_layers()
        if isinstance(layer, L.Normalization | Derived)
        for v in layer.variables
    }
    for variable in model.variables:
        if id(variable) not in kept and "float" in variable.dtype:
            variable.assign(rng.uniform(0.2, 1, variable.shape))
    masks = Masks(
        {
            path: rng.random(kernel.variable.shape) < 0.6
            for path, kernel in masking.kernels(model).items()
            if "spectral" not in path  # Keras assigns to it in each step
        }
    )
    variables = masking.variables_by_path(model)
    for path, mask in masks.items():
        variables[path].assign(variables[path].numpy() * mask)
    return model, masks


def ticket_of(model, masks):
    state = State(0, values(masking.variables_by_path(model)), {})
    architecture = masking.architecture_of(model)
    assert architecture is not None
    return Ticket(1, masks, state, architecture=architecture)


# The verbs: model, masks and a folder -> a copy of the model.


def masked(model, masks, folder):
    return masking.mask_model(model, list(masks))


def masked_itself(model, masks, folder):
    return masking.mask_model(
        masking.clone_model(model), list(masks), copy=False
    )


def stripped(model, masks, folder):
    new = masked(model, masks, folder)
    masking.set_masks(new, masks)
    return masking.strip_masks(new)


def deepcopied(model, masks, folder):
    return copy.deepcopy(masked(model, masks, folder))


def filed(model, masks, folder):
    masked(model, masks, folder).save(folder / "masked.keras")
    loaded = keras.saving.load_model(folder / "masked.keras")
    return masking.clone_model(loaded)


def built(model, masks, folder):
    return ticket_of(model, masks).build()


def built_of_a_file(model, masks, folder):
    ticket_of(model, masks).save(folder / "ticket")
    return Ticket.load(folder / "ticket").build()


def built_of_a_fresh_model(model, masks, folder):
    """Of the same code, before `adapt`."""
    ticket = ticket_of(model, masks)
    fresh = keras.models.model_from_json(ticket.architecture)
    return ticket.build(fresh)


def filled(model, masks, folder):
    ticket = ticket_of(model, masks)
    new = ticket.template()
    ticket.fill(new)
    assert masking.architecture_of(new) == ticket.architecture
    return new


BY_KERAS = {"deepcopied": deepcopied, "filed": filed}
"""What goes through a file of Keras."""
VERBS = {
    each.__name__: each
    for each in (
        masked,
        masked_itself,
        stripped,
        built,
        built_of_a_file,
        built_of_a_fresh_model,
        filled,
    )
} | BY_KERAS
every_verb = pytest.mark.parametrize("verb", VERBS)


def numbers(outputs):
    found = outputs if isinstance(outputs, dict) else {"output": outputs}
    return {name: output.numpy() for name, output in found.items()}


def case(model, x):
    """Returns a trained model, its masks, inputs and outputs."""
    model, masks = trained(model)
    return model, masks, x, numbers(model(x))


def assert_copied(model, masks, x, expected, verb, folder):
    new = VERBS[verb](model, masks, folder)
    assert new is not model
    for name, output in numbers(new(x)).items():
        np.testing.assert_allclose(
            output, expected[name], rtol=1e-5, atol=1e-6, err_msg=name
        )
        assert len(np.unique(output)) > 1, name
    before = masking.variables_by_path(model)
    for path, variable in masking.variables_by_path(new).items():
        # Keras files no state of seed generators.
        if verb not in BY_KERAS or "seed_generator" not in path:
            np.testing.assert_array_equal(variable, before[path], path)
        assert variable.trainable == before[path].trainable


FILED_BY_KERAS = ("own store", "own assets")
GROUPS = {"own": OWN, "preprocessing": PREPROCESSING, "weighted": WEIGHTED}
INSIDE = (
    "Normalization",
    "Discretization",
    "IntegerLookup",
    "StringLookup: tf_idf",
    "TextVectorization",
    "own store",
    "own assets",
    "BatchNormalization",
    "Bidirectional",
)


@functools.cache
def group_of(name, verb_group):
    rows = dict(GROUPS[name])
    if name == "own" and verb_group == "by Keras":
        # Keras gives the others other constants than they had.
        rows = {row: OWN[row] for row in FILED_BY_KERAS}
    if verb_group == "fresh":
        # Keras asks its empty vocabulary for the size that it clones.
        rows.pop("TextVectorization: tf_idf", None)
    return case(*side_by_side(rows))


@pytest.mark.slow
@every_verb
@pytest.mark.parametrize("group", GROUPS)
def test_a_copy_is_a_copy(group, verb, tmp_path):
    special = {"built_of_a_fresh_model": "fresh"} if group != "weighted" else {}
    special |= dict.fromkeys(BY_KERAS, "by Keras") if group == "own" else {}
    slow = ("masked", "stripped", "built_of_a_file", "filed")
    if group == "weighted" and verb not in slow:
        pytest.skip("other verbs do the same, and these layers are slow")
    made = group_of(group, special.get(verb, ""))
    assert_copied(*made, verb, tmp_path)


@functools.cache
def wrapped(wrap):
    return case(*side_by_side({name: ROWS[name] for name in INSIDE}, wrap))


@pytest.mark.slow
@every_verb
@pytest.mark.parametrize("wrap", [frozen, nested])
def test_a_copy_is_a_copy_wherever_the_layer_sits(wrap, verb, tmp_path):
    if wrap is frozen and verb in ("masked_itself", "built", "deepcopied"):
        pytest.skip("other verbs do the same")
    assert_copied(*wrapped(wrap), verb, tmp_path)


@every_verb
@pytest.mark.parametrize("name", ["Normalization", "TextVectorization"])
@pytest.mark.parametrize("build", [sequential, subclassed])
def test_a_whole_model_is_copied(build, name, verb, tmp_path):
    assert_copied(*case(*build(ROWS[name])), verb, tmp_path)


# What Keras does not rebuild.


@serializable
class Unconfigured(L.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor


def test_a_lambda_is_copied_with_what_it_closes_over():
    factor = 3.0
    layer = L.Lambda(
        lambda x, shift: x * factor + shift, arguments={"shift": 1}
    )
    model, masks, x, expected = case(*sequential(lambda: (layer, VECTORS)))
    new = masking.strip_masks(masking.mask_model(model))
    np.testing.assert_array_equal(new(x), expected["output"])
    # In a file it would be code, which nothing here runs.
    assert masking.architecture_of(model) is None
    state = State(0, values(masking.variables_by_path(model)), {})
    ticket = Ticket(1, masks, state)
    np.testing.assert_array_equal(ticket.build(model)(x), expected["output"])
    with pytest.raises(ValueError, match=r"lambdas.*ticket\.build\(model\)"):
        ticket.build()


def test_a_layer_without_get_config_is_refused_with_the_way():
    layer = Unconfigured(2.0)
    model, masks, x, expected = case(*sequential(lambda: (layer, VECTORS)))
    assert masking.architecture_of(model) is None
    with pytest.raises(ValueError, match="get_config.*copy=False") as error:
        masking.mask_model(model)
    assert "unexpected keyword argument" in str(error.value)
    assert "\n" not in str(error.value)
    state = State(0, values(masking.variables_by_path(model)), {})
    new = Ticket(1, masks, state).build(model, copy=False)
    np.testing.assert_array_equal(new(x), expected["output"])


def test_a_vocabulary_that_its_file_cannot_hold_is_refused():
    layer = L.StringLookup()
    layer.adapt(tf.constant([["a\u2028b"], ["c"]]))
    model, _ = sequential(lambda: (layer, WORDS))
    with pytest.raises(ValueError, match="saves other files than its twin"):
        masking.mask_model(model)


# Files are data of strangers.


def with_state(ticket, state):
    architecture = json.loads(ticket.architecture)
    architecture["layer_states"] = {"text_vectorization": state}
    return dataclasses.replace(ticket, architecture=json.dumps(architecture))


@pytest.mark.parametrize(
    "state",
    [
        3,
        {},
        {"entries": {}, "files": {"../vocabulary.txt": "YQ=="}},
        {"entries": {}, "files": {"/vocabulary.txt": "YQ=="}},
        {"entries": {}, "files": {"vocabulary.txt": "?"}},
        {
            "entries": {"a": {"dtype": "O", "shape": [1], "data": ""}},
            "files": {},
        },
        {"entries": {"a": "kernel"}, "files": {}},
    ],
)
def test_a_damaged_state_is_refused_in_one_line(state, tmp_path):
    row = ROWS["TextVectorization"]
    model, masks, *_ = case(*sequential(row))
    broken = with_state(ticket_of(model, masks), state)
    for build in (broken.build, lambda: broken.build(model)):
        with pytest.raises(
            ValueError, match="does not take the state"
        ) as error:
            build()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500


def test_a_vocabulary_longer_than_a_header_is_kept_in_a_ticket(tmp_path):
    layer = L.StringLookup()
    layer.set_vocabulary([f"{i:07}" for i in range(100_000)])
    x = tf.constant([["0000003"], ["0099999"]])
    model, masks, x, expected = case(*sequential(lambda: (layer, x)))
    new = built_of_a_file(model, masks, tmp_path)
    np.testing.assert_allclose(new(x), expected["output"], rtol=1e-6)


# Controls rebuild models, and leave alone what does not train.


def preprocessed():
    """Adapted layers and a frozen base before kernels to prune."""
    x = np.random.default_rng(3).normal(3, 2, (60, 4)).astype("float32")
    norm = adapted(L.Normalization(), x)
    base = keras.Sequential(
        [keras.Input((4,)), L.Dense(6, "relu"), L.BatchNormalization()],
        name="base",
    )
    inputs = keras.Input((4,))
    y = base(adapted(Counted(), x)(norm(inputs)))
    y = L.BatchNormalization(name="trains")(L.Dense(5, "relu", name="d")(y))
    model, _ = trained(keras.Model(inputs, L.Dense(3, name="head")(y)))
    base.trainable = False
    return model, x


def outputs_of(model, x, layer):
    return keras.Model(model.input, model.get_layer(layer).output)(x).numpy()


@pytest.mark.parametrize("name", controls.CONTROLS)
def test_a_control_leaves_alone_what_does_not_train(name):
    model, x = preprocessed()
    rng = np.random.default_rng(2)
    state = State(0, values(masking.variables_by_path(model)), {})
    ticket = Ticket(
        1,
        Masks(
            {
                p: rng.random(k.variable.shape) < 0.6
                for p, k in masking.kernels(model).items()
            }
        ),
        state,
        architecture=masking.architecture_of(model),
        dense_trained=state.weights,
    )
    assert set(ticket.masks) == {"d/kernel", "head/kernel"}
    made = controls.CONTROLS[name](ticket, 0)
    for path, value in state.weights.items():
        if path.startswith(("base/", "normalization/")):
            np.testing.assert_array_equal(made.start.weights[path], value)
    built = made.build()
    np.testing.assert_array_equal(
        outputs_of(built, x, "base"), outputs_of(model, x, "base")
    )
    if name in ("reinit", "reinit_sign", "small_dense"):
        assert not made.start.weights["trains/moving_mean"].any()
        assert (made.start.weights["trains/moving_variance"] == 1).all()
        assert not np.array_equal(
            made.start.weights["head/bias"], state.weights["head/bias"]
        )


def test_a_frozen_layer_after_a_narrower_one_is_named():
    model = keras.Sequential([keras.Input((4,)), L.Dense(6), L.Dense(5)])
    model.add(L.Dense(3))
    model.layers[1].trainable = False
    state = State(0, values(masking.variables_by_path(model)), {})
    masks = Masks(
        {
            p: np.arange(k.variable.shape[1]) * np.ones(k.variable.shape) > 0
            for p, k in masking.kernels(model).items()
        }
    )
    ticket = Ticket(
        1, masks, state, architecture=masking.architecture_of(model)
    )
    with pytest.raises(ValueError, match="'dense_1/kernel' is frozen and"):
        controls.small_dense(ticket, 0)


@pytest.mark.parametrize("name", controls.OF_ARCHITECTURE)
def test_a_control_that_rebuilds_is_refused_before_training(name):
    layer = L.Lambda(lambda x: x * 2)
    model, _ = sequential(lambda: (layer, VECTORS))
    with pytest.raises(ValueError, match=f"'{name}' rebuilds the model"):
        TicketSearch(model, controls=[name])


# Searches.


def searched(model, x, run_dir=None, **settings):
    labels = np.arange(len(x)) % 3
    search = TicketSearch(model, levels=1, **settings)
    search.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    search.fit(
        x,
        labels,
        batch_size=20,
        length="6it",
        evaluate_every=3,
        validation_data=(x, labels),
        run_dir=run_dir,
        verbose=False,
    )
    return search


def loss_of(model, x):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return float(loss(np.arange(len(x)) % 3, model(x)))


def adapted_lookup():
    x = np.tile(INTEGERS, (10, 1))
    inputs = keras.Input((3,), dtype="int64")
    y = L.Embedding(9, 2)(adapted(L.IntegerLookup(), x)(inputs))
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(y))), x


def counted_categories():
    x = np.tile(INTEGERS, (10, 1))
    layers = [L.CategoryEncoding(7), L.Dense(4), L.Dense(3)]
    return keras.Sequential([keras.Input((3,), dtype="int64"), *layers]), x


@pytest.mark.parametrize(
    "build", [preprocessed, adapted_lookup, counted_categories]
)
def test_networks_of_a_search_are_those_that_are_built(build, tmp_path):
    model, x = build()
    before = model(x).numpy()
    settings = {"controls": ["reinit"]} if build is preprocessed else {}
    first = searched(model, x, tmp_path, **settings)
    np.testing.assert_array_equal(model(x), before)
    np.testing.assert_allclose(first.tickets[0].build()(x), before, rtol=1e-5)
    keras.utils.set_random_seed(0)
    again, _ = build()
    again.set_weights(model.get_weights())
    search = searched(again, x, tmp_path, **settings)  # goes on from files
    for ticket in search.tickets:
        end = loss_of(ticket.model(at="end"), x)
        known = ticket.metrics["validation_loss"]
        np.testing.assert_allclose(end, known, rtol=1e-5)


def test_a_narrower_network_trains_on_what_adapted_layers_give():
    model, x = preprocessed()
    masks = Masks(
        {
            path: np.random.default_rng(0).random(k.variable.shape) < 0.6
            for path, k in masking.kernels(model).items()
        }
    )
    made = controls.small_dense(ticket_of(model, masks), 0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    recipe = Recipe(
        keras.optimizers.SGD(0.05),
        loss,
        batch_size=20,
        length=Duration("3it"),
        evaluate_every=3,
    )
    labels = np.arange(len(x)) % 3
    splits = data.from_arrays(x, labels, (x, labels))
    trainer = Trainer(model, recipe, splits, tuple(made.masks))
    job = Job(made.start, made.masks, architecture=made.architecture)
    (run,) = trainer.train([job])
    new = dataclasses.replace(made, trained=run.trained).model(at="end")
    known = run.curve[-1]["validation_loss"]
    np.testing.assert_allclose(loss_of(new, x), known, rtol=1e-5)


def test_an_adapted_layer_follows_theta_0_of_a_file(tmp_path):
    model, x = preprocessed()
    other, _ = preprocessed()
    norm = next(v for v in other.layers if isinstance(v, L.Normalization))
    norm.adapt(x * 2 + 1)
    other.save_weights(tmp_path / "other.weights.h5")
    settings = {"initial_weights": tmp_path / "other.weights.h5"}
    (given, level) = searched(model, x, **settings).tickets
    np.testing.assert_allclose(given.build()(x), other(x), rtol=1e-5)
    known = level.metrics["validation_loss"]
    np.testing.assert_allclose(
        loss_of(level.model(at="end"), x), known, rtol=1e-5
    )
    assert not np.allclose(model(x), other(x))


@pytest.mark.parametrize("kind", ["checkpoint", "h5", "damaged"])
def test_adapted_layers_follow_a_file_of_weights(kind, tmp_path):
    model, x = preprocessed()
    before = model(x).numpy()
    other, _ = preprocessed()
    norm = next(v for v in other.layers if isinstance(v, L.Normalization))
    norm.adapt(x * 2 + 1)
    if kind == "checkpoint":
        path = tmp_path / "other"
        tf.train.Checkpoint(other).write(str(path))
    else:
        path = tmp_path / "other.weights.h5"
        other.save_weights(path)
    if kind == "damaged":
        with h5py.File(path, "a") as file:
            del file["layers/dense/vars/0"]
        with pytest.raises(ValueError, match="does not hold the weights"):
            checkpoint.load_weights(model, path)
        np.testing.assert_array_equal(model(x), before)
    else:
        checkpoint.load_weights(model, path)
        np.testing.assert_allclose(model(x), other(x), rtol=1e-5)


@serializable
class Unsaid(keras.Model):
    """Its configuration does not say what is frozen."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.base, self.top = L.Dense(4), L.Dense(3)

    def build(self, shape):
        self.base.build(shape)
        self.top.build((None, 4))
        self.built = True

    def call(self, x):
        return self.top(self.base(x))


def test_what_the_class_freezes_is_frozen_in_a_ticket(tmp_path):
    model = Unsaid()
    model.build((None, 4))
    model.base.trainable = False
    model, masks, x, expected = case(model, VECTORS)
    ticket = ticket_of(model, masks)
    assert_copied(model, masks, x, expected, "built_of_a_file", tmp_path)
    made = controls.reinit(ticket, 0)
    after, before = made.start.weights, ticket.start.weights
    for path in ("dense/kernel", "dense/bias"):
        np.testing.assert_array_equal(after[path], before[path])
    assert not np.array_equal(after["dense_1/bias"], before["dense_1/bias"])


@pytest.mark.slow
def test_a_ticket_of_adapted_layers_is_built_in_another_process(tmp_path):
    model, masks, x, expected = wrapped(nested)
    (tmp_path / "x").write_bytes(pickle.dumps([v.numpy() for v in x]))
    ticket_of(model, masks).save(tmp_path / "ticket")
    code = f"""
import pathlib, pickle, sys
sys.path[:0] = {[p for p in sys.path if p]!r}
import importlib, keras, tensorflow as tf
test_copies = importlib.import_module({__name__!r})
from tf_lottery.lottery.ticket import Ticket
keras.layers.Dense(1), keras.layers.Normalization()
folder = pathlib.Path({str(tmp_path)!r})
ticket = Ticket.load(folder / "ticket")
model = ticket.build()
x = pickle.loads((folder / "x").read_bytes())
y = test_copies.numbers(model([tf.constant(v) for v in x]))
text = test_copies.masking.architecture_of(ticket.template())
(folder / "y").write_bytes(pickle.dumps((y, text == ticket.architecture)))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    found, is_same = pickle.loads((tmp_path / "y").read_bytes())
    assert is_same
    for name, output in expected.items():
        np.testing.assert_allclose(found[name], output, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("layer", "compiles"),
    [
        (L.Hashing(5), False),
        (L.CategoryEncoding(7), False),
        (L.CategoryEncoding(7, output_mode="one_hot"), True),
    ],
)
def test_what_xla_cannot_compile_is_compiled_without(layer, compiles):
    model, _ = sequential(lambda: (layer, INTEGERS))
    assert compiles_with_xla(model) == compiles


def test_a_user_s_layer_says_whether_xla_compiles_it():
    model, _ = sequential(lambda: (Counted(), VECTORS))
    assert compiles_with_xla(model)
    model.layers[0].supports_jit = False
    assert not compiles_with_xla(model)


# Keras warns of tensors in the place of its own inputs by name.
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_a_feature_space_is_copied():
    kinds = keras.utils.FeatureSpace
    space = kinds(
        {"a": kinds.float_normalized(), "b": kinds.string_categorical()},
        output_mode="concat",
    )
    data = {"a": np.arange(6.0)[:, None], "b": np.array([[*"uvuwvu"]]).T}
    space.adapt(tf.data.Dataset.from_tensor_slices(data).batch(2))
    features = space.get_encoded_features()
    model = keras.Model(space.get_inputs(), L.Dense(3)(features))
    x = {name: tf.constant(value) for name, value in data.items()}
    for verb in (masked, built):
        model, masks = trained(model)
        new = verb(model, masks, None)
        np.testing.assert_allclose(new(x), model(x), rtol=1e-6)


@pytest.mark.slow
def test_the_preprocessing_of_an_efficient_net_is_copied():
    model = keras.applications.EfficientNetB0(
        weights=None,
        input_shape=(32, 32, 3),
        classes=3,
        classifier_activation=None,
    )
    x = RNG.uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    (norm,) = (v for v in model.layers if isinstance(v, L.Normalization))
    norm.adapt(x)
    new = masking.strip_masks(masking.mask_model(model))
    expected = norm(x)
    np.testing.assert_array_equal(new.get_layer(norm.name)(x), expected)
    assert not np.allclose(expected, x)
    np.testing.assert_allclose(new(x), model(x), rtol=1e-4, atol=1e-6)

"""Every layer of Keras with state, through every verb that copies a model."""

import copy
import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.masks import Masks
from tf_lottery.tickets import Ticket
from tf_lottery.training import State
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

    count = 0

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=shape[1:], initializer="ones")

    def finalize_state(self):
        self.w.assign(self.w * self.count)

    def call(self, x):
        return x * self.w


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


def after():
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
    return inputs, applied([layer, *after()], inputs)


def frozen(layer, x):
    made = plain(layer, x)
    layer.trainable = False
    return made


def nested(layer, x):
    inner = inputs_of(x)
    base = keras.Model(inner, applied([layer, L.Rescaling(0.1)], inner))
    outer = keras.Sequential([inputs_of(x), base])
    inputs = inputs_of(x)
    return inputs, applied([outer, *after()], inputs)


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
    return keras.Sequential([inputs_of(x), layer, *after()]), x


def subclassed(row):
    layer, x = row()
    model = Net([layer, *after()])
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
    return masking.mask_model(masking.copied(model), list(masks), copy=False)


def stripped(model, masks, folder):
    new = masked(model, masks, folder)
    masking.set_masks(new, masks)
    return masking.strip_masks(new)


def deepcopied(model, masks, folder):
    return copy.deepcopy(masked(model, masks, folder))


def filed(model, masks, folder):
    masked(model, masks, folder).save(folder / "masked.keras")
    loaded = keras.saving.load_model(folder / "masked.keras")
    return masking.copied(loaded)


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


@every_verb
@pytest.mark.parametrize("group", GROUPS)
def test_a_copy_is_a_copy(group, verb, tmp_path):
    special = {"built_of_a_fresh_model": "fresh"} if group != "weighted" else {}
    special |= dict.fromkeys(BY_KERAS, "by Keras") if group == "own" else {}
    if group == "weighted" and verb in ("masked_itself", "built", "filled"):
        pytest.skip("other verbs do the same, and these layers are slow")
    made = group_of(group, special.get(verb, ""))
    assert_copied(*made, verb, tmp_path)


@functools.cache
def wrapped(wrap):
    return case(*side_by_side({name: ROWS[name] for name in INSIDE}, wrap))


@every_verb
@pytest.mark.parametrize("wrap", [frozen, nested])
def test_a_copy_is_a_copy_wherever_the_layer_sits(wrap, verb, tmp_path):
    assert_copied(*wrapped(wrap), verb, tmp_path)


@every_verb
@pytest.mark.parametrize("name", ["Normalization", "TextVectorization"])
@pytest.mark.parametrize("build", [sequential, subclassed])
def test_a_whole_model_is_copied(build, name, verb, tmp_path):
    assert_copied(*case(*build(ROWS[name])), verb, tmp_path)

"""Every kind of model in every format: the outputs of Keras, by their names."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_lottery import export, masking

L = keras.layers

TOLERANCES = {"float32": 1e-4, "half": 2e-2}
"""How far outputs may lie apart, as a share of the largest."""

LOOKUP = "ONNX has no lookup table of strings that onnxruntime loads"
NO_CONFIG = "Keras loads no class without get_config"
UNROLLED = (
    "unrolled, as LiteRT needs it, a backward layer of Keras 3.15 that returns "
    "every step zeroes the wrong ones where steps are masked"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A kind of model.

    Attributes:
        build: Returns the model.
        inputs: Name to examples, in the order of `keras.tree.flatten`.
        outputs: The names of the outputs, in that order.
        pack: From inputs by name to what the model takes. None: it takes one.
        precision: A key of `TOLERANCES`.
        copy: Whether `mask_model` can copy it.
        refused: Format to the reason why it cannot be.
    """

    build: Callable[[], keras.Model]
    inputs: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    pack: Callable[[Mapping[str, Any]], Any] | None = None
    precision: str = "float32"
    copy: bool = True
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def packed(self, arrays):
        """Returns inputs in the structure that the model takes."""
        if self.pack is None:
            (array,) = arrays.values()
            return array
        return self.pack(arrays)


def floats(*shape):
    return np.random.default_rng(1).normal(size=(5, *shape)).astype("float32")


def ints(high, *shape, dtype="int32"):
    return np.random.default_rng(1).integers(0, high, (5, *shape), dtype)


def dense():
    return keras.Sequential(
        [
            keras.Input((8,), name="features"),
            L.Dense(16, "relu"),
            L.Dense(3, name="logits"),
        ]
    )


def convolutions():
    image = keras.Input((8, 8, 4), name="image")
    x = L.Conv2D(8, 3, padding="same")(image)
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.GlobalAveragePooling2D()(L.SeparableConv2D(8, 3)(x))
    return keras.Model(image, L.Dense(3, name="logits")(x))


def two_towers():
    user = keras.Input((8,), name="user")
    item = keras.Input((), dtype="int32", name="item")
    both = [L.Dense(8)(user), L.Embedding(10, 8)(item)]
    match = L.Dense(1, "sigmoid", name="match")(L.Concatenate()(both))
    return keras.Model({"user": user, "item": item}, match)


def two_heads():
    x = keras.Input((8,), name="x")
    hidden = L.Dense(8, "relu")(x)
    return keras.Model(
        x, {"label": L.Dense(3)(hidden), "box": L.Dense(4)(hidden)}
    )


def nested():
    left, right = keras.Input((8,), name="left"), keras.Input((4,), name="r")
    joined = L.Concatenate()([left, right])
    outputs = {"heads": {"p": L.Dense(4)(joined)}, "q": [L.Dense(1)(joined)]}
    return keras.Model({"pair": {"left": left, "right": right}}, outputs)


def lists():
    first, second = keras.Input((8,), name="a"), keras.Input((4,), name="b")
    joined = L.Concatenate()([first, second])
    return keras.Model(
        [first, second],
        [L.Dense(4, name="one")(joined), L.Dense(1, name="two")(joined)],
    )


def gru():
    steps = keras.Input((4, 8), name="steps")
    return keras.Model(steps, L.GRU(8, name="last")(steps))


def padded():
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    x = L.Embedding(12, 8, mask_zero=True)(tokens)
    x = L.Bidirectional(L.LSTM(4))(x)
    return keras.Model(tokens, L.Dense(4, name="logits")(x))


def tagging():
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    x = L.Embedding(12, 8, mask_zero=True)(tokens)
    x = L.Bidirectional(L.LSTM(4, return_sequences=True))(x)
    return keras.Model(tokens, L.Dense(4, name="tags")(x))


def transformer():
    tokens = keras.Input((6, 8), name="tokens")
    x = L.LayerNormalization()(tokens)
    x = L.Add()([tokens, L.MultiHeadAttention(2, 4)(x, x)])
    hidden = L.Dense(16, "gelu")(L.LayerNormalization()(x))
    x = L.GlobalAveragePooling1D()(L.Add()([x, L.Dense(8)(hidden)]))
    return keras.Model(tokens, L.Dense(3, name="logits")(x))


def half(dtype):
    def build():
        policy = keras.DTypePolicy(f"mixed_{dtype}")
        return keras.Sequential(
            [
                keras.Input((8, 8, 4), name="image"),
                L.Conv2D(8, 3, dtype=policy),
                L.BatchNormalization(dtype=policy),
                L.Flatten(dtype=policy),
                L.Dense(3, name="logits", dtype=policy),
            ]
        )

    return build


def normalized():
    layer = L.Normalization()
    layer.adapt(7 + 3 * floats(8))
    return keras.Sequential(
        [keras.Input((8,), name="x"), layer, L.Dense(3, name="y")]
    )


def looked_up():
    words = keras.Input((4,), dtype="string", name="words")
    x = L.StringLookup(vocabulary=["a", "b"])(words)
    x = L.Flatten()(L.Embedding(3, 8)(x))
    return keras.Model(words, L.Dense(2, name="y")(x))


def pixels():
    image = keras.Input((6, 6, 4), dtype="uint8", name="pixels")
    x = L.Conv2D(8, 3)(L.Rescaling(1 / 255)(image))
    return keras.Model(image, L.Dense(3, name="logits")(L.Flatten()(x)))


def fixed_batch():
    x = keras.Input(batch_shape=(5, 8), name="x")
    return keras.Model(x, L.Dense(4, name="y")(x))


def stateful():
    steps = keras.Input(batch_shape=(5, 4, 8), name="steps")
    return keras.Model(steps, L.LSTM(4, stateful=True, name="y")(steps))


class Subclassed(keras.Model):
    """No `get_config`, a dict in and a dict out, no argument `training`."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = L.Dense(8, "relu"), L.Dense(4)

    def call(self, inputs):
        return {"y": self.head(self.hidden(inputs["u"]) + inputs["v"])}


def subclassed():
    model = Subclassed()
    model({"u": floats(8), "v": floats(8)})
    return model


def with_lambda():
    return keras.Sequential(
        [
            keras.Input((8,), name="x"),
            L.Lambda(lambda tensor: 2 * tensor),
            L.Dense(4, name="y"),
        ]
    )


class Tied(L.Layer):
    """A decoder that reads the kernel of another layer."""

    def __init__(self, encoder, **options):
        super().__init__(**options)
        self.encoder = encoder

    def call(self, inputs):
        return inputs @ keras.ops.transpose(self.encoder.kernel)


def tied():
    x, encoder = keras.Input((8,), name="x"), L.Dense(4)
    return keras.Model(x, Tied(encoder, name="y")(encoder(x)))


ROWS = {
    "Sequential of Dense": Row(dense, {"features": floats(8)}, ("logits",)),
    "Conv2D, BatchNormalization": Row(
        convolutions, {"image": floats(8, 8, 4)}, ("logits",)
    ),
    "two towers, dict in": Row(
        two_towers,
        {"item": ints(10), "user": floats(8)},
        ("match",),
        pack=dict,
    ),
    "two heads, dict out": Row(two_heads, {"x": floats(8)}, ("box", "label")),
    "nested dicts": Row(
        nested,
        {"left": floats(8), "right": floats(4)},
        ("p", "dense_1"),
        pack=lambda x: {"pair": dict(x)},
    ),
    "lists": Row(
        lists,
        {"a": floats(8), "b": floats(4)},
        ("one", "two"),
        pack=lambda x: [x["a"], x["b"]],
    ),
    "GRU": Row(gru, {"steps": floats(4, 8)}, ("last",)),
    "Bidirectional LSTM, mask_zero": Row(
        padded, {"tokens": ints(3, 5)}, ("logits",)
    ),
    "a tag for each step, mask_zero": Row(
        tagging,
        {"tokens": ints(3, 5)},
        ("tags",),
        refused={"litert": UNROLLED, "sparse_litert": UNROLLED},
    ),
    "attention, LayerNormalization, gelu": Row(
        transformer, {"tokens": floats(6, 8)}, ("logits",)
    ),
    "mixed_float16": Row(
        half("float16"),
        {"image": floats(8, 8, 4)},
        ("logits",),
        precision="half",
    ),
    "mixed_bfloat16": Row(
        half("bfloat16"),
        {"image": floats(8, 8, 4)},
        ("logits",),
        precision="half",
    ),
    "adapted Normalization": Row(normalized, {"x": 7 + floats(8)}, ("y",)),
    "StringLookup": Row(
        looked_up,
        {"words": np.array([list("abac")] * 5).astype("S")},
        ("y",),
        refused={"onnx": LOOKUP},
    ),
    "uint8": Row(
        pixels, {"pixels": ints(256, 6, 6, 4, dtype="uint8")}, ("logits",)
    ),
    "fixed batch": Row(fixed_batch, {"x": floats(8)}, ("y",)),
    "stateful LSTM": Row(
        stateful,
        {"steps": floats(4, 8)},
        ("y",),
        refused={"onnx": "ONNX keeps no state from call to call"},
    ),
    "subclassed": Row(
        subclassed,
        {"u": floats(8), "v": floats(8)},
        ("y",),
        pack=dict,
        copy=False,
        refused={"keras": NO_CONFIG},
    ),
    "Lambda": Row(
        with_lambda,
        {"x": floats(8)},
        ("y",),
        copy=False,
    ),
    "tied kernels": Row(
        tied, {"x": floats(8)}, ("y",), copy=False, refused={"keras": NO_CONFIG}
    ),
}


@pytest.fixture(scope="module", params=ROWS)
def masked(request):
    """A row, its masked model, and what that returns, in Keras' order."""
    row = ROWS[request.param]
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()  # automatic names start anew
    model = masking.mask_model(row.build(), copy=row.copy)
    masking.set_masks(model, toy.random_masks(model, 0.6))
    x = keras.tree.map_structure(tf.constant, row.packed(dict(row.inputs)))
    with keras.StatelessScope():
        outputs = model(x, training=False)
    return row, model, [np.asarray(y) for y in keras.tree.flatten(outputs)]


def saved_model(path, row):
    loaded = tf.saved_model.load(str(path))
    arrays = {name: tf.constant(array) for name, array in row.inputs.items()}
    named = loaded.signatures["serving_default"](**arrays)
    assert set(named) == set(row.outputs)
    # Loaded anew: a stateful layer has moved on.
    again = tf.saved_model.load(str(path))
    served = again.serve(row.packed(arrays))
    for name, output in zip(
        row.outputs, keras.tree.flatten(served), strict=True
    ):
        assert np.array_equal(output, named[name])
    return {name: output.numpy() for name, output in named.items()}


def keras_model(path, row):
    model = keras.models.load_model(path, safe_mode=False)  # for a Lambda
    x = keras.tree.map_structure(tf.constant, row.packed(dict(row.inputs)))
    outputs = keras.tree.flatten(model(x, training=False))
    assert export.signature_of(model).outputs == row.outputs
    return dict(zip(row.outputs, map(np.asarray, outputs), strict=True))


def litert(path, row):
    runner = tf.lite.Interpreter(str(path)).get_signature_runner()
    outputs = runner(**row.inputs)
    assert set(outputs) == set(row.outputs)
    return outputs


def onnx(path, row):
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
    assert {i.name for i in session.get_inputs()} == set(row.inputs)
    assert [i.name for i in session.get_outputs()] == list(row.outputs)
    outputs = session.run(None, dict(row.inputs))
    return dict(zip(row.outputs, outputs, strict=True))


RUNTIMES = {
    "saved_model": saved_model,
    "keras": keras_model,
    "litert": litert,
    "onnx": onnx,
}


# Of `tf.lite.Interpreter`, which TensorFlow 2.20 was to be without.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Interpreter is deprecated:UserWarning")
@pytest.mark.parametrize("name", export.FORMATS)
def test_a_file_returns_what_keras_does_by_name(masked, name, tmp_path, capfd):
    row, model, expected = masked
    format = export.FORMATS[name]
    path = tmp_path / f"model{format.suffix}"
    if name == "onnx":
        pytest.importorskip("tf2onnx")
    if name in row.refused:
        with pytest.raises(ValueError, match=r"^[^\n]*[Ww]rite [^\n]*$"):
            export.write(model, path, name)
        assert not list(tmp_path.iterdir())
        return
    export.write(model, path, name)
    # Converters print pages, even where they succeed.
    assert "error" not in capfd.readouterr().err
    found = RUNTIMES[format.runtime](path, row)
    for output, wanted in zip(row.outputs, expected, strict=True):
        wanted = wanted.astype("float32")
        error = np.abs(found[output].astype("float32") - wanted).max()
        assert error <= TOLERANCES[row.precision] * np.abs(wanted).max(), output
        assert np.abs(wanted).max() > 0

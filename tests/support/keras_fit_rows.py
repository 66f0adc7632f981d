"""Models, losses, metrics and data, each trained as Keras trains it.

One row is one way to call `compile` and `fit`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

L = keras.layers
N, HELD_OUT = 44, 20  # 44 is no multiple of the batch size


@dataclasses.dataclass
class Row:
    """A way to call `compile` and `fit`.

    Attributes:
        model: Makes the model.
        data: Makes what `fit` is given: `x`, `y`, `validation_data`, ….
        compile: Makes what `compile` is given; called for each model.
        batch_size: None: that of the stream.
        tolerance: How far apart numbers may be.
    """

    model: Callable[[], keras.Model]
    data: Callable[[], dict[str, Any]]
    compile: Callable[[], dict[str, Any]]
    batch_size: int | None = 10
    tolerance: float = 1e-5


def draw(seed=0):
    return np.random.default_rng(seed)


def arrays(x, y, weights=None):
    """Splits examples into training and validation data."""

    def part(rows):
        return keras.tree.map_structure(lambda a: a[rows], (x, y))

    (train_x, train_y), held_out = part(slice(0, N)), part(slice(N, None))
    given = {"x": train_x, "y": train_y, "validation_data": held_out}
    if weights is not None:
        given["sample_weight"] = weights[:N]
        given["validation_data"] = (*held_out, weights[N:])
    return given


def features(width=6, seed=0):
    return draw(seed).normal(size=(N + HELD_OUT, width)).astype("float32")


def labels(classes, shape=(), seed=1):
    size = (N + HELD_OUT, *shape)
    return draw(seed).integers(classes, size=size).astype("int32")


def targets(*shape, seed=2):
    return draw(seed).normal(size=(N + HELD_OUT, *shape)).astype("float32")


def weights():
    return draw(5).uniform(0.2, 3.0, N + HELD_OUT).astype("float32")


def images(channels=1):
    size = (N + HELD_OUT, 6, 6, channels)
    return draw(3).normal(size=size).astype("float32")


def padded(steps=7, words=9):
    """Sequences of words of different lengths, 0 where they have ended."""
    tokens = draw(4).integers(1, words, size=(N + HELD_OUT, steps))
    lengths = draw(6).integers(2, steps + 1, size=(N + HELD_OUT, 1))
    return np.where(np.arange(steps) < lengths, tokens, 0).astype("int32")


def dense(units=1, activation=None, width=6, **settings):
    def made():
        return keras.Sequential(
            [
                keras.Input((width,)),
                L.Dense(8, "relu"),
                L.Dense(units, activation, **settings),
            ]
        )

    return made


def by_momentum(**settings):
    # Not Adam: where a gradient is 0 but for rounding, its first step is not.
    return {"optimizer": keras.optimizers.SGD(0.02, momentum=0.8), **settings}


def compiled(**settings):
    """Returns a function that makes settings; callables are called."""
    makers = {
        name: value
        if callable(value) and getattr(value, "is_maker", False)
        else (lambda value=value: value)
        for name, value in settings.items()
    }
    return lambda: by_momentum(
        **{name: make() for name, make in makers.items()}
    )


def making(make):
    """Marks a function that makes a setting anew for each model."""
    make.is_maker = True
    return make


def convolutional():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(4, 3, padding="same"),
            L.BatchNormalization(),
            L.ReLU(),
            L.MaxPooling2D(),
            L.Dropout(0.3),
            L.Flatten(),
            L.Dense(3),
        ]
    )


def segmenting(classes, activation=None):
    def made():
        return keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                L.Conv2D(4, 3, padding="same", activation="relu"),
                L.Conv2D(classes, 1, activation=activation),
            ]
        )

    return made


def tagging():
    return keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            L.Embedding(9, 4, mask_zero=True),
            L.LSTM(5, return_sequences=True),
            L.Dense(3),
        ]
    )


def recurrent(layer):
    def made():
        return keras.Sequential(
            [
                keras.Input((7,), dtype="int32"),
                L.Embedding(9, 4, mask_zero=True),
                layer(),
                L.Dense(3),
            ]
        )

    return made


def transformer():
    tokens = keras.Input((7,), dtype="int32")
    x = L.Embedding(9, 8, mask_zero=True)(tokens)
    y = L.MultiHeadAttention(2, 4, dropout=0.1)(x, x)
    x = L.LayerNormalization()(x + y)
    x = L.Dense(8, "gelu")(x)
    x = L.GlobalAveragePooling1D()(L.Dropout(0.1)(x))
    return keras.Model(tokens, L.Dense(3)(x))


def two_towers():
    user, item = keras.Input((4,), name="user"), keras.Input((3,), name="item")
    vectors = [L.Dense(5)(user), L.Dense(5)(item)]
    score = L.Dense(1, "sigmoid")(L.Multiply()(vectors))
    return keras.Model({"user": user, "item": item}, score)


def two_heads_by_name():
    x = inputs = keras.Input((6,))
    x = L.Dense(8, "relu")(x)
    heads = {
        "kind": L.Dense(3, name="kind")(x),
        "size": L.Dense(1, name="size")(x),
    }
    return keras.Model(inputs, heads)


def two_heads_in_a_list():
    inputs = keras.Input((6,))
    x = L.Dense(8, "relu")(inputs)
    heads = [L.Dense(3, name="kind")(x), L.Dense(1, name="size")(x)]
    return keras.Model(inputs, heads)


def deeply_nested():
    a, b, c = (keras.Input((2,), name=name) for name in "abc")
    x = L.Dense(6, "relu")(L.Concatenate()([a, b, c]))
    heads = [L.Dense(2, name="one")(x), L.Dense(1, name="two")(x)]
    return keras.Model({"left": [a, b], "right": {"c": c}}, heads)


@keras.saving.register_keras_serializable("conformance")
class Backbone(keras.Model):
    """Takes a dictionary, as the backbones of KerasHub do."""

    def __init__(self, width=8, **settings):
        tokens = keras.Input((None,), dtype="int32", name="token_ids")
        mask = keras.Input((None,), dtype="int32", name="padding_mask")
        x = L.Embedding(9, width, name="embedding")(tokens)
        x = L.MultiHeadAttention(2, 4, name="attention")(
            x, x, attention_mask=mask[:, None, :]
        )
        super().__init__(
            inputs={"token_ids": tokens, "padding_mask": mask},
            outputs={"pooled": x[:, 0], "sequence": x},
            **settings,
        )
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


def hub_classifier():
    backbone = Backbone()
    pooled = backbone(backbone.input)["pooled"]
    return keras.Model(backbone.input, L.Dense(3, name="logits")(pooled))


def frozen_base():
    base = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(8, "relu"),
            L.BatchNormalization(),
        ],
        name="base",
    )
    base.layers[1].moving_mean.assign(np.full(8, 0.3, "float32"))
    base.trainable = False
    inputs = keras.Input((6,))
    return keras.Model(inputs, L.Dense(3)(base(inputs)))


def normalised():
    layer = L.Normalization()
    layer.adapt(5 + 3 * features(seed=8))
    return keras.Sequential(
        [keras.Input((6,)), layer, L.Dense(8, "relu"), L.Dense(1)]
    )


def from_words():
    layer = L.StringLookup(output_mode="multi_hot")
    layer.adapt([["red", "green", "blue"]])
    return keras.Sequential(
        [keras.Input((2,), dtype="string"), layer, L.Dense(3)]
    )


def words():
    names = np.array(["red", "green", "blue", "pink"], object)
    return tf.constant(names[draw(9).integers(4, size=(N + HELD_OUT, 2))])


def from_numbers():
    layer = L.IntegerLookup()
    layer.adapt([[3, 5, 7, 9]])
    return keras.Sequential(
        [
            keras.Input((2,), dtype="int64"),
            layer,
            L.Embedding(6, 4),
            L.Flatten(),
            L.Dense(3),
        ]
    )


def stateful():
    return keras.Sequential(
        [
            keras.Input(batch_shape=(11, 5, 1)),
            L.LSTM(4, stateful=True),
            L.Dense(1),
        ]
    )


def in_policy(policy, make):
    def made():
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return make()
        finally:
            keras.config.set_dtype_policy(before)

    return made


@keras.saving.register_keras_serializable("conformance")
class OwnTrainStep(keras.Model):
    """Adds noise-free label smoothing in a step of its own."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            loss = self.compute_loss(x, y, outputs) + 0.1 * tf.reduce_mean(
                outputs**2
            )
        self.optimizer.apply(
            tape.gradient(loss, self.trainable_weights), self.trainable_weights
        )
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, outputs)
        return {m.name: m.result() for m in self.metrics}


@keras.saving.register_keras_serializable("conformance")
class OwnLoss(keras.Model):
    """Computes a loss of its own."""

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        error = keras.ops.mean(keras.ops.abs(y_pred - y))
        return error + 0.01 * keras.ops.mean(y_pred**2)


@keras.saving.register_keras_serializable("conformance")
class OwnMetrics(keras.Model):
    """Reports one metric more than `compile` asks for."""

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        results = super().compute_metrics(x, y, y_pred, sample_weight)
        results["spread"] = keras.ops.max(y_pred) - keras.ops.min(y_pred)
        return results


def own(cls, units=3):
    def made():
        inputs = keras.Input((6,))
        x = L.Dense(8, "relu")(inputs)
        return cls(inputs, L.Dense(units)(x))

    return made


@keras.saving.register_keras_serializable("conformance")
class Contrast(L.Layer):
    """Adds the loss of pairs that lie side by side in a batch."""

    def call(self, vectors):
        near = keras.ops.roll(vectors, 1, axis=0)
        self.add_loss(keras.ops.mean((vectors - near) ** 2))
        return vectors


def contrastive():
    inputs = keras.Input((6,))
    vectors = L.Dense(4, name="vectors")(L.Dense(8, "relu")(inputs))
    return keras.Model(inputs, Contrast()(vectors))


@keras.saving.register_keras_serializable("conformance")
class Watching(L.Layer):
    """Keeps a metric of what passes."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.size = keras.metrics.Mean(name="size")

    def call(self, x):
        self.size.update_state(keras.ops.abs(x))
        return x


def watched():
    return keras.Sequential(
        [keras.Input((6,)), L.Dense(8, "relu"), Watching(), L.Dense(1)]
    )


def embedding_vectors():
    return keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(8, "relu"),
            L.Dense(4),
            L.UnitNormalization(),
        ]
    )


def autoencoder():
    return keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(4, "relu", activity_regularizer=keras.regularizers.L1(0.1)),
            L.Dense(6),
        ]
    )


def penalised():
    return keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(0.05)),
            L.Dense(1, bias_regularizer=keras.regularizers.L1(0.1)),
        ]
    )


def from_bytes():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1), dtype="uint8"),
            L.Rescaling(1 / 255),
            L.Conv2D(3, 3, activation="relu"),
            L.Flatten(),
            L.Dense(3),
        ]
    )


def speech():
    return keras.Sequential(
        [
            keras.Input((12, 4)),
            L.Dense(8, "relu"),
            L.Dense(5),
        ]
    )


def subclassed():
    @keras.saving.register_keras_serializable("conformance")
    class Small(keras.Model):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.one, self.two = L.Dense(8, "relu"), L.Dense(3)

        def call(self, x):
            return self.two(self.one(x))

        def build(self, shape):
            self.one.build(shape)
            self.two.build((*shape[:-1], 8))
            self.built = True

    model = Small()
    model.build((None, 6))
    return model


def scalar_loss(y, outputs):
    return keras.ops.mean((y - outputs) ** 2) + keras.ops.max(outputs)


@keras.saving.register_keras_serializable("conformance")
class OwnCall(keras.losses.Loss):
    """Knows how to reduce by itself."""

    def __call__(self, y, outputs, sample_weight=None):
        return keras.ops.mean(keras.ops.log(1 + (y - outputs) ** 2))


def largest_error(y, outputs):
    return keras.ops.max(keras.ops.abs(y - outputs), axis=-1)


@keras.saving.register_keras_serializable("conformance")
class Bias(keras.metrics.Metric):
    """The mean of outputs minus targets."""

    def __init__(self, name="bias", **settings):
        super().__init__(name=name, **settings)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.number = self.add_weight(name="number", initializer="zeros")

    def update_state(self, y, outputs, sample_weight=None):
        self.total.assign_add(keras.ops.sum(outputs - y))
        self.number.assign_add(
            keras.ops.cast(keras.ops.size(y), self.number.dtype)
        )

    def result(self):
        return self.total / self.number


def one_hot(classes=3):
    return np.eye(classes, dtype="float32")[labels(classes)]


def regression():
    return arrays(features(), targets(1))


def classification():
    return arrays(features(), labels(3))


def segmentation(*shape):
    return lambda: arrays(images(), labels(3, (6, 6, *shape)))


def masks_of_images():
    return arrays(images(), labels(2, (6, 6, 1)).astype("float32"))


def sentences():
    return arrays(padded(), labels(3))


def both(names=("kind", "size")):
    def made():
        y = (labels(3), targets(1))
        y = dict(zip(names, y, strict=True)) if names else list(y)
        return arrays(features(), y)

    return made


def both_weighted():
    given = both()()
    w, v = weights(), weights()[::-1]
    given["sample_weight"] = {"kind": w[:N], "size": v[:N]}
    x, y = given["validation_data"]
    given["validation_data"] = x, y, {"kind": w[N:], "size": v[N:]}
    return given


def sparse_logits(**settings):
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, **settings
    )


def sparse(**settings):
    return compiled(
        loss=making(sparse_logits), metrics=["accuracy"], **settings
    )


def hub_tokens():
    tokens = padded()
    mask = (tokens > 0).astype("int32")
    return arrays({"token_ids": tokens, "padding_mask": mask}, labels(3))


def speech_data():
    x = draw(3).normal(size=(N + HELD_OUT, 12, 4)).astype("float32")
    return arrays(x, 1 + labels(4, (3,)))


def in_batches(given, size):
    """Yields batches of arrays."""
    count = len(keras.tree.flatten(given)[0])
    for i in range(0, count, size):
        yield keras.tree.map_structure(lambda a, i=i: a[i : i + size], given)


def as_dataset():
    given = arrays(features(), labels(3), weights())
    parts = given["x"], given["y"], given["sample_weight"]
    return {
        "x": tf.data.Dataset.from_tensor_slices(parts).batch(10),
        "validation_data": tf.data.Dataset.from_tensor_slices(
            given["validation_data"]
        ).batch(10),
    }


class Batches(keras.utils.PyDataset):
    """Batches of arrays, by number."""

    def __init__(self, *given, **settings):
        super().__init__(**settings)
        self._batches = list(in_batches(given, 10))

    def __len__(self):
        return len(self._batches)

    def __getitem__(self, index):
        return self._batches[index]


def as_py_dataset():
    given = arrays(features(), labels(3))
    return {
        "x": Batches(given["x"], given["y"]),
        "validation_data": Batches(*given["validation_data"]),
    }


def as_generator():
    given = arrays(features(), labels(3))

    def forever():
        while True:
            yield from in_batches((given["x"], given["y"]), 11)

    return {
        "x": forever(),
        "steps_per_epoch": 4,
        "validation_data": given["validation_data"],
    }


def as_frames():
    x = pd.DataFrame(features(), columns=list("abcdef"))
    y = pd.Series(labels(3))
    return {
        "x": x[:N],
        "y": y[:N],
        "validation_data": (x[N:], y[N:]),
    }


def as_columns():
    x, y = features(width=7), targets(1)
    columns = {
        "user": tf.constant(x[:, :4]),
        "item": tf.constant(x[:, 4:]),
    }
    return {
        "x": {"user": columns["user"][:N], "item": columns["item"][:N]},
        "y": tf.constant((y[:N] > 0).astype("float32")),
        "validation_data": (
            {"user": columns["user"][N:], "item": columns["item"][N:]},
            (y[N:] > 0).astype("float32"),
        ),
    }


def towers():
    x = features(width=7)
    y = (targets(1) > 0).astype("float32")
    return arrays({"user": x[:, :4], "item": x[:, 4:]}, y)


def nested_data():
    x = features()
    tree = {"left": [x[:, :2], x[:, 2:4]], "right": {"c": x[:, 4:]}}
    return arrays(tree, [labels(2), targets(1)])


def series():
    x = draw(3).normal(size=(66, 5, 1)).astype("float32")
    return {"x": x[:44], "y": x[:44].sum(axis=1)}


def autoencoded():
    return arrays(features(), features())


def unlabelled():
    x = features()
    return {"x": x[:N], "validation_data": (x[N:], None)}


F16 = "mixed_float16"
ROWS = {
    "binary, sigmoid": Row(
        dense(1, "sigmoid"),
        lambda: arrays(features(), labels(2)),
        compiled(loss="binary_crossentropy", metrics=["accuracy"]),
    ),
    "binary, logits": Row(
        dense(1),
        lambda: arrays(features(), labels(2, (1,)).astype("float32")),
        compiled(
            loss=making(lambda: keras.losses.BinaryCrossentropy(True)),
            metrics=making(
                lambda: [
                    keras.metrics.BinaryAccuracy(threshold=0.0),
                    keras.metrics.AUC(from_logits=True),
                ]
            ),
        ),
    ),
    "binary, focal": Row(
        dense(1, "sigmoid"),
        lambda: arrays(features(), labels(2)),
        compiled(loss="binary_focal_crossentropy", metrics=["acc", "mse"]),
    ),
    "classes, logits": Row(dense(3), classification, sparse()),
    "classes in a column": Row(
        dense(3), lambda: arrays(features(), labels(3, (1,))), sparse()
    ),
    "classes, by names": Row(
        dense(3, "softmax"),
        classification,
        compiled(
            loss="sparse_categorical_crossentropy",
            metrics=["sparse_categorical_accuracy"],
        ),
    ),
    "classes, smoothed": Row(
        dense(3, "softmax"),
        lambda: arrays(features(), one_hot()),
        compiled(
            loss=making(
                lambda: keras.losses.CategoricalCrossentropy(
                    label_smoothing=0.1
                )
            ),
            metrics=making(
                lambda: [
                    keras.metrics.CategoricalAccuracy(name="top1"),
                    keras.metrics.TopKCategoricalAccuracy(k=2),
                    keras.metrics.F1Score(average="macro"),
                    keras.metrics.OneHotMeanIoU(3),
                ]
            ),
        ),
    ),
    "several labels": Row(
        dense(4, "sigmoid"),
        lambda: arrays(features(), labels(2, (4,)).astype("float32")),
        compiled(
            loss="binary_crossentropy",
            metrics=making(
                lambda: [
                    keras.metrics.BinaryAccuracy(),
                    keras.metrics.AUC(multi_label=True, num_labels=4),
                    keras.metrics.Precision(),
                    keras.metrics.F1Score(),
                ]
            ),
        ),
    ),
    "regression": Row(
        dense(1),
        regression,
        compiled(
            loss="mse",
            metrics=making(
                lambda: [
                    "mae",
                    keras.metrics.RootMeanSquaredError(),
                    keras.metrics.R2Score(),
                ]
            ),
        ),
    ),
    "regression, several": Row(
        dense(3),
        lambda: arrays(features(), targets(3)),
        compiled(
            loss=making(lambda: keras.losses.Huber(0.5)),
            metrics=making(lambda: [keras.metrics.CosineSimilarity()]),
        ),
    ),
    "regression, vector": Row(
        dense(1),
        lambda: arrays(features(), targets()),
        compiled(loss="mae", metrics=["mse"]),
    ),
    "counts": Row(
        dense(1, "softplus"),
        lambda: arrays(features(), labels(5).astype("float32")),
        compiled(loss="poisson"),
    ),
    "hinge": Row(
        dense(1, "tanh"),
        lambda: arrays(features(), 2 * labels(2) - 1),
        compiled(loss="hinge", metrics=["hinge"]),
    ),
    "segmentation": Row(
        segmenting(3),
        segmentation(),
        compiled(
            loss=making(sparse_logits),
            metrics=making(
                lambda: [
                    "accuracy",
                    keras.metrics.MeanIoU(3, sparse_y_pred=False),
                ]
            ),
        ),
    ),
    "segmentation, one channel": Row(segmenting(3), segmentation(1), sparse()),
    "segmentation, ignored class": Row(
        segmenting(3),
        segmentation(),
        compiled(
            loss=making(lambda: sparse_logits(ignore_class=0)),
            metrics=["accuracy"],
        ),
    ),
    "segmentation, Dice": Row(
        segmenting(1, "sigmoid"),
        masks_of_images,
        compiled(
            loss=making(keras.losses.Dice),
            metrics=making(
                lambda: [
                    keras.metrics.BinaryIoU(),
                    keras.metrics.Precision(),
                ]
            ),
        ),
    ),
    "segmentation, Tversky": Row(
        segmenting(1, "sigmoid"),
        masks_of_images,
        compiled(
            loss=making(keras.losses.Tversky), metrics=["binary_accuracy"]
        ),
    ),
    "tagging": Row(
        tagging, lambda: arrays(padded(), labels(3, (7,))), sparse()
    ),
    "speech": Row(speech, speech_data, compiled(loss=making(keras.losses.CTC))),
    "vectors in circles": Row(
        embedding_vectors,
        classification,
        compiled(loss=making(keras.losses.Circle)),
    ),
    "contrast": Row(contrastive, unlabelled, compiled(loss=None)),
    "autoencoder": Row(autoencoder, autoencoded, compiled(loss="mse")),
    "penalties": Row(
        penalised, regression, compiled(loss="mse", metrics=["mae"])
    ),
    "GRU": Row(recurrent(lambda: L.GRU(5)), sentences, sparse()),
    "BiLSTM": Row(
        recurrent(lambda: L.Bidirectional(L.LSTM(4))), sentences, sparse()
    ),
    # XLA draws other numbers for dropout than TensorFlow does without it.
    "transformer": Row(transformer, sentences, sparse(jit_compile=False)),
    "two towers": Row(
        two_towers,
        towers,
        compiled(
            loss="binary_crossentropy",
            metrics=making(lambda: ["accuracy", keras.metrics.AUC()]),
        ),
    ),
    "two towers, of columns": Row(
        two_towers, as_columns, compiled(loss="binary_crossentropy")
    ),
    "two heads, by name": Row(
        two_heads_by_name,
        both(),
        compiled(
            loss=making(lambda: {"kind": sparse_logits(), "size": "mse"}),
            loss_weights={"kind": 1.0, "size": 0.3},
            metrics={"kind": ["accuracy"], "size": ["mae", "mse"]},
        ),
    ),
    "two heads, in a list": Row(
        two_heads_in_a_list,
        both(()),
        compiled(
            loss=making(lambda: [sparse_logits(), "mse"]),
            loss_weights=[0.5, 2.0],
            metrics=[["accuracy"], ["mae"]],
            weighted_metrics=[["accuracy"], ["mse"]],
        ),
    ),
    "two heads, weighted": Row(
        two_heads_by_name,
        both_weighted,
        compiled(
            loss=making(lambda: {"kind": sparse_logits(), "size": "mse"}),
            weighted_metrics={"kind": ["accuracy"], "size": ["mse"]},
        ),
    ),
    "two heads, one without a loss": Row(
        two_heads_by_name,
        both(),
        compiled(
            loss=making(lambda: {"kind": sparse_logits(), "size": None}),
            metrics={"kind": ["accuracy"]},
        ),
    ),
    "nested": Row(
        deeply_nested,
        nested_data,
        compiled(
            loss=making(lambda: [sparse_logits(), "mse"]),
            metrics=[["accuracy"], ["mae"]],
        ),
    ),
    "backbone": Row(hub_classifier, hub_tokens, sparse()),
    "frozen base": Row(frozen_base, classification, sparse()),
    "adapted normalisation": Row(
        normalised,
        lambda: arrays(5 + 3 * features(), targets(1)),
        compiled(loss="mse"),
    ),
    "words": Row(from_words, lambda: arrays(words(), labels(3)), sparse()),
    "numbers looked up": Row(
        from_numbers,
        lambda: arrays(labels(10, (2,), seed=7).astype("int64"), labels(3)),
        sparse(),
    ),
    "stateful": Row(stateful, series, compiled(loss="mse"), batch_size=11),
    "half precision": Row(
        in_policy(F16, dense(3)), classification, sparse(), tolerance=3e-2
    ),
    "bfloat16": Row(
        in_policy("mixed_bfloat16", dense(3)),
        classification,
        sparse(),
        tolerance=3e-2,
    ),
    "own train_step": Row(own(OwnTrainStep), classification, sparse()),
    "own compute_loss": Row(
        own(OwnLoss, 1), regression, compiled(metrics=["mae"])
    ),
    "own compute_metrics": Row(
        own(OwnMetrics, 1), regression, compiled(loss="mse", metrics=["mae"])
    ),
    "subclassed": Row(subclassed, classification, sparse()),
    "convolutions": Row(
        convolutional, lambda: arrays(images(), labels(3)), sparse()
    ),
    "bytes": Row(
        from_bytes,
        lambda: arrays(
            labels(256, (6, 6, 1), seed=7).astype("uint8"), labels(3)
        ),
        sparse(),
    ),
    "weighted examples": Row(
        dense(1),
        lambda: arrays(features(), targets(1), weights()),
        compiled(loss="mse", metrics=["mae"], weighted_metrics=["mae", "mse"]),
    ),
    "weighted, mean by weights": Row(
        dense(1),
        lambda: arrays(features(), targets(1), weights()),
        compiled(
            loss=making(
                lambda: keras.losses.MeanSquaredError(
                    reduction="mean_with_sample_weight"
                )
            )
        ),
    ),
    "weighted classes": Row(
        dense(3),
        lambda: {**classification(), "class_weight": {0: 3.0, 2: 0.5}},
        sparse(weighted_metrics=["accuracy"]),
    ),
    "summed": Row(
        dense(1),
        regression,
        compiled(
            loss=making(lambda: keras.losses.MeanSquaredError(reduction="sum"))
        ),
    ),
    "split off": Row(
        dense(1),
        lambda: {"x": features(), "y": targets(1), "validation_split": 0.3},
        compiled(loss="mse"),
    ),
    "loss of a batch": Row(
        dense(1), regression, compiled(loss=scalar_loss, metrics=["mae"])
    ),
    "loss with a call": Row(
        dense(1), regression, compiled(loss=making(OwnCall))
    ),
    "metrics of one's own": Row(
        dense(2),
        lambda: arrays(features(), targets(2)),
        compiled(
            loss="mse",
            metrics=making(
                lambda: [
                    largest_error,
                    Bias(),
                    keras.metrics.MeanMetricWrapper(largest_error, "worst"),
                ]
            ),
        ),
    ),
    "metric in a layer": Row(watched, regression, compiled(loss="mse")),
    "tf.data": Row(
        dense(3), as_dataset, sparse(weighted_metrics=["accuracy"]), None
    ),
    "PyDataset": Row(dense(3), as_py_dataset, sparse(), None),
    "generator": Row(dense(3), as_generator, sparse(), None),
    "pandas": Row(dense(3), as_frames, sparse()),
    "decaying": Row(
        dense(3),
        classification,
        lambda: {
            "optimizer": keras.optimizers.AdamW(
                keras.optimizers.schedules.CosineDecay(0.02, 12),
                weight_decay=0.1,
                clipnorm=0.5,
            ),
            "loss": sparse_logits(),
            "metrics": ["accuracy"],
        },
    ),
    "without XLA": Row(dense(3), classification, sparse(jit_compile=False)),
    "optimizer by name": Row(
        dense(1), regression, lambda: {"optimizer": "sgd", "loss": "mse"}
    ),
}

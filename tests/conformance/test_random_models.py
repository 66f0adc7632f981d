"""Random models, losses and metrics train in a search as in Keras."""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from keras_fit_rows import N, Row, arrays, by_momentum, draw
from same_training import require_same

pytestmark = pytest.mark.slow

L = keras.layers

CLASSES = {
    "sparse_categorical_crossentropy": ["accuracy"],
    "categorical_crossentropy": ["accuracy", "mse"],
    "kl_divergence": ["categorical_accuracy", "mse"],
}
NUMBERS = {
    "mse": ["mae", "root_mean_squared_error"],
    "huber": ["mse"],
    "log_cosh": ["cosine_similarity", "mse"],
    "mae": ["mse"],
}
HALVES = {"binary_crossentropy": ["accuracy", "auc"], "hinge": ["mse"]}


@dataclasses.dataclass(frozen=True)
class Head:
    """An output of a random model, with its loss and metrics."""

    units: int
    loss: str
    metrics: tuple[str, ...]
    weight: float

    @property
    def activation(self):
        if self.loss in CLASSES:
            return "softmax"
        return "sigmoid" if self.loss in HALVES else None

    def targets(self, seed):
        size = N + 20
        labels = draw(seed).integers(self.units, size=size)
        if self.loss == "sparse_categorical_crossentropy":
            return labels.astype("int32")
        if self.loss in CLASSES:
            return np.eye(self.units, dtype="float32")[labels]
        numbers = draw(seed).normal(size=(size, self.units)).astype("float32")
        return (
            (numbers > 0).astype("float32") if self.loss in HALVES else numbers
        )


@st.composite
def heads(sample):
    losses = {**CLASSES, **NUMBERS, **HALVES}
    loss = sample(st.sampled_from(sorted(losses)))
    metrics = sample(
        st.lists(st.sampled_from(losses[loss]), max_size=2, unique=True)
    )
    fewest = 2 if loss in CLASSES else 1
    return Head(
        sample(st.integers(fewest, 6)),
        loss,
        tuple(metrics),
        sample(st.sampled_from([0.3, 1.0, 2.0])),
    )


@st.composite
def rows(sample):
    widths = sample(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    hidden = sample(
        st.lists(
            st.sampled_from(["dense", "norm", "residual", "penalty"]),
            max_size=3,
        )
    )
    ends = sample(st.lists(heads(), min_size=1, max_size=3))
    is_weighted = sample(st.booleans())
    size = sample(st.sampled_from([7, 11, 44]))

    def model():
        inputs = [
            keras.Input((w,), name=f"in_{i}") for i, w in enumerate(widths)
        ]
        x = L.Concatenate()(inputs) if len(inputs) > 1 else inputs[0]
        x = L.Dense(5, "tanh")(x)
        for kind in hidden:
            x = grown(x, kind)
        outputs = [
            L.Dense(h.units, h.activation, name=f"out_{i}")(x)
            for i, h in enumerate(ends)
        ]
        return keras.Model(
            inputs if len(inputs) > 1 else inputs[0],
            outputs if len(outputs) > 1 else outputs[0],
        )

    def data():
        x = [
            draw(i).normal(size=(N + 20, w)).astype("float32")
            for i, w in enumerate(widths)
        ]
        y = [head.targets(10 + i) for i, head in enumerate(ends)]
        one = draw(5).uniform(0.2, 2.0, N + 20).astype("float32")
        weights = [one] * len(y) if len(y) > 1 else one
        made = arrays(x if len(x) > 1 else x[0], y if len(y) > 1 else y[0])
        if is_weighted:
            made["sample_weight"] = keras.tree.map_structure(
                lambda w: w[:N], weights
            )
        return made

    def compiled():
        if len(ends) == 1:
            (head,) = ends
            return by_momentum(
                loss=head.loss,
                metrics=list(head.metrics),
                jit_compile=False,
            )
        return by_momentum(
            loss=[head.loss for head in ends],
            loss_weights=[head.weight for head in ends],
            metrics=[list(head.metrics) for head in ends],
            weighted_metrics=[list(head.metrics[:1]) for head in ends],
            jit_compile=False,
        )

    return Row(model, data, compiled, size)


def grown(x, kind):
    if kind == "dense":
        return L.Dense(4, "relu")(x)
    if kind == "norm":
        return L.LayerNormalization()(x)
    if kind == "penalty":
        return L.Dense(5, activity_regularizer="l2", kernel_regularizer="l1")(x)
    return L.Add()([x, L.Dense(x.shape[-1], "tanh")(x)])


# Without shrinking, which would train hundreds of models.
@settings(max_examples=10, phases=[Phase.generate])
@given(rows())
def test_a_random_model_trains_as_in_keras(row):
    require_same(row)

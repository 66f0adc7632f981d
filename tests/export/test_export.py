"""Exported files, loaded where tf_lottery cannot be imported."""

import dataclasses
import importlib.util
import itertools
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import sample_tickets
import tensorflow as tf
import toy
from sample_tickets import trained_ticket

from tf_lottery import export, masking, models
from tf_lottery.export import (
    benchmark_worker,
    evaluation,
    suppress_output,
    verification,
)

REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "tf_lottery":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
"""
SERVE = """
import numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
x = np.load(sys.argv[2])
signature = loaded.signatures["serving_default"]
name = list(signature.structured_input_signature[1])[0]
(out,) = signature(**{name: tf.constant(x)}).values()
np.testing.assert_array_equal(out, loaded.serve(x))
np.save(sys.argv[3], out)
"""


def serve(path, x, tmp_path):
    """Loads a SavedModel in a process that can import no tf_lottery."""
    np.save(tmp_path / "x.npy", x)
    arguments = [path, tmp_path / "x.npy", tmp_path / "out.npy"]
    subprocess.run(
        [sys.executable, "-I", "-c", REFUSE + SERVE, *map(str, arguments)],
        check=True,
        capture_output=True,
    )
    return np.load(tmp_path / "out.npy")


@pytest.mark.slow
@pytest.mark.parametrize("model", [toy.mlp, toy.convnet])
def test_a_ticket_is_served_with_its_trained_weights(model, tmp_path):
    ticket = trained_ticket(model())
    path = export.saved_model(ticket, tmp_path / "served")
    x, _ = toy.digits(50)
    expected = ticket.model().predict(x, verbose=0)
    np.testing.assert_allclose(
        serve(path, x, tmp_path), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_the_rewound_weights_are_exported_on_demand(tmp_path):
    ticket = trained_ticket(toy.mlp())
    path = export.saved_model(ticket, tmp_path / "served", rewound=True)
    x, _ = toy.digits(50)
    expected = ticket.build().predict(x, verbose=0)
    np.testing.assert_allclose(
        serve(path, x, tmp_path), expected, rtol=1e-5, atol=1e-6
    )


# Every format.

ALL = [
    (name, dtype) for name, f in export.FORMATS.items() for dtype in f.dtypes
]
# How far logits of about 1 may lie apart.
TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "int8": 5e-2}


OUTPUTS = """
import runpy
import numpy as np
worker = runpy.run_path(sys.argv[1])
x, outputs = np.load(sys.argv[2]), {}
for number, argument in enumerate(sys.argv[4:]):
    runtime, path = argument.split("=", 1)
    names = {"inputs": None, "outputs": None}
    (outputs[str(number)],) = worker["RUNTIMES"][runtime](path, names, 1)([x])
np.savez(sys.argv[3], **outputs)
"""


def needs(name):
    if name == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")


def network():
    """As `toy.convnet`, and wide enough for LiteRT to round it to int8."""
    image = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, padding="same")(image)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(x))
    x = keras.layers.Dense(64, "relu")(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Dense(3)(x))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Outputs of a ticket, whole and shrunk, of the network and every file."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("formats")
    ticket = trained_ticket(network(), density=0.2)
    shrunk = export.shrink(ticket, skip_inputs=True)
    assert shrunk.after < shrunk.before
    files = {}
    for (name, dtype), source in itertools.product(ALL, (ticket, shrunk.model)):
        if name == "onnx" and not importlib.util.find_spec("tf2onnx"):
            continue
        format = export.FORMATS[name]
        key = name, dtype, source is ticket
        path = folder / f"{'_'.join(map(str, key))}{format.suffix}"
        assert export.write(source, path, name, dtype) == path
        files[key] = f"{format.runtime}={path}"
    x, _ = toy.digits(20)
    np.save(folder / "x.npy", x)
    arguments = [
        benchmark_worker.__file__,
        folder / "x.npy",
        folder / "out.npz",
    ]
    # In a process that can import no tf_lottery.
    subprocess.run(
        [sys.executable, "-I", "-c", REFUSE + OUTPUTS]
        + [str(argument) for argument in (*arguments, *files.values())],
        check=True,
        capture_output=True,
    )
    with np.load(folder / "out.npz") as arrays:
        outputs = {key: arrays[str(n)] for n, key in enumerate(files)}
    return ticket.model().predict(x, verbose=0), outputs


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "shrunk"])
@pytest.mark.parametrize(("name", "dtype"), ALL)
def test_a_file_gives_the_outputs_of_the_ticket(exported, name, dtype, whole):
    needs(name)
    expected, outputs = exported
    output = outputs[name, dtype, whole]
    assert output.dtype == np.float32
    error = np.abs(output - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE[dtype]
    # A dtype that changed nothing would be none.
    assert (error > 1e-5) == (dtype != "float32")


@pytest.mark.parametrize("name", export.FORMATS)
def test_a_format_replaces_its_own_kind_only(name, tmp_path):
    needs(name)
    format = export.FORMATS[name]
    path = tmp_path / f"out{format.suffix}"
    for _ in range(2):
        export.write(toy.mlp(), path, name)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    other = tmp_path / f"other{format.suffix}"
    if format.suffix:
        other.mkdir()
    else:
        other.write_text("years")
    with pytest.raises(ValueError, match="exists and"):
        export.write(toy.mlp(), other, name)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [path.name, other.name]
    )


def test_unknown_formats_and_dtypes_say_which_there_are(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'litert'"):
        export.write(toy.mlp(), tmp_path / "x", "litrt")
    message = "'keras' stores float32; got 'int8', which sparse_saved_model and"
    with pytest.raises(ValueError, match=message):
        export.write(toy.mlp(), tmp_path / "x", "keras", "int8")
    with pytest.raises(ValueError, match="'float64', which no format can"):
        export.write(toy.mlp(), tmp_path / "x", "keras", "float64")


def test_a_keras_file_must_be_called_one(tmp_path):
    with pytest.raises(ValueError, match="does not end in .keras"):
        export.keras_file(toy.mlp(), tmp_path / "model")


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path):
    (tmp_path / "file").write_text("years")
    with pytest.raises(ValueError, match="Cannot write .*Export somewhere"):
        export.litert(toy.mlp(), tmp_path / "file" / "model")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'tf-lottery\[onnx\]'"):
        export.onnx(toy.mlp(), tmp_path / "x")


# Sparse.


def variables_of(path):
    files = pathlib.Path(path).glob("variables/*")
    return sum(file.stat().st_size for file in files)


@pytest.mark.parametrize("density", [0.036, 0.2])
def test_sparse_weights_take_little_more_than_their_entropy(density, tmp_path):
    model = masking.mask_model(models.build_model("lenet_300_100"))
    masks = toy.random_masks(model, density)
    masking.set_masks(model, masks)
    export.saved_model(model, tmp_path / "dense")
    export.sparse_saved_model(model, tmp_path / "sparse")
    entropy = sum(
        -m.size * (p * np.log2(p) + (1 - p) * np.log2(1 - p))
        for m in masks.values()
        for p in [m.mean()]
    )
    bound = 4 * masks.kept + entropy / 8 + 4 * 410
    assert bound < variables_of(tmp_path / "sparse") < 1.15 * bound
    share = variables_of(tmp_path / "sparse") / variables_of(tmp_path / "dense")
    assert share < (0.1 if density < 0.1 else 0.3)


def test_two_sparse_saved_models_in_one_process_stay_apart(tmp_path):
    x, _ = toy.digits(20)
    for seed in (0, 1):
        model = toy.mlp(seed=seed)
        export.sparse_saved_model(model, tmp_path / str(seed))
    loaded = [tf.saved_model.load(str(tmp_path / n)) for n in "010"]
    for seed, one in zip((0, 1, 0), loaded, strict=True):
        expected = toy.mlp(seed=seed)(x)
        np.testing.assert_allclose(one.serve(x), expected, atol=1e-6)


def test_a_sparse_saved_model_is_unpacked_once_at_load(tmp_path):
    export.sparse_saved_model(toy.mlp(), tmp_path / "sparse")
    loaded = tf.saved_model.load(str(tmp_path / "sparse"))
    graph = loaded.signatures["serving_default"].graph.as_graph_def()
    functions = [node for f in graph.library.function for node in f.node_def]
    operations = {node.op for node in [*graph.node, *functions]}
    assert "MatMul" in operations
    assert "ScatterNd" not in operations


# The table.


@pytest.mark.slow
def test_the_table_speaks_for_the_files_themselves(tmp_path):
    x, y = toy.digits(300)
    network, other = toy.mlp(seed=3), toy.mlp(seed=4)
    format = export.FORMATS["saved_model"]
    path = export.saved_model(network, tmp_path / "served")
    # A file that is not of the model that it claims to be of shows.
    exports = [
        export.comparison.Export(name, path, format, model.predict(x), "why")
        for name, model in (("right", network), ("wrong", other))
    ]
    right, wrong = export.comparison.compare(exports, x, y, calls=3)
    classes = network.predict(x).argmax(axis=-1)
    assert right.accuracy == wrong.accuracy
    assert right.accuracy == pytest.approx((classes == y).mean(), abs=1e-7)
    assert right.agreement == 1
    agreement = (other.predict(x).argmax(axis=-1) == classes).mean()
    assert wrong.agreement == agreement < 1
    files = [p for p in path.rglob("*") if p.is_file()]
    assert right.size == sum(p.stat().st_size for p in files)
    assert 0 < right.gzipped < right.size
    assert right.loading is None or 0 < right.loading < 2**30
    low, high = right.latency(1)[1:]
    assert 0 < low <= right.latency(1)[0] <= high
    table = export.comparison.table([right, wrong]).splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| right",
        "| wrong",
    ]
    lines = export.comparison.sentences([right, wrong], threads=1)
    assert len(lines) == 2
    assert lines[1].startswith("wrong, by right: ")
    assert lines[1].endswith("why.")


@pytest.mark.slow
def test_a_file_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "x.keras").write_text("years")
    bad = export.comparison.Export(
        "bad",
        tmp_path / "x.keras",
        export.FORMATS["keras"],
        np.ones((1, 3)),
        "",
    )
    with pytest.raises(ValueError, match="x.keras cannot be measured: "):
        export.comparison.compare([bad], *toy.digits(5))


def test_zeros_are_kept_and_each_weight_is_stored_once(tmp_path):
    ticket = trained_ticket(toy.mlp())
    path = export.saved_model(ticket, tmp_path / "served")
    loaded = tf.saved_model.load(str(path))
    stored = {tuple(v.shape): v.numpy() for v in loaded.weights}
    for name, mask in ticket.masks.items():
        assert np.array_equal(stored[mask.shape], ticket.trained[name])
        assert (stored[mask.shape] != 0).sum() == mask.sum()
    names = [
        n for n, _ in tf.train.list_variables(str(path / "variables/variables"))
    ]
    assert len([n for n in names if n.endswith("VARIABLE_VALUE")]) == 6


@pytest.mark.slow
def test_a_masked_keras_model_is_exported_too(tmp_path):
    model = masking.mask_model(toy.convnet())
    masking.set_masks(model, toy.random_masks(model))
    path = export.saved_model(model, tmp_path / "served")
    x, _ = toy.digits(20)
    np.testing.assert_allclose(
        serve(path, x, tmp_path), model(x), rtol=1e-5, atol=1e-6
    )


def test_exporting_again_replaces_the_saved_model(tmp_path):
    ticket = trained_ticket(toy.mlp())
    for _ in range(2):
        export.saved_model(ticket, tmp_path / "served")
    assert [p.name for p in tmp_path.iterdir()] == ["served"]


def test_another_directory_is_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="holds no saved_model.pb"):
        export.saved_model(trained_ticket(toy.mlp()), tmp_path / "mine")
    assert pathlib.Path(tmp_path / "mine" / "thesis.tex").read_text() == "years"


def test_a_ticket_without_trained_weights_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no trained weights"):
        export.saved_model(sample_tickets.make(), tmp_path / "served")
    assert not list(tmp_path.iterdir())


# A file is loaded and compared before it is kept.


class Noisy(keras.layers.Layer):
    """Draws at inference too, so that no two calls are alike."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return inputs + keras.random.normal((4,), seed=self.seeds)


def noisy():
    return keras.Sequential([keras.Input((4,), name="x"), Noisy(name="y")])


@pytest.mark.parametrize("name", ["litert", "onnx"])
def test_a_file_that_computes_something_else_is_not_kept(name, tmp_path):
    needs(name)
    path = tmp_path / "file"
    path.write_bytes(b"an older file")
    with pytest.raises(ValueError, match=r"^[^\n]* [Ww]rite [^\n]*$"):
        export.write(noisy(), path, name)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"an older file"


def test_a_file_that_differs_says_how_far_and_what_is_allowed(tmp_path):
    model = keras.Sequential(
        [keras.Input((64,), name="x"), keras.layers.Dense(32, name="y")]
    )
    # Beside a weight of 1,000,000, those of 1 are nothing in 8 bits.
    kernel = np.ones((64, 32), "float32")
    kernel[0] = 1e6
    model.layers[0].kernel.assign(kernel)
    x = np.ones((2, 64), "float32")
    x[:, 0] = 0
    message = "another 'y' than Keras: they differ by 1 of .* 0.25 is allowed"
    with pytest.raises(ValueError, match=message):
        export.litert(model, tmp_path / "x.tflite", dtype="int8", x=x)
    assert not list(tmp_path.iterdir())
    x[:, 0] = 1
    export.litert(model, tmp_path / "x.tflite", dtype="int8", x=x)


@pytest.mark.parametrize(
    ("output", "expected", "difference"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([0.0, 1e-9], [0.0, 0.0], 1e-9),
        ([np.nan, 4.0], [np.nan, 2.0], 1.0),
        ([1.0, 2.0], [np.nan, 2.0], np.inf),
        ([np.nan, 2.0], [1.0, 2.0], np.inf),
        ([[1.0]], [1.0], np.inf),
        ([1, 2, 3, 4], [1, 2, 3, 5], 0.25),
    ],
)
def test_difference_is_relative_to_the_largest(output, expected, difference):
    measured = verification.relative_difference(output, expected)
    assert measured == pytest.approx(difference)


def test_a_model_that_random_examples_do_not_fit_asks_for_some(tmp_path):
    class Table(keras.layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(1, 3))

        def call(self, inputs):
            return keras.ops.take(self.table, inputs - 40, axis=0)

    inputs = keras.Input((), dtype="int32", name="code")
    model = keras.Model(inputs, Table(name="row")(inputs))
    with pytest.raises(ValueError, match="not run on random.*Give examples"):
        export.saved_model(model, tmp_path / "served")
    assert not list(tmp_path.iterdir())
    x = np.full(3, 40, "int32")
    path = export.saved_model(model, tmp_path / "served", x=x)
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert [*served.structured_outputs] == ["row"]
    with pytest.raises(ValueError, match=r"`x` must hold .*code \(None,\)"):
        export.saved_model(model, tmp_path / "served", x=np.ones((2, 2)))


def test_exporting_leaves_a_model_as_it_is(tmp_path):
    policy = keras.DTypePolicy("mixed_float16")
    steps = keras.Input(batch_shape=(2, 3, 4))
    recurrent = keras.layers.LSTM(4, stateful=True, dtype=policy)
    model = keras.Model(steps, recurrent(steps))
    model(np.ones((2, 3, 4)))
    state = [np.array(s) for s in recurrent.states]
    assert np.abs(state).max() > 0
    for name in ("saved_model", "sparse_saved_model", "litert"):
        export.write(model, tmp_path / name, name)
    for now, before in zip(recurrent.states, state, strict=True):
        assert np.array_equal(now, before)
    assert recurrent.dtype_policy.name == "mixed_float16"
    assert not recurrent.unroll


def test_a_state_is_kept_from_call_to_call(tmp_path):
    steps = keras.Input(batch_shape=(2, 3, 4), name="steps")
    layer = keras.layers.LSTM(4, stateful=True, name="y")
    model = keras.Model(steps, layer(steps))
    path = export.sparse_saved_model(model, tmp_path / "served")
    loaded, x = tf.saved_model.load(str(path)), tf.ones((2, 3, 4))
    first, second = loaded.serve(x), loaded.serve(x)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(first, model(x), atol=1e-6)
    np.testing.assert_allclose(second, model(x), atol=1e-6)


# What a converter cannot do ends in one line.


def recurrent(steps, **options):
    inputs = keras.Input((steps, 4), name="steps")
    return keras.Model(inputs, keras.layers.GRU(4, **options)(inputs))


def test_open_time_steps_say_how_litert_can_have_them(tmp_path, capfd):
    message = r"^Model .* LiteRT: [^\n]*fixed number of time steps.*onnx[^\n]*$"
    with pytest.raises(ValueError, match=message):
        export.litert(recurrent(None), tmp_path / "x.tflite")
    assert not capfd.readouterr().err
    export.litert(recurrent(3), tmp_path / "x.tflite")


@pytest.mark.parametrize("name", ["saved_model", "sparse_saved_model"])
def test_what_tensorflow_cannot_trace_ends_in_one_line(name, tmp_path):
    image = keras.Input((None, None, 3))
    grown = keras.layers.UpSampling2D(interpolation="bilinear")(image)
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(grown))
    message = r"^[^\n]*symbolic[^\n]*fixed sizes.*write .*keras\)\.$"
    with pytest.raises(ValueError, match=message):
        export.write(model, tmp_path / "served", name)
    assert not list(tmp_path.iterdir())
    export.keras_file(model, tmp_path / "x.keras")


def test_blocks_that_litert_reads_past_the_end_of_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8)])
    kernel = np.zeros((3, 8), "float32")
    kernel[0, :3] = 1
    model.layers[0].kernel.assign(kernel)
    with pytest.raises(ValueError, match=r"3 inputs wrongly.*dense \(litert\)"):
        export.sparse_litert(model, tmp_path / "x.tflite")
    assert not list(tmp_path.iterdir())
    export.litert(model, tmp_path / "x.tflite")


def test_a_class_that_keras_cannot_make_again_is_named(tmp_path):
    class Own(keras.layers.Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, inputs):
            return self.factor * inputs

    model = keras.Sequential([keras.Input((3,)), Own(2)])
    with pytest.raises(ValueError, match=r"^[^\n]*own get_config[^\n]*$"):
        export.keras_file(model, tmp_path / "x.keras")
    export.saved_model(model, tmp_path / "served")


def test_a_lambda_is_written_for_those_who_trust_it(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Lambda(lambda t: 2 * t)]
    )
    path = export.keras_file(model, tmp_path / "x.keras")
    loaded = keras.models.load_model(path, safe_mode=False)
    assert np.array_equal(loaded(np.ones((1, 3))), np.full((1, 3), 2))


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("a\nb", "ValueError: a."),
        ("", "ValueError."),
        (
            "Exception encountered when calling GRU.call().\n\n"
            "\x1b[1mCannot unroll.\x1b[0m\n\nArguments received: x",
            "ValueError: Cannot unroll.",
        ),
        (
            "/a/b.py:1:1: error: 'tf.TensorListReserve' op requires a shape\n",
            "ValueError: 'tf.TensorListReserve' op requires a shape.",
        ),
    ],
)
def test_one_line_says_what_failed(message, line):
    assert suppress_output.error_summary(ValueError(message)) == line


# Names, and models without a graph.


def test_names_are_the_models_own_and_each_another():
    first, second = keras.Input((2,), name="a b"), keras.Input((2,), name="c")
    inner = keras.Model([first, second], [first, second], name="inner")
    outputs = inner([first, second])
    signature = export.signature_of(keras.Model([first, second], outputs))
    assert [spec.name for spec in signature.specs] == ["a_b", "c"]
    assert signature.outputs == ("inner", "inner_1")
    users = {"user": {"id": first}, "item": {"id": second}}
    signature = export.signature_of(keras.Model(users, {"z": outputs[0]}))
    assert signature.inputs["user"]["id"].name == "user_id"
    assert [spec.name for spec in signature.specs] == ["item_id", "user_id"]
    assert signature.outputs == ("z",)


class Whole(keras.Model):
    """Takes integers; Keras remembers only their shape."""

    def __init__(self):
        super().__init__()
        self.table = keras.layers.Embedding(5, 4)
        self.head = keras.layers.Dense(2)

    def call(self, inputs, training=False):
        return self.head(self.table(inputs))


def test_a_subclassed_model_takes_what_its_examples_are(tmp_path):
    model, x = Whole(), np.arange(5, dtype="int32")
    with pytest.raises(ValueError, match="not built"):
        export.saved_model(model, tmp_path / "served")
    expected = model(x)
    path = export.saved_model(model, tmp_path / "served", x=x)
    loaded = tf.saved_model.load(str(path))
    served = loaded.signatures["serving_default"](input_0=tf.constant(x))
    np.testing.assert_allclose(served["output_0"], expected, atol=1e-6)


def test_the_ticket_of_a_subclassed_model_says_how_it_is_exported(tmp_path):
    ticket = dataclasses.replace(trained_ticket(toy.mlp()), architecture=None)
    message = r"tfl\.export\.saved_model\(ticket\.model\(model\), path\)"
    with pytest.raises(ValueError, match=message):
        export.saved_model(ticket, tmp_path / "served")


# Scores.


def scores_of(y, outputs, metric=None):
    return evaluation.Evaluator(("output",), y, metric).scores([outputs])


def test_scores_are_those_of_keras():
    draw = np.random.default_rng(0)
    share = draw.random((50, 1)).astype("float32")
    yes = (draw.random((50, 1)) < 0.5).astype("int32")
    scores = scores_of(yes, share)
    assert scores == {"accuracy": pytest.approx(((share > 0.5) == yes).mean())}
    top = keras.metrics.BinaryAccuracy(threshold=0.3, name="top")
    for _ in range(2):  # a metric is used for every file
        scores = scores_of(yes, share, top)
        assert scores == {"top": pytest.approx(((share > 0.3) == yes).mean())}
    scores = scores_of(yes.astype("float32"), share)
    error = ((share - yes) ** 2).mean()
    assert scores == {"mean_squared_error": pytest.approx(error)}
    labels = draw.integers(3, size=(50, 4, 4))
    pixels = draw.random((50, 4, 4, 3)).astype("float32")
    right = (pixels.argmax(-1) == labels).mean()
    assert scores_of(labels, pixels) == {"accuracy": pytest.approx(right)}
    several = evaluation.Evaluator(("a", "b"), {"a": yes, "b": labels})
    assert several.scores([share, pixels]) == {
        "a_accuracy": pytest.approx(((share > 0.5) == yes).mean()),
        "b_accuracy": pytest.approx(right),
    }


def test_agreement_is_that_of_decisions():
    share = np.array([[0.1], [0.4], [0.6], [0.9]], "float32")
    single = evaluation.Evaluator(("output",), np.zeros((4, 1), "int32"))
    assert single.agreement([share], [share]) == 1
    assert single.agreement([share], [share + 0.2]) == 0.75
    low = keras.metrics.BinaryAccuracy(threshold=0.05)
    low = evaluation.Evaluator(("output",), np.zeros((4, 1)), low)
    assert low.agreement([share], [share + 0.2]) == 1
    many = evaluation.Evaluator(
        ("output",), np.zeros((4, 3)), "binary_accuracy"
    )
    ones = np.ones((4, 3))
    assert many.agreement([ones], [ones * [1, 1, 0]]) == pytest.approx(2 / 3)
    assert (
        evaluation.Evaluator(("output",), share).agreement([share], [share])
        is None
    )


@pytest.mark.slow
def test_the_table_compares_several_inputs_and_outputs(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    joined = keras.layers.Concatenate()([a, b])
    outputs = {
        "price": keras.layers.Dense(1)(joined),
        "kind": keras.layers.Dense(3)(joined),
    }
    model = keras.Model({"a": a, "b": b}, outputs)
    draw = np.random.default_rng(0)
    x = {"a": draw.normal(size=(40, 3)), "b": draw.normal(size=(40, 2))}
    y = {"price": draw.normal(size=(40, 1)), "kind": draw.integers(3, size=40)}
    path = export.litert(model, tmp_path / "x.tflite", x=x)
    file = export.comparison.Export(
        "file",
        path,
        export.FORMATS["litert"],
        model.predict(x, verbose=0),
        "why",
        export.signature_of(model),
    )
    dense, measured = export.comparison.with_original(model, [file], x, y)
    assert dense.scores == pytest.approx(measured.scores)
    predicted = model.predict(x, verbose=0)
    assert measured.scores == {
        "kind_accuracy": pytest.approx(
            (predicted["kind"].argmax(-1) == y["kind"]).mean()
        ),
        "price_mean_squared_error": pytest.approx(
            ((predicted["price"] - y["price"]) ** 2).mean(), rel=1e-5
        ),
    }
    assert measured.agreement == 1
    assert 0 <= measured.difference < 1e-5
    head = export.comparison.table([dense, measured]).splitlines()[0]
    assert "| kind_accuracy | price_mean_squared_error | as Keras |" in head

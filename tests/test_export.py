"""What is exported serves where tf_lottery is not installed (K25, K35)."""

import dataclasses
import importlib.util
import itertools
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import test_tickets
import toy

from tf_lottery import export, masking, models
from tf_lottery.export import measuring

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


def trained_ticket(model, density=0.4):
    ticket = test_tickets.make(model, density=density)
    trained = {
        p: w * ticket.masks[p] * 1.5 if p in ticket.masks else w
        for p, w in ticket.origin.weights.items()
    }
    return dataclasses.replace(ticket, trained=trained)


@pytest.mark.parametrize("model", [toy.mlp, toy.convnet])
def test_a_ticket_is_served_with_its_trained_weights(model, tmp_path):
    ticket = trained_ticket(model())
    path = export.saved_model(ticket, tmp_path / "served")
    x, _ = toy.digits(50)
    expected = ticket.build(trained=True).predict(x, verbose=0)
    np.testing.assert_allclose(
        serve(path, x, tmp_path), expected, rtol=1e-5, atol=1e-6
    )


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
measuring = runpy.run_path(sys.argv[1])
x, found = np.load(sys.argv[2]), {}
for number, argument in enumerate(sys.argv[4:]):
    runtime, path = argument.split("=", 1)
    names = {"inputs": None, "outputs": None}
    (found[str(number)],) = measuring["RUNTIMES"][runtime](path, names, 1)([x])
np.savez(sys.argv[3], **found)
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
    arguments = [measuring.__file__, folder / "x.npy", folder / "out.npz"]
    # In a process that can import no tf_lottery.
    subprocess.run(
        [sys.executable, "-I", "-c", REFUSE + OUTPUTS]
        + [str(argument) for argument in (*arguments, *files.values())],
        check=True,
        capture_output=True,
    )
    with np.load(folder / "out.npz") as arrays:
        outputs = {key: arrays[str(n)] for n, key in enumerate(files)}
    return ticket.build(trained=True).predict(x, verbose=0), outputs


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "shrunk"])
@pytest.mark.parametrize(("name", "dtype"), ALL)
def test_a_file_gives_the_outputs_of_the_ticket(exported, name, dtype, whole):
    needs(name)
    expected, outputs = exported
    found = outputs[name, dtype, whole]
    assert found.dtype == np.float32
    error = np.abs(found - expected).max() / np.abs(expected).max()
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
    said = export.comparison.sentences([right, wrong], threads=1)
    assert len(said) == 2
    assert said[1].startswith("wrong, by right: ")
    assert said[1].endswith("why.")


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
        export.saved_model(test_tickets.make(), tmp_path / "served")
    assert not list(tmp_path.iterdir())

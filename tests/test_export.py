"""A SavedModel serves where tf_lottery is not installed."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import test_tickets
import toy

from tf_lottery import export, masking

SERVE = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "tf_lottery":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
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
        [sys.executable, "-I", "-c", SERVE, *map(str, arguments)],
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
    with pytest.raises(ValueError, match="is no SavedModel"):
        export.saved_model(trained_ticket(toy.mlp()), tmp_path / "mine")
    assert pathlib.Path(tmp_path / "mine" / "thesis.tex").read_text() == "years"


def test_a_ticket_without_trained_weights_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no trained weights"):
        export.saved_model(test_tickets.make(), tmp_path / "served")
    assert not list(tmp_path.iterdir())

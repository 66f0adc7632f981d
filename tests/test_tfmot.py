"""tfmot's rules, schedules and models, on Keras 3.

What tfmot itself says is asked of tfmot here, in one process: it is a
dependency, and golden copies would age.
"""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lottery as tfl
from tf_lottery import pruning, tfmot
from tf_lottery.masking import (
    get_masks,
    kernels,
    mask_model,
    variables_by_path,
)

# tf_keras, tfmot and what they import warn of themselves.
pytestmark = pytest.mark.filterwarnings("ignore")

L = keras.layers
ROOT = pathlib.Path(__file__).parent.parent
SPARSITIES = (0.0, 0.3, 0.5, 0.75, 0.99)


@pytest.fixture(scope="module")
def theirs():
    return tfmot.import_tfmot()


def weights(shape, ties):
    draw = np.random.default_rng(len(shape)).normal(size=shape)
    return (np.round(2 * draw) / 2 if ties else draw).astype("float32")


def tfmot_mask(theirs, weight, sparsity, **settings):
    """The mask of tfmot's own wrapper around a layer with this kernel."""
    import tf_keras

    layers = tf_keras.layers
    layer = (
        layers.Dense(weight.shape[-1], use_bias=False)
        if weight.ndim == 2
        else layers.Conv2D(weight.shape[-1], weight.shape[:2], use_bias=False)
    )
    schedule = theirs.ConstantSparsity(sparsity, 0, frequency=1)
    wrapped = theirs.prune_low_magnitude(layer, schedule, **settings)
    wrapped.build((None, *([9] * (weight.ndim - 2)), weight.shape[-2]))
    wrapped.layer.set_weights([weight])
    wrapped.pruning_step.assign(1)
    wrapped.pruning_obj.conditional_mask_update()
    ((_, mask, _),) = wrapped.pruning_vars
    return mask.numpy() != 0


# Bit for bit (K40).


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(7, 9), (8, 12), (1, 4), (3, 3, 5, 6)])
def test_masks_of_single_weights_are_tfmots(theirs, shape, ties):
    weight = weights(shape, ties)
    for sparsity in SPARSITIES:
        mask = tfmot.Magnitude().mask(weight, sparsity)
        expected = tfmot_mask(theirs, weight, sparsity)
        assert np.array_equal(mask, expected)
        exact = max(round(weight.size * (1 - sparsity)), 1)
        assert mask.sum() == exact or (ties and mask.sum() > exact)


@pytest.mark.parametrize("pooling", ["AVG", "MAX"])
@pytest.mark.parametrize("size", [(2, 2), (4, 1), (1, 4), (3, 5)])
@pytest.mark.parametrize("ties", [False, True])
def test_masks_of_blocks_are_tfmots(theirs, size, pooling, ties):
    weight = weights((8, 13), ties)
    for sparsity in SPARSITIES[1:4]:
        expected = tfmot_mask(
            theirs,
            weight,
            sparsity,
            block_size=size,
            block_pooling_type=pooling,
        )
        mask = tfmot.Blocks(size, pooling).mask(weight, sparsity)
        assert np.array_equal(mask, expected)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(7, 9), (8, 12), (3, 3, 5, 6)])
@pytest.mark.parametrize("pattern", [(2, 4), (1, 4), (3, 4), (1, 2)])
def test_masks_of_n_of_m_are_tfmots(theirs, pattern, shape, ties):
    weight = weights(shape, ties)
    expected = tfmot_mask(theirs, weight, 0.5, sparsity_m_by_n=pattern)
    assert np.array_equal(tfmot.MByN(*pattern).mask(weight), expected)


# As criteria.


def test_n_of_m_is_a_criterion():
    trained = {
        "a/kernel": weights((8, 5), False),
        "b/kernel": weights((4, 3, 8, 2), True),
    }
    rule = tfmot.MByN(2, 4)
    masks = tfl.Masks.ones({path: w.shape for path, w in trained.items()})
    pruned = pruning.prune(rule(trained, {}), masks, 0.5)
    for path, weight in trained.items():
        assert np.array_equal(pruned[path], rule.mask(weight))


def test_blocks_are_a_criterion():
    trained = {"a/kernel": weights((8, 12), False)}
    rule = tfmot.Blocks((2, 4))
    masks = tfl.Masks.ones({"a/kernel": (8, 12)})
    pruned = pruning.prune(rule(trained, {}), masks, 0.25)
    assert np.array_equal(
        pruned["a/kernel"], rule.mask(trained["a/kernel"], 0.75)
    )


def test_a_search_prunes_two_of_four():
    model = keras.Sequential([keras.Input((8,)), L.Dense(4), L.Dense(4)])
    search = tfl.TicketSearch(model, 1, 0.5, criterion=tfmot.MByN())
    search.compile("sgd", "mse", metrics=())
    x = np.random.default_rng(0).normal(size=(20, 8))
    search.fit(x, x[:, :4], 10, length="2it", verbose=False)
    for mask in search.tickets[1].masks.values():
        assert np.all(mask.reshape(-1, 4, mask.shape[-1]).sum(1) == 2)


@pytest.mark.parametrize(
    ("rule", "shape", "message"),
    [
        (tfmot.Blocks((1, 4)), (3, 3, 2, 2), "Blocks are of matrices; got"),
        (tfmot.MByN(), (3, 2, 2), "two or four dimensions; got shape"),
    ],
)
def test_kernels_that_a_rule_is_not_for_are_refused(rule, shape, message):
    with pytest.raises(ValueError, match=message):
        rule.mask(np.ones(shape), 0.5)


# Schedules.


def network():
    keras.utils.set_random_seed(4)
    return mask_model(
        keras.Sequential([keras.Input((20,)), L.Dense(16), L.Dense(4)])
    )


class Densities(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen, self.masks = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.masks.append(get_masks(self.model))
        self.seen.append(self.masks[-1].density)
        for path, mask in self.masks[-1].items():
            assert not np.any(kernels(self.model)[path].variable[~mask])


def pruned_on(schedule, steps=12, **compiled):
    model, watch = network(), Densities()
    model.compile("adam", "mse", jit_compile=False, **compiled)
    x = np.random.default_rng(0).normal(size=(steps, 20))
    callbacks = [tfmot.PruneOnSchedule(schedule), watch]
    model.fit(x, x[:, :4], 1, verbose=0, callbacks=callbacks)
    return model, watch


def test_a_polynomial_decay_prunes_as_it_says(theirs):
    schedule = theirs.PolynomialDecay(0.5, 0.75, 2, 10, frequency=4)
    _, watch = pruned_on(schedule)
    wanted = [1.0, *[0.5] * 4, *[1 - 0.75 + 0.25 * 0.5**3] * 4, *[0.25] * 3]
    assert watch.seen == pytest.approx(wanted, abs=2e-3)
    for before, after in zip(watch.masks, watch.masks[1:], strict=False):
        assert all(np.all(mask <= before[p]) for p, mask in after.items())


def test_a_constant_sparsity_prunes_from_its_first_step(theirs):
    _, watch = pruned_on(theirs.ConstantSparsity(0.5, 3, frequency=5))
    assert watch.seen == [1, 1, *[0.5] * 10]


def test_a_schedule_is_any_function_and_no_due_step_is_missed():
    def schedule(step):
        return step == 3, 0.75

    model, _ = pruned_on(schedule, steps_per_execution=5)
    assert get_masks(model).density == 0.25


def test_masks_only_shrink_when_the_schedule_asks_for_less():
    _, watch = pruned_on(lambda step: (True, 0.75 if step < 5 else 0.25))
    assert watch.seen == [0.25] * 12
    assert watch.masks[0] == watch.masks[-1]


def test_the_slots_of_what_is_pruned_are_zero(theirs):
    model, _ = pruned_on(theirs.ConstantSparsity(0.5, 4, frequency=100))
    mask = get_masks(model)["dense/kernel"]
    slots = [v for v in model.optimizer.variables if v.shape == mask.shape]
    assert len(slots) == 2
    for slot in slots:
        assert not np.any(slot.numpy()[~mask])
        assert np.any(slot.numpy()[mask])


# Models.


def their_model():
    import tf_keras

    layers = tf_keras.layers
    return tf_keras.Sequential(
        [
            layers.Conv2D(4, 3, input_shape=(6, 6, 1)),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def our_model(units=3):
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(4, 3),
            L.BatchNormalization(),
            L.Flatten(),
            L.Dense(units),
        ]
    )


X = np.random.default_rng(0).normal(size=(32, 6, 6, 1)).astype("float32")


@pytest.fixture(scope="module")
def pruned(theirs):
    schedule = theirs.ConstantSparsity(0.5, 0, frequency=1)
    model = theirs.prune_low_magnitude(their_model(), schedule)
    model.compile("adam", "mse")
    callback = theirs.UpdatePruningStep()
    model.fit(X, np.ones((32, 3)), verbose=0, callbacks=[callback])
    return model


def test_a_model_that_tfmot_pruned_becomes_a_ticket(pruned, theirs):
    ticket = tfmot.adopt(pruned, our_model())
    assert ticket.density == 0.5
    assert list(ticket.masks) == ["conv2d/kernel", "dense/kernel"]
    model = ticket.build()
    assert get_masks(model) == ticket.masks
    plain = theirs.strip_pruning(pruned)
    ours = [v for v in variables_by_path(model).values()]
    for variable, value in zip(ours, plain.get_weights(), strict=True):
        assert np.array_equal(variable, value)
    assert np.allclose(model(X), pruned(X), atol=1e-5)


def test_a_ticket_goes_back_and_stays_as_it_is_when_tfmot_trains(
    pruned, theirs
):
    ticket = tfmot.adopt(pruned, our_model())
    back = tfmot.hand_back(ticket, their_model())
    assert np.allclose(back(X), pruned(X), atol=1e-5)
    back.compile("adam", "mse")
    callback = theirs.UpdatePruningStep()
    back.fit(X, np.ones((32, 3)), verbose=0, callbacks=[callback])
    again = tfmot.adopt(back, our_model())
    assert again.masks == ticket.masks
    path = "dense/kernel"
    moved = again.origin.weights[path] != ticket.origin.weights[path]
    assert np.array_equal(moved, ticket.masks[path])


def test_models_that_differ_are_refused(pruned, theirs):
    with pytest.raises(ValueError, match=r"The models differ: .*'sequential"):
        tfmot.adopt(pruned, our_model(4))
    with pytest.raises(ValueError, match="no layer of prune_low_magnitude"):
        tfmot.adopt(their_model(), our_model())


# What an import leaves behind (K36).


@pytest.mark.slow
def test_neither_tf_lottery_nor_tfmot_through_it_changes_the_process():
    code = (
        "import os, random, keras, tensorflow as tf\n"
        "names, drawn = set(os.environ), random.getstate()\n"
        "policy = keras.config.dtype_policy().name\n"
        "import tf_lottery.masking.layers, tf_lottery.ticket_search\n"
        "assert random.getstate() == drawn\n"
        "import tf_lottery as tfl\n"
        "tfl.tfmot.import_tfmot()\n"
        "assert tf.keras.__version__.startswith('3.')\n"
        "assert {k: v for k, v in os.environ.items() if 'KERAS' in k} == {}\n"
        "assert keras.config.dtype_policy().name == policy == 'float32'\n"
        "print(set(os.environ) - names)\n"
    )
    env = {k: v for k, v in os.environ.items() if "KERAS" not in k}
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
    )
    assert run.returncode == 0, run.stderr
    assert "KERAS" not in run.stdout


def test_the_page_for_those_who_come_from_tfmot_runs(capsys):
    text = (ROOT / "docs" / "from_tfmot.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(code, names)
    assert capsys.readouterr().out.strip().endswith("0.25")
    kernel = names["plain"].layers[0].kernel.numpy()
    assert np.count_nonzero(kernel) == kernel.size // 4
    for name in re.findall(r"tfl\.tfmot\.(\w+)", text):
        assert hasattr(tfmot, name)
    assert tf.keras.__version__.startswith("3.")


def test_what_is_not_installed_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    with pytest.raises(ImportError, match="pip install tensorflow-model") as e:
        tfmot.import_tfmot()
    assert "\n" not in str(e.value)

"""Training is a function of state, masks, recipe, data and seed."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_lottery import data, masking
from tf_lottery.core.errors import UserError
from tf_lottery.lottery import rewinding
from tf_lottery.training import (
    Job,
    Trainer,
    batch_sampler,
    checkpoint,
    input_pipeline,
)
from tf_lottery.training.state import digest, values

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "momentum": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(3e-3),
    "adamw": lambda: keras.optimizers.AdamW(3e-3, weight_decay=0.1),
    "clipped": lambda: keras.optimizers.Adam(3e-3, global_clipnorm=0.1),
    "scheduled": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(0.05, 60)
    ),
}


def ones(trainer):
    return masking.get_masks(trainer.model)


@pytest.mark.slow
def test_training_learns():
    trainer = toy.trainer(length="300it")
    run = toy.train(trainer, trainer.state, ones(trainer))
    assert run.curve[0]["validation_accuracy"] < 0.9
    assert run.metrics["test_accuracy"] > 0.9
    assert run.metrics["train_accuracy"] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("model", [toy.mlp, toy.convnet])
def test_pruned_weights_and_their_slots_stay_zero(name, model):
    trainer = toy.trainer(model(), optimizer=OPTIMIZERS[name](), length="7it")
    masks = toy.random_masks(trainer.model)
    start = rewinding.rewind(trainer.state, masks)
    run = toy.train(trainer, start, masks, capture=5)
    for path, mask in masks.items():
        assert (run.trained[path][~mask] == 0).all()
        assert (run.trained[path][mask] != start.weights[path][mask]).any()
        for slot, value in run.captured[0].slots.items():
            if slot.startswith(path) and value.shape == mask.shape:
                assert (value[~mask] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masks_of_ones_train_as_the_plain_loop_does(name):
    runs = []
    for kernels in (True, False):
        model = toy.mlp()
        trainer = Trainer(
            model,
            toy.recipe(optimizer=OPTIMIZERS[name]()),
            toy.dataset(),
            kernels=tuple(masking.kernels(model)) if kernels else (),
        )
        masks = masking.get_masks(model) if kernels else {}
        runs.append(toy.train(trainer, trainer.state, masks).trained)
    for path in runs[0]:
        np.testing.assert_allclose(runs[0][path], runs[1][path], atol=1e-6)


@pytest.mark.slow
def test_the_loop_takes_the_steps_that_keras_takes():
    trainer = toy.trainer(length="1ep")
    reference = toy.mlp()
    reference.compile(keras.optimizers.Adam(3e-3), toy.loss())
    train = trainer.data.train
    for batch in toy.batches(0, 0, len(train), 20):
        reference.train_on_batch(train.x[batch], train.y[batch])
    run = toy.train(trainer, trainer.state, ones(trainer))
    for path, variable in masking.variables_by_path(reference).items():
        np.testing.assert_allclose(
            run.trained[path], variable.numpy(), rtol=2e-4, atol=2e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("model", [toy.mlp, lambda: toy.mlp(dropout=0.3)])
def test_same_seed_same_weights_bit_for_bit(model):
    runs = []
    for seed in (0, 0, 1):
        trainer = toy.trainer(model())
        start = trainer.initial(trainer.model, seed)
        runs.append(toy.train(trainer, start, ones(trainer), seed=seed).trained)
    assert toy.same(runs[0], runs[1])
    assert not toy.same(runs[0], runs[2])


@pytest.mark.slow
def test_dropout_is_on_in_training():
    runs = []
    for dropout in (0.0, 0.5):
        trainer = toy.trainer(toy.mlp(dropout))
        run = toy.train(trainer, trainer.state, ones(trainer))
        runs.append(run.trained["dense/kernel"])
    assert not np.array_equal(*runs)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 10, 24, 37])
@pytest.mark.parametrize("model", [toy.convnet, lambda: toy.mlp(dropout=0.3)])
def test_a_run_continued_from_a_captured_state_is_the_same_run(step, model):
    trainer = toy.trainer(model())
    whole = toy.train(trainer, trainer.state, ones(trainer), capture=step)
    rest = toy.train(trainer, whole.captured[0], ones(trainer))
    assert whole.captured[0].step == step
    assert toy.same(whole.trained, rest.trained)


@pytest.mark.slow
def test_the_captured_state_is_that_of_a_plain_run_stopped_there():
    trainer = toy.trainer(length="60it")
    captured = toy.train(
        trainer, trainer.state, ones(trainer), capture=25
    ).captured[0]
    short = toy.trainer(length="25it")
    stopped = toy.train(short, short.state, ones(short))
    assert toy.same(captured.weights, stopped.trained)


@pytest.mark.slow
def test_early_stop_is_the_first_minimum_of_validation_loss():
    model = toy.mlp()
    trainer = Trainer(
        model,
        toy.recipe("400it", evaluate_every=20, test_curve=True),
        toy.dataset(wrong_labels=150),
        kernels=tuple(masking.kernels(model)),
    )
    run = toy.train(trainer, trainer.state, ones(trainer))
    losses = [row["validation_loss"] for row in run.curve]
    best = int(np.argmin(losses))
    assert 0 < best < len(losses) - 1
    assert run.metrics["early_stop_step"] == run.curve[best]["step"]
    for name in ("test_accuracy", "validation_accuracy", "validation_loss"):
        stopped = run.metrics[f"{name}_at_early_stop"]
        assert stopped == run.curve[best][name]
    accuracy = run.metrics["test_accuracy_at_early_stop"]
    assert run.per_example["test"].mean() == pytest.approx(accuracy)


@pytest.mark.slow
def test_evaluation_equals_that_of_keras():
    trainer = toy.trainer(length="30it")
    run = toy.train(trainer, trainer.state, ones(trainer))
    trainer.model.compile(loss=toy.loss(), metrics=["accuracy"])
    test = trainer.data.test
    expected = trainer.model.evaluate(test.x, test.y, verbose=0)
    measured = [run.metrics["test_loss"], run.metrics["test_accuracy"]]
    np.testing.assert_allclose(measured, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 7, 64, 300, 1000])
def test_every_example_is_evaluated_once_whatever_the_batch(batch, monkeypatch):
    monkeypatch.setattr(input_pipeline, "EVALUATION_BATCH", batch)
    top2 = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2")
    trainer = toy.trainer(metrics=("accuracy", top2), length="10it")
    run = toy.train(trainer, trainer.state, ones(trainer))
    test = trainer.data.test
    outputs = np.asarray(trainer.model(test.x))
    correct = run.per_example["test"]
    assert np.array_equal(correct, outputs.argmax(1) == test.y)
    second = np.argsort(outputs, axis=1)[:, -2:]
    expected = (second == test.y[:, None]).any(1).mean()
    assert run.metrics["test_top2"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("last", "loss", "targets"),
    [
        (1, "binary_crossentropy", lambda y: (y > 0).astype("int32")),
        (3, "categorical_crossentropy", lambda y: np.eye(3)[y]),
        (3, "sparse_categorical_crossentropy", lambda y: y),
        (3, keras.losses.sparse_categorical_crossentropy, lambda y: y),
    ],
)
def test_accuracy_is_resolved_by_shapes_as_in_keras(last, loss, targets):
    activation = "sigmoid" if last == 1 else "softmax"
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(last, activation),
        ]
    )
    x, y = toy.digits()
    pair = (x, targets(y))
    dataset = data.from_arrays(*pair, validation_data=pair)
    recipe = toy.recipe("20it")
    recipe = dataclasses.replace(recipe, loss=loss)
    trainer = Trainer(model, recipe, dataset)
    metrics = toy.train(trainer, trainer.state, {}).metrics
    model.compile(loss=loss, metrics=["accuracy"])
    expected = model.evaluate(*pair, verbose=0)
    measured = [metrics["validation_loss"], metrics["validation_accuracy"]]
    np.testing.assert_allclose(measured, expected, rtol=1e-5)


@pytest.mark.slow
def test_regularisation_enters_training():
    norms = []
    for strength in (0.0, 2.0):
        model = keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(
                    3, kernel_regularizer=keras.regularizers.L2(strength)
                ),
            ]
        )
        trainer = toy.trainer(model)
        run = toy.train(trainer, trainer.state, ones(trainer))
        norms.append(np.abs(run.trained["dense/kernel"]).sum())
    assert norms[1] < 0.6 * norms[0]


def test_order_reshuffles_each_epoch_and_repeats_by_seed():
    first = toy.batches(0, 0, 100, 9)
    assert first.shape == (11, 9)
    assert len(np.unique(first)) == 99
    assert np.array_equal(first, toy.batches(0, 0, 100, 9))
    assert not np.array_equal(first, toy.batches(0, 1, 100, 9))
    assert not np.array_equal(first, toy.batches(1, 0, 100, 9))


def test_every_epoch_goes_by_its_own_order(monkeypatch):
    asked = []
    real = batch_sampler.epoch_order

    def spy(seed, epoch, *rest):
        asked.append(epoch)
        return real(seed, epoch, *rest)

    monkeypatch.setattr(batch_sampler, "epoch_order", spy)
    trainer = toy.trainer(length="2ep5it")
    run = toy.train(trainer, trainer.state, ones(trainer))
    assert asked == [0, 1, 2]
    assert run.metrics["steps"] == 2 * 24 + 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 1000}, "only 480 training examples"),
        ({"batch_size": 0}, "`batch_size` must be a whole number"),
        ({"evaluate_every": 0}, "`evaluate_every` must be a whole number"),
        ({"length": "0it"}, "no step at all"),
        ({"optimizer": "nope"}, "nope"),
        ({"optimizer": 3}, "interpret optimizer identifier: 3"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        toy.trainer(**settings)


@pytest.mark.parametrize(
    "loss",
    [
        toy.loss(),
        "sparse_categorical_crossentropy",
        keras.losses.sparse_categorical_crossentropy,
    ],
)
def test_labels_beyond_the_outputs_are_refused(loss):
    x, y = toy.digits()
    dataset = data.from_arrays(x, y + 1)
    recipe = dataclasses.replace(toy.recipe(), loss=loss)
    with pytest.raises(ValueError, match="go up to 3, but the model has 3"):
        Trainer(toy.mlp(), recipe, dataset)


def test_inputs_of_another_shape_are_refused():
    x, y = toy.digits()
    with pytest.raises(ValueError, match=r"\(36,\) an example; the model"):
        Trainer(toy.mlp(), toy.recipe(), data.from_arrays(x.reshape(-1, 36), y))


def test_variables_that_no_file_can_hold_are_refused_before_training():
    half = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, dtype="bfloat16", name="half"),
        ]
    )
    with pytest.raises(
        UserError, match="'half/kernel' is bfloat16, .*'mixed_bfloat16'"
    ):
        toy.trainer(half)


def test_a_diverging_loss_is_named():
    trainer = toy.trainer(optimizer=keras.optimizers.SGD(1e30))
    (outcome,) = trainer.train([Job(trainer.state, ones(trainer))])
    assert re.search(r"loss became (nan|inf).*Lower", str(outcome))


def test_a_state_that_breaks_its_masks_is_refused():
    trainer = toy.trainer()
    masks = toy.random_masks(trainer.model)
    with pytest.raises(ValueError, match="Rewind first"):
        toy.train(trainer, trainer.state, masks)


@pytest.mark.slow
def test_checkpoints_hold_the_whole_state(tmp_path):
    trainer = toy.trainer(toy.mlp(dropout=0.3))
    captured = toy.train(
        trainer, trainer.state, ones(trainer), capture=11
    ).captured[0]
    checkpoint.save(trainer, captured, tmp_path / "theta")
    other = toy.trainer(toy.mlp(dropout=0.3, seed=5))
    assert checkpoint.load(other, tmp_path / "theta").digest == captured.digest
    plain = toy.mlp(seed=9)
    status = tf.train.Checkpoint(model=toy.mlp(dropout=0.3, seed=9))
    status.read(str(tmp_path / "theta")).expect_partial()
    restored = masking.variables_by_path(status.model)
    assert np.array_equal(
        restored["dense/kernel"].numpy(), captured.weights["dense/kernel"]
    )
    assert not np.array_equal(
        plain.layers[1].kernel.numpy(), captured.weights["dense/kernel"]
    )


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "ftrl"])
def test_theta_0_holds_no_slots_and_restores_those_of_a_new_optimizer(
    tmp_path, optimizer
):
    trainer = toy.trainer(optimizer=optimizer)
    theta_0 = trainer.state
    initial = values(trainer.network.slots)
    checkpoint.save(trainer, theta_0, tmp_path / "theta")
    stored = [name for name, _ in tf.train.list_variables(tmp_path / "theta")]
    assert stored
    assert not [name for name in stored if name.startswith("optimizer")]
    other = toy.trainer(toy.mlp(seed=5), optimizer=optimizer)
    for slot in other.network.slots.values():
        slot.assign(slot + 1)
    assert checkpoint.load(other, tmp_path / "theta").digest == theta_0.digest
    restored = values(other.network.slots)
    assert digest(restored) == digest(initial)


def test_a_theta_0_with_slots_from_an_earlier_version_loads(tmp_path):
    trainer = toy.trainer(optimizer="adagrad")
    theta_0 = trainer.state
    whole = tf.train.Checkpoint(
        model=trainer.model, optimizer=trainer.network.optimizer, seeds={}
    )
    whole.write(str(tmp_path / "theta"))
    other = toy.trainer(toy.mlp(seed=5), optimizer="adagrad")
    assert checkpoint.load(other, tmp_path / "theta").digest == theta_0.digest


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    trainer = toy.trainer()
    checkpoint.save(trainer, trainer.state, tmp_path / "theta")
    with pytest.raises(ValueError, match="does not hold the training state"):
        checkpoint.load(toy.trainer(toy.convnet()), tmp_path / "theta")
    with pytest.raises(ValueError, match="does not hold the training state"):
        checkpoint.load(trainer, tmp_path / "nothing")


FORMATS = {
    "w.keras": lambda m, p: m.save(p),
    "w.weights.h5": lambda m, p: m.save_weights(p),
    "named": lambda m, p: tf.train.Checkpoint(model=m).write(p),
    "root": lambda m, p: tf.train.Checkpoint(m).write(p),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_users_own_weights_are_restored(name, tmp_path):
    path = str(tmp_path / name)
    source, target = toy.convnet(), toy.convnet()
    FORMATS[name](source, path)
    checkpoint.load_weights(target, path)
    for one, other in zip(source.weights, target.weights, strict=True):
        assert np.array_equal(one.numpy(), other.numpy())


@pytest.mark.filterwarnings("ignore::UserWarning:keras")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("source", [toy.mlp, lambda: toy.mlp().layers[1]])
def test_weights_of_another_network_are_refused_and_change_nothing(
    name, source, tmp_path
):
    made = source()
    if not isinstance(made, keras.Model):
        made = keras.Sequential(
            [keras.Input((6, 6, 1)), keras.layers.Flatten(), made]
        )
    path = str(tmp_path / name)
    FORMATS[name](made, path)
    target = toy.convnet()
    before = [w.numpy() for w in target.weights]
    with pytest.raises(ValueError, match="does not hold the weights of model"):
        checkpoint.load_weights(target, path)
    for value, weight in zip(before, target.weights, strict=True):
        assert np.array_equal(value, weight.numpy())


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a"])
def test_missing_weights_are_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="No file"):
        checkpoint.load_weights(toy.mlp(), tmp_path / name)

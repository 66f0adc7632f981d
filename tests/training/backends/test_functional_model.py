"""The functional step: averages obey masks, float16 scales its loss."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_lottery.core.masks import Masks
from tf_lottery.lottery import rewinding
from tf_lottery.training import Job
from tf_lottery.training.backends import functional_model
from tf_lottery.training.input_pipeline import Examples

SCALED = keras.optimizers.LossScaleOptimizer


def averaging():
    return keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)


def test_averages_of_masked_kernels_obey_masks_and_others_are_kept():
    trainer = toy.trainer(optimizer=averaging(), length="20it")
    masks = Masks(
        {
            path: mask
            for path, mask in toy.random_masks(trainer.model, 0.5).items()
        }
    )
    start = rewinding.rewind(trainer.initial(trainer.model, 0), masks)
    (result,) = trainer.train([Job(start, masks, keeps_slots=True)])
    averages = {
        name: slot for name, slot in result.slots.items() if "average" in name
    }
    assert len(averages) == len(trainer.model.trainable_variables)
    for path, mask in masks.items():
        (average,) = [a for name, a in averages.items() if path in name]
        assert (average[~mask] == 0).all()
        assert (average[mask] != 0).any()
    biases = [a for name, a in averages.items() if "bias" in name]
    assert all((bias != 0).any() for bias in biases)


@pytest.mark.parametrize(
    ("policy", "scales"),
    [("float32", False), ("mixed_bfloat16", False), ("mixed_float16", True)],
)
def test_float16_alone_scales_its_loss(policy, scales):
    layer = keras.layers.Dense(2, dtype=policy)
    model = keras.Sequential([keras.Input((3,)), layer])
    optimizer = functional_model.with_loss_scaling(averaging(), model)
    assert isinstance(optimizer, SCALED) is scales
    again = functional_model.with_loss_scaling(optimizer, model)
    assert again is optimizer


def test_a_policy_of_the_whole_model_scales_too():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    finally:
        keras.config.set_dtype_policy("float32")
    given = keras.optimizers.Adam(0.1)
    optimizer = functional_model.with_loss_scaling(given, model)
    assert isinstance(optimizer, SCALED)
    assert optimizer.inner_optimizer is not given
    assert np.isclose(optimizer.inner_optimizer.learning_rate, 0.1)


def test_one_layer_in_float16_is_enough():
    half = keras.layers.Dense(2, dtype="mixed_float16")
    model = keras.Sequential([keras.Input((3,)), half, keras.layers.Dense(2)])
    optimizer = functional_model.with_loss_scaling(averaging(), model)
    assert isinstance(optimizer, SCALED)
    for auto_scale_loss in (True, False):
        network = functional_model.FunctionalModel(
            model, averaging(), None, auto_scale_loss=auto_scale_loss
        )
        scales = any("dynamic_scale" in name for name in network.slots)
        assert scales is auto_scale_loss


def test_a_network_without_objective_cannot_be_evaluated():
    network = functional_model.FunctionalModel(toy.mlp(), averaging(), None)
    with pytest.raises(ValueError, match="built without an objective"):
        _ = network.objective


@pytest.mark.parametrize("stateful", [True, False])
def test_states_are_those_of_stateful_layers(stateful):
    inputs = keras.Input((2, 3), batch_size=4)
    x = keras.layers.LSTM(2, stateful=stateful)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    network = functional_model.FunctionalModel(model, averaging(), None)
    assert network.has_states is stateful
    assert len(network.paths) == len(set(network.paths)) == 6 + 2 * stateful


def test_a_state_is_assigned_and_read_whole():
    trainer = toy.trainer(toy.mlp(dropout=0.3), optimizer=averaging())
    network, start = trainer.network, trainer.state
    assert start.slots == {}
    new = {name: slot.numpy() for name, slot in network.slots.items()}
    slots = {name: slot + 1 for name, slot in new.items()}
    weights = {p: w + 1 for p, w in start.weights.items()}
    step = int(network.optimizer.iterations) + 1
    moved = dataclasses.replace(start, step=step, weights=weights, slots=slots)
    network.state = moved
    assert network.state.digest == moved.digest
    values = network.values_of(moved)
    assert network.state_of(values, step).digest == moved.digest
    assert network.state_of(values, 0).slots == {}
    network.state = start
    assert network.state.digest == start.digest
    reset = {name: slot.numpy() for name, slot in network.slots.items()}
    assert toy.same(reset, new)


def test_constants_follow_a_state_and_variables_do_not():
    normalization = keras.layers.Normalization()
    normalization.adapt(np.array([[1.0], [3.0]]))
    model = keras.Sequential([keras.Input((1,)), normalization])
    network = functional_model.FunctionalModel(model, averaging(), None)
    before = network.state
    path = next(path for path in network.variables if "mean" in path)
    weights = {**before.weights, path: before.weights[path] + 5}
    network.update_constants(dataclasses.replace(before, weights=weights))
    assert network.state.digest == before.digest
    assert np.isclose(model(np.array([[7.0]])).numpy(), 0).all()


def test_only_training_drops_units():
    trainer = toy.trainer(toy.mlp(dropout=0.5), optimizer=averaging())
    network, x = trainer.network, toy.digits(40)
    examples = Examples(*map(tf.constant, x), None)
    values = network.values_of(trainer.state)
    zeros = network.objective.zeros()
    masks = network.masks_of(toy.random_masks(trainer.model))
    after, totals = network.evaluated(values, zeros, examples)
    assert toy.same(
        dict(enumerate(after.others)), dict(enumerate(values.others))
    )
    assert any(
        (new != old).numpy().any()
        for new, old in zip(totals, zeros, strict=True)
    )
    right = network.per_example(values, examples).numpy()
    expected = trainer.model(x[0], training=False).numpy().argmax(1) == x[1]
    assert np.array_equal(right, expected)
    after, _ = network.step(values, zeros, masks, examples)
    assert any(
        (new != old).numpy().any()
        for new, old in zip(after.others, values.others, strict=True)
    )
    for path, index in network.masked.items():
        mask = masks[list(network.masked).index(path)]
        assert not after.weights[index][~mask].numpy().any()
        assert (after.weights[index] != values.weights[index]).numpy().any()

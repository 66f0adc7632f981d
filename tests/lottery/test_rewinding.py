"""Level L starts at mask ⊙ θk, bit for bit."""

import keras
import numpy as np
import pytest
import toy

from tf_lottery.core.masks import Masks
from tf_lottery.lottery import rewinding
from tf_lottery.training import State


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 13])
@pytest.mark.parametrize("model", [toy.convnet, lambda: toy.mlp(dropout=0.3)])
def test_everything_is_at_step_k_and_pruned_weights_are_gone(step, model):
    trainer = toy.trainer(model(), optimizer=keras.optimizers.Adam(3e-3))
    ones = toy.random_masks(trainer.model, density=1.1)
    origin = toy.train(trainer, trainer.state, ones, capture=step).captured[0]
    masks = toy.random_masks(trainer.model)
    start = rewinding.rewind(origin, masks)
    assert start.step == origin.step == step
    for path, value in origin.weights.items():
        expected = value * masks[path] if path in masks else value
        assert np.array_equal(start.weights[path], expected), path
    assert bool(start.slots) == bool(step)
    for name, slot in origin.slots.items():
        path = name.rpartition("/")[0]
        masked = path in masks
        expected = slot * masks[path] if masked else slot
        assert np.array_equal(start.slots[name], expected), name
        if masked:
            assert (slot != start.slots[name]).any()


def test_masks_of_ones_change_nothing():
    trainer = toy.trainer()
    state = trainer.state
    ones = toy.random_masks(trainer.model, density=1.1)
    assert rewinding.rewind(state, ones).digest == state.digest


def test_slots_are_masked_with_their_own_kernel_only():
    ones = np.ones((2, 2), "f")
    names = ["a/momentum", "ab/momentum", "a/rows", "iteration"]
    slots = dict.fromkeys(names, ones) | {"a/rows": np.ones(2, "f")}
    origin = State(7, {"a": 3 * ones, "ab": 3 * ones}, slots)
    mask = np.array([[1, 0], [0, 1]], bool)
    start = rewinding.rewind(origin, Masks({"a": mask}))
    assert start.step == 7
    assert np.array_equal(start.weights["a"], 3 * mask)
    assert np.array_equal(start.weights["ab"], 3 * ones)
    assert np.array_equal(start.slots.pop("a/momentum"), mask)
    for name, slot in start.slots.items():
        assert np.array_equal(slot, slots[name]), name


def test_an_infinite_weight_that_is_pruned_is_zero():
    trainer = toy.trainer()
    state = trainer.state
    masks = toy.random_masks(trainer.model)
    kernel = state.weights["dense/kernel"]
    kernel[~masks["dense/kernel"]] = np.inf
    rewound = rewinding.rewind(state, masks).weights["dense/kernel"]
    assert (rewound[~masks["dense/kernel"]] == 0).all()


def test_masks_of_another_network_are_refused():
    state = toy.trainer().state
    with pytest.raises(ValueError, match="'dense/kernel' has shape"):
        rewinding.rewind(state, Masks({"dense/kernel": np.ones((3, 3))}))
    with pytest.raises(ValueError, match="no kernel here"):
        rewinding.rewind(state, Masks({"dens/kernel": np.ones((3, 3))}))

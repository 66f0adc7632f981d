"""The functional step: averages obey masks, float16 scales its loss."""

import keras
import numpy as np
import pytest
import toy

from tf_lottery.core.masks import Masks
from tf_lottery.lottery import rewinding
from tf_lottery.training import Job
from tf_lottery.training.backends import functional_model

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

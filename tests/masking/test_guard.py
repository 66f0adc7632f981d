"""The guard names the callback that revives a weight."""

import keras
import numpy as np
import pytest
from masked_models import X, Y, masked_layers, pruned_training

from tf_lottery.masking import MaskGuard

LambdaCallback = keras.callbacks.LambdaCallback


class Reviver(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            kernel = self.model.trainable_variables[0]
            # Past the variable: assigning to a masked one revives nothing.
            kernel.value.assign(np.ones(kernel.shape))


@pytest.mark.parametrize("layered", [True, False])
@pytest.mark.parametrize("watched", [True, False])
def test_a_callback_that_revives_weights_is_caught(layered, watched):
    model, masks, optimizer = (masked_layers if layered else pruned_training)(
        "sgd"
    )
    callbacks = [LambdaCallback(), Reviver()] if watched else []
    guard = MaskGuard(callbacks, None if layered else masks)
    model.compile(optimizer, "mse", jit_compile=False)
    outside = [] if watched else [Reviver()]
    blamed = (
        r"test_guard.Reviver.on_train_batch_end set them"
        if watched
        else "a callback outside the guard, before on_train_"
    )
    count = int((~masks["dense/kernel"]).sum())
    message = f"{count} pruned weights of 'dense/kernel' are not zero: .*"
    with pytest.raises(RuntimeError, match=message + blamed):
        model.fit(X, Y, 2, verbose=0, callbacks=[*outside, guard])


def test_a_guard_lets_honest_callbacks_work():
    model, masks, optimizer = masked_layers("adam")
    seen = []
    watched = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs))
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(X, Y, verbose=0, callbacks=[MaskGuard([watched])])
    assert len(seen) == 1
    assert seen[0]["loss"] > 0
    assert watched.model is model

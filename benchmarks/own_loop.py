"""Times tf_lottery's own training loop."""

import dataclasses
import time
from typing import Any

import numpy as np
import workload

WARM_UP = 200  # steps, two calls of the compiled program; the first compiles.


def train(steps: int, masked: bool) -> dict[str, Any]:
    """Times the loop on training data alone, so that nothing is evaluated.

    It takes 100 steps a call, as in a run that is evaluated every 100 steps;
    reshuffling at the start of an epoch is timed too.

    Args:
        steps: Steps to time, after WARM_UP.
        masked: Whether every kernel carries a mask. If not, none is applied.
    """
    from tf_lottery import masking, models, training
    from tf_lottery.core.masks import Masks
    from tf_lottery.lottery import rewinding

    model = models.build_model("lenet_300_100")
    kernels = masking.kernels(model) if masked else {}
    random = np.random.default_rng(0)
    masks = {
        path: random.random(kernel.variable.shape) < workload.DENSITY
        for path, kernel in kernels.items()
    }
    trainer = _trainer(model, steps, tuple(masks))
    times: dict[int, float] = {}
    start = trainer.state
    if masks:
        start = rewinding.rewind(start, Masks(masks))
    trainer.train(
        [training.Job(start, masks)],
        lambda _, step, __: times.update({step: time.perf_counter()}),
    )
    seconds = times[WARM_UP + steps] - times[WARM_UP]
    return {"steps_per_second": steps / seconds, "versions": {}}


def _trainer(model: Any, steps: int, kernels: tuple[str, ...]) -> Any:
    import keras

    from tf_lottery import data, training
    from tf_lottery.core.duration import Duration

    recipe = training.Recipe(
        optimizer=keras.optimizers.Adam(workload.LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=workload.BATCH_SIZE,
        length=Duration(f"{WARM_UP + steps}it"),
        evaluate_every=100,
    )
    mnist = dataclasses.replace(
        data.load_dataset("mnist"), validation=None, test=None
    )
    return training.Trainer(model, recipe, mnist, kernels=kernels)

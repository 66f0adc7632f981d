"""A toy problem that a tiny network learns in a few hundred steps."""

import keras
import numpy as np
import pytest

from tf_lottery import data, masking
from tf_lottery.core.duration import Duration
from tf_lottery.core.masks import Masks
from tf_lottery.training import Job, Recipe, State, Trainer, batch_sampler, loop

OPTIMIZERS = {
    "accumulating": lambda: keras.optimizers.Adam(
        3e-3, gradient_accumulation_steps=3
    ),
    "accumulating and averaging": lambda: keras.optimizers.Nadam(
        3e-3,
        gradient_accumulation_steps=3,
        use_ema=True,
        ema_overwrite_frequency=4,
    ),
    "averaging": lambda: keras.optimizers.SGD(
        0.05, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=7
    ),
    "clipping": lambda: keras.optimizers.SGD(0.05, clipnorm=0.1),
    "clipping globally": lambda: keras.optimizers.Adam(
        3e-3, global_clipnorm=0.1
    ),
    "decaying": lambda: keras.optimizers.AdamW(3e-3, weight_decay=0.1),
    "warming up": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(
            0.0, 60, warmup_target=0.1, warmup_steps=10
        )
    ),
    "stepping": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.PiecewiseConstantDecay(
            [10, 20], [0.1, 0.03, 0.01]
        )
    ),
    "scaling": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(3e-3), dynamic_growth_steps=4
    ),
    "orthogonalising": lambda: keras.optimizers.Muon(3e-3),
    "signs": lambda: keras.optimizers.Lion(1e-3),
    "ftrl": lambda: keras.optimizers.Ftrl(0.05),
    "nadam": lambda: keras.optimizers.Nadam(3e-3),
    "rmsprop": lambda: keras.optimizers.RMSprop(
        1e-3, momentum=0.5, centered=True
    ),
}


def digits(examples=480, seed=0):
    """Three classes of noisy 6x6 images, `[examples, 6, 6, 1]`."""
    draw = np.random.default_rng(seed)
    y = draw.integers(3, size=examples)
    prototypes = np.random.default_rng(7).normal(size=(3, 6, 6, 1))
    x = prototypes[y] + draw.normal(scale=1.2, size=(examples, 6, 6, 1))
    return x.astype("float32"), y.astype("int32")


def dataset(wrong_labels=0):
    x, y = digits(seed=1)
    y[:wrong_labels] = (y[:wrong_labels] + 1) % 3
    return data.from_arrays(
        x,
        y,
        validation_data=digits(200, seed=2),
        test_data=digits(300, seed=3),
    )


def mlp(dropout=0.0, seed=0):
    layers = [keras.Input((6, 6, 1)), keras.layers.Flatten()]
    for units, activation in ((16, "relu"), (8, "relu"), (3, None)):
        if dropout:
            layers.append(keras.layers.Dropout(dropout))
        layers.append(
            keras.layers.Dense(
                units,
                activation,
                kernel_initializer=keras.initializers.GlorotNormal(
                    seed + units
                ),
            )
        )
    return keras.Sequential(layers)


def convnet():
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def recipe(length="60it", optimizer=None, **settings):
    settings = {"batch_size": 20, "evaluate_every": 10, **settings}
    return Recipe(
        optimizer=optimizer or keras.optimizers.Adam(3e-3),
        loss=loss(),
        length=Duration(length),
        **settings,
    )


def trainer(model=None, **settings):
    """Returns a trainer whose model stands at step 0, layers seeded."""
    model = model or mlp()
    made = Trainer(
        model, recipe(**settings), dataset(), tuple(masking.kernels(model))
    )
    made.state = made.initial(model, 0)
    return made


def train(trainer, start, masks, capture=None, seed=0, folder=None):
    """Returns the run of one network; its weights stay in the model."""
    steps = () if capture is None else (capture,)
    (run,) = trainer.train([Job(start, masks, seed, steps, folder)])
    trainer.state = State(0, run.trained, {})
    return run


def random_masks(model, density=0.5, seed=0):
    draw = np.random.default_rng(seed)
    return Masks(
        {
            path: draw.random(mask.shape) < density
            for path, mask in masking.get_masks(model).items()
        }
    )


def batches(seed, epoch, examples, size):
    """The whole batches of an epoch, `[steps, size]`."""
    whole = batch_sampler.epoch_order(seed, epoch, examples)
    return whole[: examples // size * size].reshape(-1, size)


def same(one, other):
    """Whether two mappings of arrays are equal bit for bit."""
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )


def killed(trainer, made, monkeypatch, at):
    """Trains until a step, keeping files as it goes, and stops dead."""

    class KilledError(Exception):
        pass

    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)

    def tell(_, step, __):
        if step >= at:
            raise KilledError

    with pytest.raises(KilledError):
        trainer.train(made, tell)
    monkeypatch.undo()

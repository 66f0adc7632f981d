"""Trains with 1, 2 and 4 virtual CPU devices and pickles the results.

It runs in a separate process, because virtual devices must be configured
before TensorFlow starts: `python replicas.py FILE`.
"""

import dataclasses
import os
import pathlib
import pickle
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import toy

import tf_lottery as tfl
from tf_lottery import masking
from tf_lottery.core.masks import Masks
from tf_lottery.data import Augmentation
from tf_lottery.training import Job, Recipe, State, Trainer, loop
from tf_lottery.training.backends import compiled_steps, data_parallel
from tf_lottery.training.distribution import strategies

DEVICES = 4
L = keras.layers


def configure_devices():
    (cpu,) = tf.config.list_physical_devices("CPU")
    one = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [one] * DEVICES)


def mirrored(count):
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(count)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def model(policy="float32"):
    """Returns a model with layers that couple examples or draw numbers."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    sequential = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(4, 3, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.SpatialDropout2D(0.2),
            L.Flatten(),
            L.Dropout(0.3),
            L.Dense(8, activation="relu", kernel_regularizer="l2"),
            L.GaussianNoise(0.1),
            L.Dense(3, dtype="float32"),
        ]
    )
    keras.config.set_dtype_policy("float32")
    return sequential


def momentum():
    return keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.5)


def too_fast():
    return keras.optimizers.SGD(1e30)


def averaged():
    return keras.optimizers.AdamW(
        0.01,
        use_ema=True,
        ema_overwrite_frequency=7,
        clipnorm=0.2,
        gradient_accumulation_steps=2,
    )


CASES = {
    "momentum": (momentum, (None, 1, 2, 4)),
    "averaged": (averaged, (None, 2)),
}
HALF = ("mixed_bfloat16", "mixed_float16")


def search(optimizer, strategy, length="60it", run_dir=None):
    """Runs a search; an int `strategy` is the number of mirrored devices."""
    if isinstance(strategy, int):
        strategy = mirrored(strategy)
    ticket_search = tfl.TicketSearch(
        model(), levels=2, rate=0.4, rewind="6it", strategy=strategy
    )
    ticket_search.compile(
        optimizer(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    data = toy.dataset()
    ticket_search.fit(
        data.train.x,
        data.train.y,
        batch_size=24,
        length=length,
        run_dir=run_dir,
        evaluate_every=20,
        validation_data=(data.validation.x, data.validation.y),
        test_data=(data.test.x, data.test.y),
        verbose=False,
    )
    return ticket_search


def outcome(ticket_search):
    """Returns the results that replicas must not change."""
    names = ("validation_loss", "validation_accuracy", "loss")
    return {
        "masks": [dict(ticket.masks) for ticket in ticket_search.tickets],
        "trained": [dict(ticket.trained) for ticket in ticket_search.tickets],
        "curves": [
            {name: record.curve[name] for name in names if name in record.curve}
            for record in ticket_search.records
        ],
    }


def trainer(strategy=None, augment=None, made=None, **settings):
    made = made or model()
    data = toy.dataset()
    data = dataclasses.replace(data, augment=augment)
    kernels = masking.kernels(made)
    return Trainer(made, recipe(**settings), data, kernels, strategy)


def recipe(batch_size=24, length="40it", **loss):
    return Recipe(
        momentum(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, **loss),
        batch_size=batch_size,
        length=tfl.Duration(length),
        evaluate_every=20,
    )


def jobs(of, count, folder=None):
    draw = np.random.default_rng(3)
    start = of.initial(of.model, 5)
    made = []
    for seed in range(count):
        masks = Masks(
            {
                path: draw.random(start.weights[path].shape) < 0.5
                for path in of.network.masked
            }
        )
        weights = {
            path: value * masks[path] if path in masks else value
            for path, value in start.weights.items()
        }
        made.append(Job(State(0, weights, {}), masks, seed, folder=folder))
    return made


def trained(of, count=1, folder=None, progress=None):
    runs = of.train(jobs(of, count, folder), progress)
    return [dict(run.trained) for run in runs]


def augmented():
    augment = Augmentation(flip=True, pad=1)
    return [trained(trainer(s, augment)) for s in (None, mirrored(2))]


def one_step(policy):
    """Returns the weights after one step in half precision."""
    length = "1it"
    return [
        trained(trainer(s, made=model(policy), length=length))
        for s in (None, mirrored(2))
    ]


def wide(policy="float32"):
    """Returns a model of wide, shared and nested dense layers."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    image = keras.Input((6, 6, 1))
    x = L.Flatten()(image)
    x = L.Dense(40, use_bias=False, name="first")(x)
    shared = L.Dense(40, activation="relu", name="shared")
    x = shared(shared(x))
    decayed = L.Dense(40, kernel_regularizer="l2", name="decayed")
    x = keras.Sequential([L.Dense(40, name="nested"), decayed])(x)
    x = L.Reshape((1, 40))(x)
    x = L.TimeDistributed(L.Dense(40, name="within"))(x)
    x = L.Dense(40, name="sequence")(x)
    out = L.Dense(3, dtype="float32", name="narrow")(L.Flatten()(x))
    keras.config.set_dtype_policy("float32")
    return keras.Model(image, out)


def wide_ones():
    """Returns weights trained on 1, 2 and 4 devices, and in half precision."""
    weights = {}
    for count in (None, 2, 4):
        strategy = mirrored(count) if count else None
        of = trainer(strategy, None, wide(), batch_size=8, length="20it")
        weights[count] = trained(of)
    half = [
        trained(trainer(s, None, wide(HALF[0]), batch_size=8, length="1it"))
        for s in (None, mirrored(2))
    ]
    return weights, half


def spread():
    return [trained(trainer(s), 3) for s in (None, mirrored(2))]


def resumed(folder):
    """Stops at an evaluation and continues from the checkpoint."""
    loop.SECONDS_BETWEEN_CHECKPOINTS = 0
    length = "60it"
    whole = trained(trainer(mirrored(2), length=length))

    def at_40(_, step, figures):
        if step == 40 and figures:
            raise KeyboardInterrupt

    second = trainer(mirrored(2), length=length)
    try:
        trained(second, folder=folder, progress=at_40)
    except KeyboardInterrupt:
        kept = len(list(folder.iterdir()))
    return whole, trained(second, folder=folder), kept


@keras.saving.register_keras_serializable("tests")
class Counted(L.Layer):
    """Keeps the mean of the examples on this replica."""

    def build(self, shape):
        self.seen = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="seen"
        )

    def call(self, x):
        self.seen.assign(tf.reduce_mean(x))
        return x


@keras.saving.register_keras_serializable("tests")
class Noisy(keras.Model):
    """Draws random numbers in its own `call`."""

    def __init__(self):
        super().__init__()
        self.head, self.seed = L.Dense(3), keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        x = self.head(tf.reshape(x, [-1, 36]))
        return keras.random.dropout(x, 0.5, seed=self.seed) if training else x


def noisy():
    made = Noisy()
    made(np.zeros((1, 6, 6, 1), "float32"))
    return made


@keras.saving.register_keras_serializable("tests")
class Adding(L.Layer):
    """Adds a loss of its inputs."""

    def call(self, x):
        self.add_loss(tf.reduce_mean(tf.square(x)))
        return x


def unsupported_reason(made, strategy, **settings):
    try:
        trained(trainer(strategy, made=made, **settings))
    except ValueError as error:
        return str(error)
    return None


def refusals():
    head = [L.Flatten(), L.Dense(3)]
    image = keras.Input((6, 6, 1))
    rows = L.Reshape((6, 6))(image)
    recurrent = L.Dense(3)(L.LSTM(4, dropout=0.5, name="lstm")(rows))
    two = mirrored(2)
    return {
        "state": unsupported_reason(
            keras.Sequential([image, Counted(), *head]), two
        ),
        "own draws": unsupported_reason(noisy(), two),
        "added": unsupported_reason(
            keras.Sequential([image, Adding(), *head]), two
        ),
        "draws": unsupported_reason(keras.Model(image, recurrent), two),
        "penalty": unsupported_reason(
            keras.Sequential(
                [image, L.Flatten(), L.Dense(3, activity_regularizer="l2")]
            ),
            two,
        ),
        "uncounted": unsupported_reason(toy.mlp(), two, ignore_class=0),
        "sum": unsupported_reason(
            toy.mlp(), two, reduction="sum", length="1it"
        ),
        "batch": unsupported_reason(toy.mlp(), mirrored(4), batch_size=30),
    }


def on_tpu():
    """Returns loss and weights of a loop without XLA and compiled by XLA.

    The model draws no random numbers, because XLA draws different ones.
    """
    layers = [L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Flatten()]
    made = keras.Sequential([keras.Input((6, 6, 1)), *layers, L.Dense(3)])
    of = trainer(made=made)
    (job,) = jobs(of, 1)
    network = of.network
    window = next(of._pipeline.buffers([0], 0))
    arguments = [
        network.values_of(job.start),
        network.objective.zeros(),
        compiled_steps.StepInputs(
            network.masks_of(job.masks),
            tf.constant(0),
            tf.constant(window.orders[0]),
            window.examples,
            tf.constant(0),
        ),
        tf.constant(0),
        tf.constant(10),
    ]
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    step = data_parallel.replica_step(network, None)
    results = []
    for compiled in (False, True):

        @tf.function(jit_compile=compiled, autograph=False)
        def run(*arguments):
            return data_parallel.loop_inside_replica(one, step, *arguments)

        values, totals, _ = run(*arguments)
        loss = float(totals[0])
        results.append([loss, *(w.numpy() for w in values.weights)])
    return results


def main(path):
    configure_devices()
    out = {
        name: {str(s): outcome(search(optimizer, s)) for s in counts}
        for name, (optimizer, counts) in CASES.items()
    }
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    out["momentum"]["one device"] = outcome(search(momentum, one))
    out["wide"] = wide_ones()
    out["augmented"], out["spread"] = augmented(), spread()
    out["half"] = {policy: one_step(policy) for policy in HALF}
    out["resumed"] = resumed(path.parent / "under_way")
    out["refusals"] = refusals()
    out["tpu"] = on_tpu()
    out["found"] = strategies.described(strategies.get("mirrored"))
    path.write_bytes(pickle.dumps(out))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

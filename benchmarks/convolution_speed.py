"""Speed of convolutional networks in our loop and in Keras' fit.

Steps per second of the paper's Conv-2 and Conv-6 at batch 60 with Adam, masks
at density 0.21 in our loop and none in `fit`, on random images of CIFAR-10's
size. `fit` is silent and has its data in memory; it is tried at 1 and at 20
steps an execution, without XLA, whose convolutions are slow on a CPU. Every
contender runs in every round in a process of its own; ratios are paired.

    python benchmarks/convolution_speed.py
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import training_speed
import workload

NETWORKS = ("conv_2", "conv_6")
CONTENDERS = ("tf_lottery", "fit, 1", "fit, 20")
EXAMPLES = 6_000  # an epoch of 100 steps
WARM_UP = 20  # steps


def main() -> None:
    """Measures every contender in every round and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        print(json.dumps(_measure(*flags.worker, flags.steps)))
        return
    started = time.perf_counter()
    lines = [
        "",
        "| network | | steps/s, median [min max] | tf_lottery is faster by |",
        "|---|---|---|---|",
    ]
    versions: dict[str, Any] = {}
    for network in NETWORKS:
        rounds = []
        for number in range(flags.rounds):
            order = CONTENDERS if number % 2 == 0 else CONTENDERS[::-1]
            results = {name: _run(network, name, flags.steps) for name in order}
            rounds.append(
                {n: r["steps_per_second"] for n, r in results.items()}
            )
            versions = results["fit, 1"]["versions"]
            print(network, rounds[-1], flush=True)
        for name in CONTENDERS:
            speeds = [each[name] for each in rounds]
            ratios = [each["tf_lottery"] / each[name] for each in rounds]
            lines.append(
                f"| {network} | {name} | {training_speed.spread(speeds, 1)} "
                f"| {training_speed.spread(ratios, 2)} |"
            )
    print("\n".join(lines))
    result = {"steps_per_second": 0.0, "versions": versions}
    seconds = time.perf_counter() - started
    print(
        "\n".join(
            training_speed.circumstances([{"": result}] * flags.rounds, seconds)
        )
    )


def _run(network: str, name: str, steps: int) -> dict[str, Any]:
    command = [sys.executable, __file__, f"--steps={steps}"]
    command += ["--worker", network, name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(network: str, name: str, steps: int) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    if name == "tf_lottery":
        speed = _own(network, steps)
    else:
        speed = _fit(network, steps, int(name.split()[1]))
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    return {"steps_per_second": speed, "versions": versions}


def _images() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.standard_normal((EXAMPLES, 32, 32, 3), np.float32)
    return x, draw.integers(10, size=EXAMPLES).astype(np.int32)


def _own(network: str, steps: int) -> float:
    import keras

    from tf_lottery import data, masking, models, training
    from tf_lottery.core.duration import Duration
    from tf_lottery.core.masks import Masks
    from tf_lottery.lottery import rewinding

    model = models.build_model(network)
    draw = np.random.default_rng(0)
    masks = {
        path: draw.random(kernel.variable.shape) < workload.DENSITY
        for path, kernel in masking.kernels(model).items()
    }
    recipe = training.Recipe(
        optimizer=keras.optimizers.Adam(2e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=workload.BATCH_SIZE,
        length=Duration(f"{WARM_UP + steps}it"),
        evaluate_every=WARM_UP,
    )
    # One example is evaluated, so that the clock is read every 20 steps.
    x, y = _images()
    dataset = data.from_arrays(x, y, validation_data=(x[:1], y[:1]))
    trainer = training.Trainer(model, recipe, dataset, tuple(masks))
    times: dict[int, float] = {}
    start = rewinding.rewind(trainer.initial(model, 0), Masks(masks))
    trainer.train(
        [training.Job(start, masks)],
        lambda _, step, __: times.update({step: time.perf_counter()}),
    )
    return steps / (times[WARM_UP + steps] - times[WARM_UP])


def _fit(network: str, steps: int, per_execution: int) -> float:
    import keras

    from tf_lottery import models

    model = models.build_model(network)
    model.compile(
        keras.optimizers.Adam(2e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
        steps_per_execution=per_execution,
    )
    x, y = _images()
    rows = WARM_UP * workload.BATCH_SIZE
    model.fit(x[:rows], y[:rows], workload.BATCH_SIZE, verbose=0)
    began: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: began.append(time.perf_counter())
    )
    epochs = max(1, round(steps * workload.BATCH_SIZE / EXAMPLES))
    model.fit(
        x,
        y,
        workload.BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[clock],
    )
    done = epochs * EXAMPLES // workload.BATCH_SIZE
    return done / (time.perf_counter() - began[0])


if __name__ == "__main__":
    main()

"""The density below which sparse training beats dense training.

Steps per second of LeNet-300-100 on MNIST at batch 60 with Adam 1.2e-3: the
dense loop with masks, compiled by XLA, on all cores, against one thread of
`tf_lottery.training.backends.sparse_cpu`. Masks are random, the output layer's
pruned at half the rate, as in Frankle & Carbin 2019. Nothing is evaluated.

Both run in every round, one after the other in one process; the table holds
the fastest round of each. The last column is the speed of two networks in two
threads by that of one.

    python benchmarks/sparse_training.py --rounds 5
"""

import argparse
import dataclasses
import os
import threading
import time
from collections.abc import Mapping

import keras
import numpy as np
import training_speed
import workload

from tf_lottery import data, masking, models
from tf_lottery.core.duration import Duration
from tf_lottery.core.masks import Masks
from tf_lottery.lottery import rewinding
from tf_lottery.training import Job, Recipe, State, Trainer, batch_sampler
from tf_lottery.training.backends import sparse, sparse_cpu

DENSITIES = (1.0, 0.5, 0.21, 0.108, 0.036, 0.012)
WARM_UP = 200
STEPS_A_CALL = 100


def main() -> None:
    """Measures every density in every round and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    flags = parser.parse_args()
    sparse.BREAK_EVEN = 0.0  # the trainer shall train densely
    trainer = _trainer(flags.steps)
    start = trainer.state
    masks = {density: _masks(trainer.model, density) for density in DENSITIES}
    best: dict[float, tuple[float, ...]] = {}
    for _ in range(flags.rounds):
        for density in DENSITIES:
            given = rewinding.rewind(start, masks[density]), masks[density]
            speeds = (
                _dense(trainer, *given),
                _sparse(trainer, *given, threads=1),
                _sparse(trainer, *given, threads=2),
            )
            before = best.get(density, speeds)
            best[density] = tuple(map(max, before, speeds))
    print("| density | survivors | dense | sparse | faster by | two threads |")
    print("|---|---|---|---|---|---|")
    for density, (dense, one, two) in best.items():
        kept = sum(int(mask.sum()) for mask in masks[density].values())
        print(
            f"| {density:g} | {kept} | {dense:.0f} | {one:.0f} "
            f"| {one / dense:.2f} | {two / one:.2f} |"
        )
    print(f"{training_speed._cpu()}, {os.cpu_count()} cores")


def _trainer(steps: int) -> Trainer:
    model = models.build_model("lenet_300_100")
    recipe = Recipe(
        optimizer=keras.optimizers.Adam(workload.LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=workload.BATCH_SIZE,
        length=Duration(f"{WARM_UP + steps}it"),
        evaluate_every=STEPS_A_CALL,
    )
    mnist = dataclasses.replace(
        data.load_dataset("mnist"), validation=None, test=None
    )
    return Trainer(model, recipe, mnist, kernels=tuple(masking.kernels(model)))


def _masks(model: keras.Model, density: float) -> Masks:
    """Returns random masks of the densities that iterated pruning gives."""
    draw = np.random.default_rng(0)
    exponents = {"output": np.log(0.9) / np.log(0.8)}
    return Masks(
        {
            path: draw.random(kernel.variable.shape)
            < density ** exponents.get(kernel.role, 1)
            for path, kernel in masking.kernels(model).items()
        }
    )


def _dense(
    trainer: Trainer, start: State, masks: Mapping[str, np.ndarray]
) -> float:
    """Returns steps a second, after the first WARM_UP."""
    times: dict[int, float] = {}
    trainer.train(
        [Job(start, masks)],
        lambda _, step, __: times.update({step: time.perf_counter()}),
    )
    steps = trainer.steps - WARM_UP
    return steps / (times[trainer.steps] - times[WARM_UP])


def _sparse(
    trainer: Trainer,
    start: State,
    masks: Mapping[str, np.ndarray],
    threads: int,
) -> float:
    """Returns steps a second of all threads together."""
    train = trainer.data.train
    x = train.x.reshape(len(train.x), -1)
    size = trainer.recipe.batch_size
    order = batch_sampler.epoch_order(0, 0, len(x))
    batches = order[: len(x) // size * size].reshape(-1, size)
    calls = [
        batches[first : first + STEPS_A_CALL]
        for first in range(0, trainer.steps - WARM_UP, STEPS_A_CALL)
    ]
    networks = [
        sparse_cpu.SparseTraining(
            trainer.model, masks, trainer.recipe.optimizer, start.weights
        )
        for _ in range(threads)
    ]
    for network in networks:
        network.run(x, train.y, batches[:10])

    def work(network: sparse_cpu.SparseTraining) -> None:
        for call in calls:
            network.run(x, train.y, call)

    workers = [threading.Thread(target=work, args=(n,)) for n in networks]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    steps = threads * sum(map(len, calls))
    return steps / (time.perf_counter() - began)


if __name__ == "__main__":
    main()

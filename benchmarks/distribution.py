"""Cost of splitting one network over two worker processes.

Steps per second of the paper's Conv-2 at batch 60 with Adam: one process with
all cores, and two worker processes on the same machine, each bound to half of
the cores, as `srun` binds its tasks, and with half of every batch; they agree
on 4.3 million gradients at every step.
Random images of CIFAR-10's size. Both run in every round; ratios are paired.

    python benchmarks/distribution.py
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping

WORKERS = 2
EXAMPLES = 6_000  # an epoch of 100 steps


def main() -> None:
    """Measures both in every round and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cores", nargs="+", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        os.sched_setaffinity(0, flags.cores)
        print(json.dumps(_measure(flags.steps)))
        return
    rounds = []
    for _ in range(flags.rounds):
        rounds.append([_run(count, flags.steps) for count in (1, WORKERS)])
        print(rounds[-1], flush=True)
    ratios = [two / one for one, two in rounds]
    for name, speeds in zip(
        ("one process", f"{WORKERS} workers"),
        zip(*rounds, strict=True),
        strict=True,
    ):
        print(f"{name:<12} {_spread(speeds)} steps/s")
    print(f"workers take {_spread(ratios)} of the steps of one process")


def _run(count: int, steps: int) -> float:
    """Returns the steps per second of so many workers together."""
    ports = []
    for _ in range(count):
        with socket.socket() as place:
            place.bind(("localhost", 0))
            ports.append(place.getsockname()[1])
    addresses = [f"localhost:{port}" for port in ports]
    cores = sorted(os.sched_getaffinity(0))
    processes = []
    for index in range(count):
        config = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if count > 1:
            environment["TF_CONFIG"] = json.dumps(config)
        processes.append(
            subprocess.Popen(
                [
                    *(sys.executable, __file__, f"--steps={steps}"),
                    *("--worker", "--cores", *map(str, cores[index::count])),
                ],
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
        )
    said = [process.communicate()[0] for process in processes]
    return min(json.loads(text.splitlines()[-1]) for text in said)


def _measure(steps: int) -> float:
    """Returns this process's steps per second, after a first call."""
    from tf_lottery.training.distribution import strategies

    strategy = strategies.get("auto")

    import keras
    import numpy as np

    from tf_lottery import data, masking, models
    from tf_lottery.core.duration import Duration
    from tf_lottery.training import Job, Recipe, Trainer

    draw = np.random.default_rng(0)
    x = draw.normal(size=(EXAMPLES, 32, 32, 3)).astype(np.float32)
    y = draw.integers(10, size=EXAMPLES).astype(np.int32)
    model = models.build_model("conv_2", seed=0)
    times: list[tuple[int, float]] = []
    recipe = Recipe(
        keras.optimizers.Adam(2e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=60,
        length=Duration(f"{20 + steps}it"),
        evaluate_every=20,
    )
    trainer = Trainer(
        model,
        recipe,
        data.from_arrays(x, y, validation_data=(x[:60], y[:60])),
        masking.kernels(model),
        strategy,
    )
    start = trainer.initial(model, 0)
    masks = {
        path: np.ones(start.weights[path].shape, bool)
        for path in trainer.network.masked
    }

    def tell(_: int, step: int, figures: Mapping[str, float]) -> None:
        if figures:
            times.append((step, time.perf_counter()))

    trainer.train([Job(start, masks)], tell)
    (first, began), (last, ended) = times[0], times[-1]
    return (last - first) / (ended - began)


def _spread(values: Iterable[float]) -> str:
    low, *_, high = ordered = sorted([*values] * 2)
    return f"{statistics.median(ordered):.2f} [{low:.2f} {high:.2f}]"


if __name__ == "__main__":
    main()

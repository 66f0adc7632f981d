"""What a search costs beyond training, from small models to large ones.

A search of two levels with Adam, global pruning at rate 0.2, and an evaluation
on validation data every half of a level's steps; beside it, `fit` of the same
steps, the first epoch that compiles left out. Random data. Each search runs in
a process of its own.

- `a level`: seconds of level 1 and of level 2 that are not training: from the
  end of one level to that of the next, without the `seconds` of its network.
- `in all`: seconds of the whole search that are no network's `seconds`. What
  level 0 compiles is training here.
- `memory`: peak of the process above what it held after importing TensorFlow.
- `disk`: bytes of the run directory by those of the values that it must hold:
  one dense state, and of each network the survivors that it starts from, ends
  with, and has at its early-stop step.

The exponent is the slope of log(seconds a level) over log(weights).

    python benchmarks/scale.py
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import training_speed

NETWORKS = ("lenet_300_100", "mobilenet", "resnet_50", "mlp")
LEVELS = 2
BATCH_SIZE = 16
CLASSES = 10


def main() -> None:
    """Measures every network and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        name, contender = flags.worker
        print(json.dumps(WORKERS[contender](name, flags.steps)))
        return
    started = time.perf_counter()
    lines = [
        "",
        "| network | weights | `fit`, s | training, s | a level, s | in all, s "
        "| memory, GB | disk |",
        "|---|---|---|---|---|---|---|---|",
    ]
    results = []
    for name in flags.networks:
        result = _run(name, "search", flags.steps)
        result |= _run(name, "fit", flags.steps)
        print(name, result, flush=True)
        results.append(result)
        lines.append(
            f"| {name} | {result['weights']:,} | {result['fit']:.2f} "
            f"| {result['training']:.2f} | {result['level']:.2f} "
            f"| {result['in_all']:.1f} | {result['memory']:.2f} "
            f"| {result['disk']:.2f} |"
        )
    print("\n".join(lines))
    if len(results) > 1:
        logs = np.log([[r["weights"], r["level"]] for r in results])
        print(f"\nexponent: {np.polyfit(*logs.T, 1)[0]:.2f}")
    seconds = time.perf_counter() - started
    print("\n".join(training_speed.circumstances([{"": results[0]}], seconds)))


def _run(name: str, contender: str, steps: int) -> dict[str, Any]:
    command = [sys.executable, __file__, f"--steps={steps}"]
    command += ["--worker", name, contender]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _search(name: str, steps: int) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    imported = _peak()

    import tf_lottery

    model = _model(name)
    x, y = _examples(model, steps)
    search = tf_lottery.TicketSearch(model, LEVELS, allocation="global")
    search.compile("adam", "sparse_categorical_crossentropy")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        search.fit(
            x,
            y,
            batch_size=BATCH_SIZE,
            length=f"{steps}it",
            evaluate_every=steps // 2,
            validation_data=(x[:BATCH_SIZE], y[:BATCH_SIZE]),
            verbose=0,
            run_dir=folder,
        )
        in_all = time.perf_counter() - began
        stored, ends = _bytes(folder), _ends(folder)
    memory = _peak() - imported
    rows = [record.row for record in search.records]
    training = [row["seconds"] for row in rows]
    levels = np.diff(ends) - training[1:]
    return {
        "weights": model.count_params(),
        "training": float(np.mean(training[1:])),
        "level": float(np.mean(levels)),
        "in_all": in_all - sum(training),
        "memory": memory / 1e9,
        "disk": stored / _necessary_bytes(search.tickets, rows),
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }


def _fit(name: str, steps: int) -> dict[str, Any]:
    model = _model(name)
    x, y = _examples(model, steps)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, BATCH_SIZE, verbose=0)
    began = time.perf_counter()
    model.fit(x, y, BATCH_SIZE, verbose=0)
    return {"fit": time.perf_counter() - began}


WORKERS = {"search": _search, "fit": _fit}


def _model(name: str) -> Any:
    import keras

    shape = {"mlp": (3072,), "lenet_300_100": (784,)}.get(name, (64, 64, 3))
    settings = {"weights": None, "input_shape": shape, "classes": CLASSES}
    if name == "resnet_50":
        return keras.applications.ResNet50(**settings)
    if name == "mobilenet":
        return keras.applications.MobileNetV3Small(**settings)
    units = (8192, 8192, 1024) if name == "mlp" else (300, 100)
    hidden = [keras.layers.Dense(n, activation="relu") for n in units]
    output = keras.layers.Dense(CLASSES, activation="softmax")
    return keras.Sequential([keras.Input(shape), *hidden, output])


def _examples(model: Any, steps: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    count = steps * BATCH_SIZE
    x = draw.random((count, *model.input_shape[1:]), np.float32)
    return x, draw.integers(CLASSES, size=count).astype(np.int32)


def _peak() -> int:
    """Returns the largest memory of this process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _bytes(folder: str) -> int:
    files = pathlib.Path(folder).rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def _ends(folder: str) -> list[float]:
    """Returns when each level was stored, in seconds."""
    records = sorted(pathlib.Path(folder).glob("*/level_*/ticket/record.json"))
    return [record.stat().st_mtime for record in records]


def _necessary_bytes(tickets: Any, rows: Any) -> int:
    """Returns the bytes of one dense state and of all survivors."""
    necessary = dense = sum(
        a.nbytes for a in tickets[0].origin.weights.values()
    )
    for ticket, row in zip(tickets, rows, strict=True):
        states = 2 + (row["early_stop_step"] != row["steps"])
        pruned = ticket.masks.size - ticket.masks.kept
        necessary += states * (dense - 4 * pruned)
    return necessary


if __name__ == "__main__":
    main()

"""One of several workers that find tickets together: `python worker.py OUT`.

TF_CONFIG names the workers, and which of them this one is.
"""

import os
import pathlib
import pickle
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tf_lottery.training import loop
from tf_lottery.training.distribution import strategies


def main(out):
    strategy = strategies.get("multi_worker")
    # TensorFlow operations may run only after the workers have joined.
    import replicas

    loop.SECONDS_BETWEEN_CHECKPOINTS = 0
    search = replicas.search(
        replicas.momentum, strategy, run_dir=out / "run", length="240it"
    )
    name = "chief" if strategies.is_chief(strategy) else "other"
    errors = diverging(strategy, out) + sweeps(strategy, out)
    (out / name).write_bytes(pickle.dumps((replicas.outcome(search), errors)))


def diverging(strategy, out):
    """Searches with a too high learning rate; returns the error message."""
    import replicas

    folder = out / "diverging"
    try:
        replicas.search(replicas.too_fast, strategy, "40it", folder)
    except ValueError as error:
        return f"{error}"
    return ""


def sweeps(strategy, out):
    """Runs sweeps that conflict; returns their error messages."""
    from tf_lottery import experiment

    config = experiment.Config(
        model="lenet_300_100", dataset="mnist", length="4it", levels=1
    )
    # Only the chief knows the folder.
    folder = out / ("s" if strategies.is_chief(strategy) else "none")
    errors = ""
    sweep = {"rate": [0.2, 0.5]}
    high = {"learning_rate": [1e30, 1e-3]}
    for base, axes, run_dir in (
        (config, sweep, folder),
        (config.replace({"batch_size": 50}), sweep, folder),
        (config.replace({"levels": 0}), high, out / "high"),
    ):
        configs = experiment.expand(base, axes)
        try:
            experiment.run_sweep(configs, run_dir, "", False, strategy=strategy)
        except ValueError as error:
            errors += f"{error}"
    return errors


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"{error}")

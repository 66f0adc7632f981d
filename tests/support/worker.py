"""One of several workers that find tickets together: `python worker.py OUT`.

TF_CONFIG says which one, and of how many.
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
    # Ops may run only now that the workers are joined.
    import replicas

    loop.SECONDS_BETWEEN_CHECKPOINTS = 0
    found = replicas.search(
        replicas.momentum, strategy, run_dir=out / "run", length="240it"
    )
    name = "chief" if strategies.is_chief(strategy) else "other"
    said = diverging(strategy, out) + sweeps(strategy, out)
    (out / name).write_bytes(pickle.dumps((replicas.outcome(found), said)))


def diverging(strategy, out):
    """Searches with a learning rate that is too high; returns what is wrong."""
    import replicas

    folder = out / "diverging"
    try:
        replicas.search(replicas.too_fast, strategy, "40it", folder)
    except ValueError as error:
        return f"{error}"
    return ""


def sweeps(strategy, out):
    """Sweeps, and again with another setting; returns what is wrong then."""
    from tf_lottery import experiment

    config = experiment.Config(
        model="lenet_300_100", dataset="mnist", length="4it", levels=1
    )
    # Of the folder nothing is known to those that follow.
    own = out / ("s" if strategies.is_chief(strategy) else "none")
    said = ""
    sweep = {"rate": [0.2, 0.5]}
    high = {"learning_rate": [1e30, 1e-3]}
    for each, axes, place in (
        (config, sweep, own),
        (config.replace({"batch_size": 50}), sweep, own),
        (config.replace({"levels": 0}), high, out / "high"),
    ):
        configs = experiment.expand(each, axes)
        try:
            experiment.run_sweep(configs, place, "", False, strategy=strategy)
        except ValueError as error:
            said += f"{error}"
    return said


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"{error}")

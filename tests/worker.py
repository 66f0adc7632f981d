"""One of several workers that find tickets together: `python worker.py OUT`.

TF_CONFIG says which one, and of how many.
"""

import os
import pathlib
import pickle
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tf_lottery import crews, strategies
from tf_lottery.training import course


def main(out):
    strategy = strategies.find("multi_worker")
    # Ops may run only now that the workers are joined.
    import replicas

    course.SECONDS_BETWEEN_FILES = 0
    found = replicas.search(
        replicas.momentum, strategy, run_dir=out / "run", length="240it"
    )
    name = "chief" if crews.is_chief(strategy) else "other"
    (out / name).write_bytes(pickle.dumps(replicas.outcome(found)))


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"{error}")

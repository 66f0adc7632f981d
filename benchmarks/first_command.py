"""How often, and how soon, the README's first command names a ticket.

    python benchmarks/first_command.py --run_dir runs/ten_seeds

runs `tf-lottery run lenet_mnist --scale quick` under ten seeds, each in its own
run directory, one after the other, and prints what each came to: the outcome of
each level, the replicates that it took, and its seconds. Started again it
continues where it stopped; seconds are those of the part that it then ran.
"""

import argparse
import pathlib
import subprocess
import sys
import time

from tf_lottery.experiment import outcome
from tf_lottery.runs import run_directory


def main() -> None:
    """Runs the command under each seed, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=100, help="first seed")
    arguments = parser.parse_args()
    print("seed  named  replicates  seconds  outcome by level")
    named = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        place = arguments.run_dir / f"seed_{seed}"
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "tf_lottery", "run", "lenet_mnist"]
            + ["--scale", "quick", "--seed", f"{seed}"]
            + ["--run_dir", str(place)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - began
        judgment = outcome.judge(run_directory.RunDirectory.open(place))
        named.append(judgment.winner is not None)
        level = f"{judgment.winner.level}" if judgment.winner else "none"
        outcomes = ", ".join(
            f"{v.level} {v.outcome}" for v in judgment.verdicts
        )
        print(
            f"{seed:>4}  {level:>5}  {judgment.replicates:>10}  {seconds:>7.0f}"
            f"  {outcomes}",
            flush=True,
        )
    print(f"{sum(named)} of {len(named)} named a ticket.")


if __name__ == "__main__":
    main()

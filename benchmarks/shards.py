"""Speed of a sweep in two processes and in one.

A sweep of small searches, all of it new each time: by one process with all
cores; and by two at once on one run directory, with half of the cores each, as
an array job's tasks have. In every round both, in turn. Seconds are those until
the last process ends, from when all have imported TensorFlow; they compile.

    python benchmarks/shards.py
"""

import argparse
import functools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent


REPLICATES, RUNS = 2, 2


def main() -> None:
    """Measures both in every round and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        _work(flags.worker, flags.steps, flags.levels)
        return
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    shares = {"one process": [cores], "two": [cores[:half], cores[half:]]}
    if not half:
        parser.error("two processes need two cores")
    seconds: dict[str, list[float]] = {name: [] for name in shares}
    for number in range(flags.rounds):
        order = list(shares) if number % 2 == 0 else list(shares)[::-1]
        for name in order:
            seconds[name].append(_run(shares[name], flags.steps, flags.levels))
        print({n: round(s[-1], 1) for n, s in seconds.items()}, flush=True)
    ratios = [one / two for one, two in zip(*seconds.values(), strict=True)]
    print("\n| | seconds | steps/s | faster by |\n|---|---|---|---|")
    steps = RUNS * REPLICATES * (1 + flags.levels) * flags.steps
    for name, found in seconds.items():
        speeds = [steps / each for each in found]
        by = _spread(ratios, 2) if name == "two" else ""
        print(f"| {name} | {_spread(found, 1)} | {_spread(speeds, 0)} | {by} |")


def _run(shares: list[list[int]], steps: int, levels: int) -> float:
    """Returns the seconds in which processes, of so many cores, do a sweep."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", folder]
                + ["--steps", f"{steps}", "--levels", f"{levels}"],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                preexec_fn=functools.partial(os.sched_setaffinity, 0, share),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for share in shares
        ]
        for process in processes:
            process.stdout.readline()
        started = time.perf_counter()
        for process in processes:
            process.stdin.close()
        if any([process.wait() for process in processes]):
            raise SystemExit("A process failed.")
        return time.perf_counter() - started


def _work(folder: str, steps: int, levels: int) -> None:
    from tf_lottery import experiment
    from tf_lottery.experiment import presets

    print("ready", flush=True)
    sys.stdin.read()
    settings = {
        "levels": levels,
        "length": f"{steps}it",
        "replicates": REPLICATES,
        "controls": "",
        # Runs that have nothing in common, so that as much is trained.
        "learning_rate": [1e-3, 2e-3],
    }
    preset = presets.get("lenet_mnist", "quick")
    configs = experiment.expand(preset, settings)
    experiment.run_sweep(configs, pathlib.Path(folder) / "sweep", workers=1)


def _spread(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


if __name__ == "__main__":
    main()

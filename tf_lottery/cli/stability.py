"""The command `stability`."""

import argparse

from tf_lottery.cli.silence import silence_tensorflow
from tf_lottery.cli.terminal import show

TEXT = "measure the barrier between copies of a run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run directory and a level."""
    parser.add_argument("run_dir", metavar="DIR", help="the run's directory")
    parser.add_argument("--level", type=int, metavar="L", help="default: all")
    parser.add_argument("--data_dir", metavar="D", help="as in `run`")


def execute(arguments: argparse.Namespace) -> None:
    """Measures the barriers, and prints each when it is done."""
    with silence_tensorflow():
        from tf_lottery import experiment
        from tf_lottery.runs.run_directory import RunDirectory
    lines = experiment.interpolate(
        RunDirectory.open(arguments.run_dir),
        arguments.level,
        arguments.data_dir,
    )
    for replicate, level, line in lines:
        if not line.errors:
            show(f"replicate {replicate}  level {level:>2}  the copy diverged")
            continue
        barriers = "  ".join(
            f"{split} {100 * line.barrier(split):6.2f}" for split in line.errors
        )
        show(
            f"replicate {replicate}  level {level:>2}  barrier in points: "
            f"{barriers}  distance {line.distance:.2f}"
        )

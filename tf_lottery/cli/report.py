"""The command `report`."""

import argparse
import sys

from tf_lottery.cli import colors
from tf_lottery.cli.silence import silence_tensorflow
from tf_lottery.cli.terminal import show

TEXT = "write the report of a run again"

_OUTCOMES = {
    "shown": colors.GREEN,
    "agrees": colors.GREEN,
    "not shown": colors.YELLOW,
    "contradicted": colors.YELLOW,
    "differs": colors.YELLOW,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run directory."""
    parser.add_argument(
        "run_dir", metavar="DIR", help="the directory of a run, or of a sweep"
    )


def execute(arguments: argparse.Namespace) -> None:
    """Writes the report, and prints its table and conclusions."""
    with silence_tensorflow():
        from tf_lottery.experiment import report
    for line in report.write(arguments.run_dir):
        outcome = line.partition(":")[0]
        painted = ""
        if outcome in _OUTCOMES:
            painted = colors.paint(outcome, _OUTCOMES[outcome], sys.stdout)
            line = line.removeprefix(outcome)
        show(line, painted)

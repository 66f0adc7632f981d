"""The command `report`."""

import argparse
import sys

from tf_lottery.command_line import colours
from tf_lottery.command_line.quiet import quiet

TEXT = "draw the report of a run again"

_OUTCOMES = {
    "shown": colours.GREEN,
    "agrees": colours.GREEN,
    "not shown": colours.YELLOW,
    "contradicted": colours.YELLOW,
    "differs": colours.YELLOW,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run directory."""
    parser.add_argument(
        "run_dir", metavar="DIR", help="the directory of a run, or of a sweep"
    )


def execute(arguments: argparse.Namespace) -> None:
    """Writes the report, and prints what a terminal shows of it."""
    with quiet():
        from tf_lottery import reports
    for line in reports.write(arguments.run_dir):
        outcome, colon, rest = line.partition(":")
        if outcome in _OUTCOMES:
            outcome = colours.paint(outcome, _OUTCOMES[outcome], sys.stdout)
        print(outcome + colon + rest)

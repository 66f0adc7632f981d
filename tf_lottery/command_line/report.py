"""This module knows the command `report`."""

import argparse

from tf_lottery.command_line.quiet import quiet

TEXT = "draw the report of a run again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run directory."""
    parser.add_argument("run_dir", metavar="DIR")


def execute(arguments: argparse.Namespace) -> None:
    """Writes the report, and prints what a terminal shows of it."""
    with quiet():
        from tf_lottery import reports
    print("\n".join(reports.write(arguments.run_dir)))

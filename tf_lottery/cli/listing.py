"""This module knows the command `list`."""

import argparse

from tf_lottery.cli.choices import NAMES

TEXT = "show presets, models, data sets and the rest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds none."""
    del parser


def execute(arguments: argparse.Namespace) -> None:
    """Prints every table of names."""
    del arguments
    for kind, names in NAMES.items():
        more = ", any image set of TFDS by name" if kind == "data sets" else ""
        print(f"{kind + ':':<13} {', '.join(names)}{more}")

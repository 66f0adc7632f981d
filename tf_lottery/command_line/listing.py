"""This module knows the command `list`."""

import argparse

from tf_lottery.command_line.quiet import quiet

TEXT = "show presets, models, data sets and the rest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds none."""
    del parser


def execute(arguments: argparse.Namespace) -> None:
    """Prints every table of names."""
    del arguments
    with quiet():
        from tf_lottery import controls, data, models, pruning, strategies
        from tf_lottery.experiment import presets
    for kind, table in (
        ("presets", presets.PRESETS),
        ("models", models.MODELS),
        ("data sets", [*data.DATASETS, "any image set of TFDS by name"]),
        ("criteria", pruning.CRITERIA),
        ("allocations", pruning.ALLOCATIONS),
        ("schedules", pruning.SCHEDULES),
        ("controls", controls.CONTROLS),
        ("strategies", strategies.STRATEGIES),
    ):
        print(f"{kind + ':':<13} {', '.join(table)}")

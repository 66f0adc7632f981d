"""The command `list`."""

import argparse
import dataclasses

from tf_lottery.cli import export
from tf_lottery.core import registries

TEXT = "show presets, models, data sets and the rest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the command has no arguments."""
    del parser


def execute(arguments: argparse.Namespace) -> None:
    """Prints the names of every registry, and of the settings."""
    from tf_lottery.experiment.config import Config

    del arguments
    tables = {
        "presets": registries.PRESETS,
        "models": registries.MODELS,
        "data sets": [*registries.DATASETS, "any image set of TFDS by name"],
        "criteria": registries.CRITERIA,
        "allocations": registries.ALLOCATIONS,
        "schedules": registries.SCHEDULES,
        "controls": registries.CONTROLS,
        "formats": export.KNOWN,
        "strategies": registries.STRATEGIES,
        "settings": [field.name for field in dataclasses.fields(Config)],
    }
    for kind, names in tables.items():
        print(f"{kind + ':':<13} {', '.join(names)}")

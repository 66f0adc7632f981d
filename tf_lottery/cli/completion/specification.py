"""This module knows what can be typed after a command, read off its parser."""

import argparse
import dataclasses
from collections.abc import Mapping

from tf_lottery import registries
from tf_lottery.cli import export


@dataclasses.dataclass(frozen=True)
class Typed:
    """A flag, or an argument without one.

    Attributes:
        flag: `"--scale"`; `""` for an argument in its place.
        help: What it is for.
        metavar: What its value is called; `""` for a flag without one.
        values: The names that it takes; empty if there is no such list.
        place: `"directory"` or `"file"` where its value is a path, else `""`.
        end: What follows a name: `","`, where several are taken, or `"="`.
    """

    flag: str
    help: str
    metavar: str
    values: tuple[str, ...] = ()
    place: str = ""
    end: str = ""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, and what can be typed after it."""

    name: str
    help: str
    words: tuple[Typed, ...]

    @property
    def flags(self) -> list[Typed]:
        """Those with a flag."""
        return [word for word in self.words if word.flag]

    @property
    def arguments(self) -> list[Typed]:
        """Those in their place."""
        return [word for word in self.words if not word.flag]


_BY_METAVAR: dict[str, tuple[tuple[str, ...], str, str]] = {
    "DIR": ((), "directory", ""),
    "D": ((), "directory", ""),
    "OUT": ((), "file", ""),
    "NAMES": (tuple(registries.CONTROLS), "", ","),
    "F": (tuple(export.KNOWN), "", ","),
    "KEY=VALUE": ((), "", "="),
}
"""Values, place and end, where no list of choices says what a value is."""


def typed(commands: Mapping[str, argparse.ArgumentParser]) -> list[Command]:
    """Returns the commands of these parsers.

    `argparse` has no public list of what a parser takes; the tests of the
    scripts pin this one.
    """
    return [
        Command(
            name,
            parser.description or "",
            tuple(
                _typed(action)
                for action in parser._actions
                if action.help != argparse.SUPPRESS
            ),
        )
        for name, parser in commands.items()
    ]


def _typed(action: argparse.Action) -> Typed:
    flag = action.option_strings[-1] if action.option_strings else ""
    metavar = "" if action.nargs == 0 else str(action.metavar or action.dest)
    known = tuple(action.choices or ()), "", ""
    if not known[0]:
        known = _BY_METAVAR.get(metavar, known)
    return Typed(flag, action.help or "", metavar, *known)

"""This module knows when a terminal is given colours."""

import os
from typing import TextIO

RED, GREEN, YELLOW = "1;31", "32", "33"


def paint(text: str, color: str, stream: TextIO) -> str:
    """Returns text in a colour, if what it is written to shows colours.

    Only terminals do, not files or pipes; and not where the user has asked
    for none (`NO_COLOR`, https://no-color.org) or the terminal has none.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not stream.isatty():
        return text
    return f"\x1b[{color}m{text}\x1b[0m"

"""Colors on a terminal."""

import os
from typing import TextIO

RED, GREEN, YELLOW = "1;31", "32", "33"


def paint(text: str, color: str, stream: TextIO) -> str:
    """Returns text in a color, if the stream is a terminal with colors.

    A non-empty environment variable `NO_COLOR` (https://no-color.org) turns
    colors off.

    Args:
        text: The text.
        color: Parameters of the escape sequence, such as `RED`.
        stream: The stream that the text will be written to.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not stream.isatty():
        return text
    return f"\x1b[{color}m{text}\x1b[0m"

"""What converters and runtimes print, kept off the terminal."""

import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Discards what is written to standard error.

    Converters and runtimes write there from C++, up to thousands of lines,
    which no Python setting stops. Their exceptions still arrive.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def first_line(error: BaseException) -> str:
    """Returns the part of an exception's message that says what failed."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    # A line of a compiler, after the files that it was called from.
    operation = re.search(r"'[a-z]+\.\w+' op [^\n]*", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # So Keras begins, before what was raised in the layer.
    wrapped = len(lines) > 1 and lines[0].startswith("Exception encountered")
    line = next(iter(lines[wrapped:]), "")
    line = operation.group() if operation else line
    return f"{type(error).__name__}: {line}"[:200].rstrip(" .:") + "."

"""Suppression of what converters and runtimes print."""

import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def suppress_stderr() -> Iterator[None]:
    """Discards everything that is written to standard error.

    Converters and runtimes write up to thousands of lines there from C++,
    which no Python setting stops. Exceptions still propagate.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def error_summary(error: BaseException) -> str:
    """Returns the line of an exception's message that says what failed.

    Args:
        error: An exception of a converter, a runtime or Keras.
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    # MLIR names the operation after the files that it was called from.
    operation = re.search(r"'[a-z]+\.\w+' op [^\n]*", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Keras puts this line before the message of the layer.
    wrapped = len(lines) > 1 and lines[0].startswith("Exception encountered")
    line = next(iter(lines[wrapped:]), "")
    line = operation.group() if operation else line
    return f"{type(error).__name__}: {line}"[:200].rstrip(" .:") + "."

"""Memory that a call takes."""

import tracemalloc


def peak(function, *arguments):
    """Returns the most bytes that a call held at once, and its error."""
    tracemalloc.start()
    error = None
    try:
        function(*arguments)
    except Exception as raised:
        error = raised
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most, error

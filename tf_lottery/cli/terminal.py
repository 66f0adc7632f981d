"""Lines for the terminal."""

from tf_lottery.core import errors


def show(text: object = "", painted: str = "") -> None:
    """Prints text on standard output, and nothing that a terminal obeys.

    Reports and exports quote names from run directories and tickets, which
    may come from a stranger.

    Args:
        text: The text, of one line or several.
        painted: Text of ours to print before it, with colors.
    """
    print(painted + errors.printable(str(text)), flush=True)

"""Errors that a user can mend: bad input, told from a fault of ours."""


class UserError(ValueError):
    """Bad input. The message says what is wrong, what came, and what to do.

    The command line prints it as one line and exits with status 2. Every
    other exception is a fault in tf_lottery and keeps its traceback.

    Its message may quote a stranger's file: it prints nothing that a terminal
    would obey.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class UserTypeError(UserError, TypeError):
    """Input of a wrong type."""


class MissingFileError(UserError, FileNotFoundError):
    """A file that the user names does not exist."""


class MissingPackageError(UserError, ImportError):
    """An optional package is needed and not installed."""


def one_line(error: BaseException, most: int = 300) -> str:
    """Returns an exception's message on one line, or its class without one.

    Args:
        error: The exception.
        most: Characters to keep, at least 1.

    Example:
        >>> one_line(ValueError("no such", "file"))
        "('no such', 'file')"
        >>> one_line(KeyError())
        'KeyError'
    """
    message = printable(" ".join(str(error).split())[:most])
    return message or type(error).__name__


def printable(text: str) -> str:
    r"""Returns text in which characters that a terminal obeys are escaped.

    These are the control characters, those that turn the direction of writing,
    and all others that Python does not print; line breaks and tabs stay.

    Args:
        text: Text that may come from a stranger's file.

    Example:
        >>> printable("\x1b[2Jgone, naïve")
        '\\x1b[2Jgone, naïve'
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text
    )

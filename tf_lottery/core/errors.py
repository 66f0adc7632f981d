"""Errors that a user can mend: bad input, told from a fault of ours."""


class UserError(ValueError):
    """Bad input. The message says what is wrong, what came, and what to do.

    The command line prints it as one line and exits with status 2. Every
    other exception is a fault in tf_lottery and keeps its traceback.
    """


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
    return " ".join(str(error).split())[:most] or type(error).__name__

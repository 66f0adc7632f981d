"""This module knows how a name is found in a table."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from tf_lottery.core.errors import UserError

T = TypeVar("T")


def get(table: Mapping[str, T], name: str, kind: str) -> T:
    """Returns `table[name]`, or says which names there are.

    Args:
        table: The known things by name.
        name: The name asked for.
        kind: What the table holds, in the singular, for the message.

    Returns:
        The entry.

    Raises:
        ValueError: The name is not in the table; the message lists the known
            names and suggests the nearest.

    Example:
        >>> find({"magnitude": 1, "random": 2}, "magnitud", "criterion")
        Traceback (most recent call last):
            ...
        ValueError: Unknown criterion 'magnitud'. Did you mean 'magnitude'? \
Known: magnitude, random.
    """
    if name in table:
        return table[name]
    raise UserError(
        f"Unknown {kind} {name!r}.{nearest(name, table)} "
        f"Known: {', '.join(table)}."
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the nearest known name, or "".

    Args:
        name: The name asked for.
        known: The names there are.

    Example:
        >>> nearest("dens/kernel", ["dense/kernel", "conv/kernel"])
        " Did you mean 'dense/kernel'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""

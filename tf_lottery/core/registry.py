"""Tables of names, and lookups with an error that suggests the nearest name."""

import difflib
import importlib
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from typing import Any, TypeVar

from tf_lottery.core.errors import UserError

T = TypeVar("T")

_COMPARABLE, _COMPARABLE_NAME = 200_000, 1000
"""Characters of all names, and of one, that are still compared: it takes the
square of a name's length, and names may come from a file."""


class Registry(MutableMapping[str, Any]):
    """A table of objects by name; an object is imported when it is used.

    Names can therefore be listed without importing TensorFlow.

    Args:
        package: The package that the modules of the objects are in.
        members: Name to `"module:attribute"`; or to the object itself.

    Example:
        >>> functions = Registry("os", {"join": "path:join"})
        >>> list(functions), functions["join"]("a", "b")
        (['join'], 'a/b')
    """

    def __init__(self, package: str, members: Mapping[str, Any]) -> None:
        self._package = package
        self._members = dict(members)

    def __getitem__(self, name: str) -> Any:
        member = self._members[name]
        if isinstance(member, str):
            module, _, attribute = member.partition(":")
            home = importlib.import_module(f"{self._package}.{module}")
            member = self._members[name] = getattr(home, attribute)
        return member

    def __setitem__(self, name: str, member: Any) -> None:
        self._members[name] = member

    def __delitem__(self, name: str) -> None:
        del self._members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def lazy_attributes(
    package: str, homes: Mapping[str, str]
) -> Callable[[str], Any]:
    """Returns a `__getattr__` that imports a package's public names on use.

    Args:
        package: The package's `__name__`.
        homes: Public name to the module of the package that defines it, or
            to `""` if the name is a module itself.
    """

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}"
            )
        module = importlib.import_module(f"{package}.{homes[name] or name}")
        return getattr(module, name) if homes[name] else module

    return getattr_


def get(table: Mapping[str, T], name: str, kind: str) -> T:
    """Returns `table[name]`, or raises an error that lists the known names.

    Args:
        table: The known objects by name.
        name: The requested name.
        kind: What the table holds, in the singular, for the message.

    Returns:
        The entry.

    Raises:
        UserError: The name is not in the table; the message lists the known
            names and suggests the nearest.

    Example:
        >>> get({"magnitude": 1, "random": 2}, "magnitud", "criterion")
        Traceback (most recent call last):
            ...
        tf_lottery.core.errors.UserError: Unknown criterion 'magnitud'. \
Did you mean 'magnitude'? Known: magnitude, random.
    """
    if name in table:
        return table[name]
    raise UserError(
        f"Unknown {kind} {name!r}.{nearest(name, table)} "
        f"Known: {', '.join(table)}."
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the nearest known name, or "".

    Of very many or very long names none is suggested.

    Args:
        name: The requested name.
        known: The known names.

    Example:
        >>> nearest("dens/kernel", ["dense/kernel", "conv/kernel"])
        " Did you mean 'dense/kernel'?"
    """
    names = list(known)
    length = len(str(name)) + max(map(len, names), default=0)
    if length * len(names) > _COMPARABLE or length > _COMPARABLE_NAME:
        return ""
    close = difflib.get_close_matches(str(name), names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""

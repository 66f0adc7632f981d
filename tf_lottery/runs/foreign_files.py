"""Checks of a run directory whose files may come from a stranger."""

import os
import pathlib
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tf_lottery.core.errors import UserError, one_line
from tf_lottery.core.storage import sealed_json

_LENGTH = 200
"""Limit on the length of a name: of a variant, a metric, a column."""
_WORDS = {"preset", "variant", "deciding_metric"}
"""Columns of a row that hold text."""
_AMOUNTS = {
    "weights_kept",
    "steps",
    "early_stop_step",
    "catch_up_step",
    "seconds",
}
"""Columns of a row that are counted or measured, and never nan."""
_LARGEST = 10**6
"""Limit on the indices of replicates and levels."""


def require_no_links(path: str | os.PathLike[str]) -> None:
    """Raises if a directory holds more than files and folders.

    What is written through a link lands outside of the directory, and what is
    read through it comes from outside; a pipe never ends.

    Args:
        path: The directory; it may itself be a link. Nothing is checked in
            an object store, which has none.

    Raises:
        UserError: The message names the link.
    """
    for file in _files(pathlib.Path(path)):
        if not file.name.isprintable():
            raise UserError(
                f"{str(file)!r} has a name that no run gives. Delete it."
            )
        try:
            mode = file.lstat().st_mode
        except FileNotFoundError:
            continue  # Another process works here.
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise UserError(
                f"{str(file)!r} is a link, a pipe or a device, and a run "
                "directory holds only files and folders. Put what it leads to "
                "in its place."
            )


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields everything below a folder; links are not followed."""
    for parent, folders, names in os.walk(folder):
        for name in sorted(folders + names):
            yield pathlib.Path(parent, name)


def checked(
    content: dict[str, Any],
    check: Callable[[dict[str, Any]], None],
    address: str,
) -> dict[str, Any]:
    """Returns the content of a JSON file that is as runs write it.

    Its checksum says that the file is whole, not who made it.

    Args:
        content: The file's content.
        check: `config`, `record` or `line`.
        address: The file.

    Raises:
        DamagedFileError: The content is not as runs write it.
    """
    try:
        _require_numbers(content)
        check(content)
    except Exception as error:  # noqa: BLE001 - a stranger's content
        raise sealed_json.damaged(address, one_line(error, 200)) from None
    return content


def _require_numbers(content: Any) -> None:
    """Raises if a number is beyond what arithmetic on floats takes."""
    todo = [content]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise UserError(f"the number {str(value)[:20]}… is too large")


def config(content: dict[str, Any]) -> None:
    """Raises unless a value is the content of a config.json.

    Args:
        content: The value.

    Raises:
        UserError: It is not.
    """
    _typed(content.get("fingerprint"), "fingerprint", dict)
    metadata = _typed(content.get("metadata"), "metadata", dict)
    _name(metadata.get("preset", ""), "preset")
    _typed(metadata.get("hardware", {}), "hardware", dict)
    settings = _typed(metadata.get("settings", {}), "settings", dict)
    _planned(content.get("replicates", 1))
    _planned(settings.get("replicates", 1))
    _index(settings.get("levels", 0), "levels")
    for control in _typed(settings.get("controls", []), "controls", list):
        _name(control, "a control")


def record(content: dict[str, Any]) -> None:
    """Raises unless a value is the content of a network's record.json.

    Args:
        content: The value.

    Raises:
        UserError: It is not.
    """
    network = _typed(content.get("network"), "network", dict)
    for name in ("replicate", "level"):
        _index(network.get(name), name)
    _name(network.get("variant"), "variant")
    for name, digest in _typed(content.get("digests"), "digests", dict).items():
        _name(digest, f"the digest of {name}")
    if "diverged" in content:
        _diverged(_typed(content["diverged"], "diverged", dict))
    else:
        _trained(content)


def _trained(content: dict[str, Any]) -> None:
    network = content["network"]
    row = _typed(content.get("row"), "row", dict)
    if any(row.get(name) != value for name, value in network.items()):
        raise UserError("its row is of another network")
    for name, value in row.items():
        _name(name, "a column")
        if name in _WORDS:
            _name(value, name)
        elif name in _AMOUNTS:
            _amount(value, name)
        else:
            _measured(value, name)
    if not 0 < _typed(row.get("density"), "density", int | float) <= 1:
        raise UserError("density is not above 0 and at most 1")
    curve = _typed(content.get("curve"), "curve", dict)
    _curve(curve)
    for name in ("masks", "start", "trained"):
        _name(content["digests"].get(name), f"the digest of {name}")


def _diverged(content: dict[str, Any]) -> None:
    for name in ("first_step", "last_step"):
        _typed(content.get(name), name, int)
    float(_typed(content.get("loss"), "loss", str))


def rewind(content: dict[str, Any]) -> None:
    """Raises unless a value is the content of a rewind.json.

    Args:
        content: The value.

    Raises:
        UserError: It is not.
    """
    for name in ("step", "steps_trained"):
        _typed(content.get(name), name, int)
    _typed(content.get("barriers"), "barriers", dict | list)


def line(content: dict[str, Any]) -> None:
    """Raises unless a value is the content of a line.json.

    Args:
        content: The value.

    Raises:
        UserError: It is not.
    """
    for digest in _typed(content.get("between"), "between", list):
        _name(digest, "a digest")
    _typed(content.get("distance"), "distance", int | float)
    errors = _typed(content.get("errors"), "errors", dict)
    _curve({"alphas": content.get("alphas"), **errors})


def _curve(curve: Mapping[str, Any]) -> None:
    for name, values in curve.items():
        _name(name, "a column")
        for value in _typed(values, name, list):
            _measured(value, name)
    if len({len(values) for values in curve.values()}) > 1:
        raise UserError("its columns differ in length")


def _planned(value: Any) -> None:
    """Raises unless a value is a number of replicates, or "5:8"."""
    if not re.fullmatch("[0-9]{1,6}(:[0-9]{1,6})?", str(value)[:_LENGTH]):
        raise UserError(f"replicates is {str(value)[:_LENGTH]}")


def _index(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise UserError(f"{name} is no number from 0 on")
    return value


def _amount(value: Any, name: str) -> None:
    if not 0 <= _typed(value, name, int | float) < 2**53:
        raise UserError(f"{name} is {value}")


def _measured(value: Any, name: str) -> None:
    """Raises unless a value is a metric: a number, or a list of metrics.

    A number may be nan, and None if it was not measured.
    """
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo += value
        elif value is not None:
            _typed(value, name, int | float)


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > _LENGTH:
        raise UserError(f"{what[:_LENGTH]} is no short text")
    if not value.isprintable():
        raise UserError(f"{what[:_LENGTH]} is {value!r}")
    return value


def _typed(value: Any, name: str, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"{name[:_LENGTH]} is {type(value).__name__}")
    return value

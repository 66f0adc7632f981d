"""Checks of a run directory whose files may come from a stranger."""

import json
import os
import pathlib
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tf_lottery.core.errors import UserError, one_line
from tf_lottery.runs import layout

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


def require_sound(path: str | os.PathLike[str]) -> None:
    """Raises if the files of a run, or of a sweep, could do harm.

    Args:
        path: The directory. A missing one, and one in a bucket, is not
            checked.

    Raises:
        UserError: It holds a link, a pipe, a device or a file name that a
            terminal would obey, or a JSON file that is not as runs write it.
            The message names the file.
    """
    require_no_links(path)
    for file in _files(pathlib.Path(path)):
        check = _CHECKS.get(file.name)
        if check is not None:
            _require(file, check)


def require_no_links(path: str | os.PathLike[str]) -> None:
    """Raises if a directory holds more than files and folders.

    What is written through a link lands outside of the directory, and what is
    read through it comes from outside; a pipe never ends.

    Args:
        path: The directory; it may itself be a link.

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


def _require(path: pathlib.Path, check: Callable[..., None]) -> None:
    try:
        content = json.loads(path.read_bytes())
        _require_numbers(content)
        check(content, path)
    except FileNotFoundError:
        return  # Another process replaced it meanwhile.
    except Exception as error:  # noqa: BLE001 - a stranger's bytes
        raise UserError(
            f"{str(path)!r} is damaged, or no file of a run: "
            f"{one_line(error, 200)}."
        ) from None


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


def config(content: Any, path: pathlib.Path) -> None:
    """Raises unless a value is the content of a config.json.

    Args:
        content: The value.
        path: The file.

    Raises:
        UserError: It is not.
    """
    del path
    _typed(content, "the file", dict)
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


def record(content: Any, path: pathlib.Path) -> None:
    """Raises unless a value is the content of a network's record.json.

    Args:
        content: The value.
        path: The file; its folders name the network.

    Raises:
        UserError: It is not.
    """
    _typed(content, "the file", dict)
    row = _typed(content.get("row"), "row", dict)
    _network(row, path)
    for name, value in row.items():
        _name(name, "a column")
        if name in _WORDS:
            _name(value, name)
        elif name in _AMOUNTS:
            _amount(value, name)
        elif value is not None:
            _typed(value, name, int | float)  # nan too: a metric may be
    if not 0 < _typed(row.get("density"), "density", int | float) <= 1:
        raise UserError("density is not above 0 and at most 1")
    curve = _typed(content.get("curve"), "curve", dict)
    _curve(curve)
    digests = _typed(content.get("digests"), "digests", dict)
    for name in {"masks", "start", "trained", *digests}:
        _name(digests.get(name), f"the digest of {name}")


def diverged(content: Any, path: pathlib.Path) -> None:
    """Raises unless a value is the content of a diverged.json.

    Args:
        content: The value.
        path: The file; its folders name the network.

    Raises:
        UserError: It is not.
    """
    _network(_typed(content, "the file", dict), path)
    for name in ("first_step", "last_step"):
        _typed(content.get(name), name, int)
    float(_typed(content.get("loss"), "loss", str))
    _typed(content.get("digests"), "digests", dict)


def line(content: Any, path: pathlib.Path) -> None:
    """Raises unless a value is the content of a line.json.

    Args:
        content: The value.
        path: The file.

    Raises:
        UserError: It is not.
    """
    del path
    _typed(content, "the file", dict)
    for digest in _typed(content.get("between"), "between", list):
        _name(digest, "a digest")
    _typed(content.get("distance"), "distance", int | float)
    errors = _typed(content.get("errors"), "errors", dict)
    _curve({"alphas": content.get("alphas"), **errors})


_CHECKS: Mapping[str, Callable[[Any, pathlib.Path], None]] = {
    layout.CONFIG: config,
    layout.RECORD: record,
    layout.DIVERGED: diverged,
    "line.json": line,
}
"""By name of the file."""


def _network(row: Mapping[str, Any], path: pathlib.Path) -> None:
    """Raises unless a row names the network that its folders name."""
    for name in ("replicate", "level"):
        _index(row.get(name), name)
    variant = _name(row.get("variant"), "variant")
    folder = layout.network_folder(row["replicate"], row["level"], variant)
    if not path.parent.as_posix().endswith(folder):
        raise UserError(f"it is the record of {folder}")


def _curve(curve: Mapping[str, Any]) -> None:
    for name, values in curve.items():
        _name(name, "a column")
        for value in _typed(values, name, list):
            if value is not None:
                _typed(value, name, int | float)
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

"""Rows of results.csv, one for each trained network."""

import csv
import io
import logging
from collections.abc import Callable, Mapping
from typing import Any

from tf_lottery.core.storage.folder import Folder, map_parallel
from tf_lottery.core.storage.sealed_json import DamagedFileError
from tf_lottery.runs import layout
from tf_lottery.runs.record import sort_key

Row = Mapping[str, Any]

_log = logging.getLogger(__name__)


class Results:
    """The table results.csv, built from the records of all networks.

    Args:
        folder: The run directory.
        read_record: Returns the content of a network's record, checked, from
            the name of its folder; None without one.
    """

    def __init__(
        self,
        folder: Folder,
        read_record: Callable[[str], dict[str, Any] | None],
    ) -> None:
        self._folder, self._read_record = folder, read_record
        self._rows: dict[str, Row] = {}  # by the network's folder
        self._versions: dict[str, str] = {}  # of the records they are from

    def rows(self) -> list[Row]:
        """Returns the rows, in order."""
        return sorted(self._rows.values(), key=sort_key)

    def scan(self, skip_damaged: bool = False) -> None:
        """Reads the records that are new since the last call.

        Args:
            skip_damaged: Whether to leave damaged records out, with a warning,
                because they are trained again.

        Raises:
            DamagedFileError: A record is damaged.
        """
        versions = {
            name: version
            for name, version in self._folder.files().items()
            if layout.networks([name])
        }
        new = [n for n, v in versions.items() if self._versions.get(n) != v]
        folders = layout.networks(new)
        self._rows = {
            name: row
            for name, row in self._rows.items()
            if f"{name}/{layout.RECORD}" in versions
        }
        self._versions = versions

        def read(name: str) -> dict[str, Any] | None:
            try:
                return self._read_record(name)
            except DamagedFileError as error:
                if not skip_damaged:
                    raise
                _log.warning("Trained again: %s", error)
                return None

        for name, record in zip(
            folders, map_parallel(read, folders), strict=True
        ):
            self.update(name, record or {})

    def update(self, name: str, record: Mapping[str, Any]) -> None:
        """Sets the row of a network, if its record has one.

        Args:
            name: The network's folder.
            record: The content of its record.json.
        """
        self._rows.pop(name, None)
        if "row" in record:
            self._rows[name] = record["row"]

    def write(self) -> None:
        """Writes results.csv."""
        text = io.StringIO()
        writer = csv.DictWriter(
            text, layout.COLUMNS, extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(
            {name: _cell(value) for name, value in row.items()}
            for row in self.rows()
        )
        self._folder.write(layout.RESULTS, text.getvalue().encode())


def _cell(value: Any) -> Any:
    """Returns a value of which a spreadsheet makes no formula."""
    is_formula = isinstance(value, str) and value.startswith(tuple("=+-@\t\r"))
    return f"'{value}" if is_formula else value

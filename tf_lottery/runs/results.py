"""Rows of results.csv, one for each trained network."""

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from tf_lottery.runs import layout
from tf_lottery.runs.record import sort_key
from tf_lottery.runs.run_files import RunFiles

Row = Mapping[str, Any]


class Results:
    """The table results.csv, built from the records of all networks.

    Args:
        files: The files of the run directory.
    """

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        # Record file and its version to the row it holds.
        self._rows: dict[tuple[str, object], Row] = {}

    def rows(self) -> list[Row]:
        """Returns the rows of all networks trained so far, in order."""
        self._rows = self._read()
        return sorted(self._rows.values(), key=sort_key)

    def write(self) -> None:
        """Writes results.csv."""
        written = None
        # Another process may save a network meanwhile. Repeating until the
        # rows stay the same makes the last writer write all of them.
        while written != (rows := self._read()):
            self._rows = written = rows
            text = io.StringIO()
            writer = csv.DictWriter(
                text,
                layout.COLUMNS,
                extrasaction="ignore",
                lineterminator="\n",
            )
            writer.writeheader()
            writer.writerows(
                {name: _cell(value) for name, value in row.items()}
                for row in sorted(rows.values(), key=sort_key)
            )
            self._files.write(layout.RESULTS, text.getvalue().encode())

    def _read(self) -> dict[tuple[str, object], Row]:
        """Returns all rows, reading only records that changed."""
        versions = self._files.versions(layout.RECORDS).items()
        changed = [key for key in versions if key not in self._rows]
        contents = self._files.read_all(name for name, _ in changed)
        new = {
            key: json.loads(content)["row"]
            # A record is missing while another process replaces it.
            for key, content in zip(changed, contents, strict=True)
            if content is not None
        }
        return {
            key: row
            for key in versions
            if (row := new.get(key) or self._rows.get(key)) is not None
        }


def _cell(value: Any) -> Any:
    """Returns a value of which a spreadsheet makes no formula."""
    is_formula = isinstance(value, str) and value.startswith(tuple("=+-@\t\r"))
    return f"'{value}" if is_formula else value

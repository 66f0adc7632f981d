"""Tables of densities with bars, as text and as HTML."""

import dataclasses
import html
import io

from tf_lottery.core.errors import printable

_BAR_WIDTH = 10  # characters
# As rich styles its tables in notebooks. Text keeps the color of the page.
_PRE = "white-space:pre;overflow-x:auto;line-height:normal"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        cells: The text of the first columns.
        kept: Number of weights kept; None for a row without kernels.
        size: Number of weights in the kernels, pruned ones included.
    """

    cells: tuple[str, ...]
    kept: int | None = None
    size: int = 0


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of densities that prints as text and shows in notebooks.

    Attributes:
        title: The line above the table.
        head: The names of the first columns; kept and density follow.
        rows: The rows.
        notes: The lines below the table.

    Example:
        >>> Table("Masks", ("kernel",), (Row(("fc1",), 1, 4),))
        Masks
        ┏━━━━━━━━┳━━━━━━┳━━━━━━━━━━━━━━━━━━━━━┓
        ┃ kernel ┃ kept ┃ density             ┃
        ┡━━━━━━━━╇━━━━━━╇━━━━━━━━━━━━━━━━━━━━━┩
        │ fc1    │    1 │  25.00 % ██▌        │
        └────────┴──────┴─────────────────────┘
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Returns the table with the frame of a Keras summary."""
        # Imported late: it takes longer to import than `core.masks`.
        import rich.console
        import rich.table
        import rich.text

        table = rich.table.Table(*self.head, "kept", "density")
        for row in self.rows:
            cells = [
                # Numbers end at the same character of their column.
                rich.text.Text(
                    printable(cell), justify="right" if number else "left"
                )
                for cell in _cells(row)
                for number in [cell.replace(",", "").isdigit()]
            ]
            table.add_row(*cells)
        file = io.StringIO()  # not a terminal: no colors
        console = rich.console.Console(
            file=file, width=10_000, color_system=None, force_jupyter=False
        )
        console.print(table)
        text = file.getvalue().rstrip("\n")
        # Names of layers may come from a stranger's file.
        return printable("\n".join([self.title, text, *self.notes]))

    def _repr_html_(self) -> str:
        """Returns the text as HTML that needs no other files."""
        return f'<pre style="{_PRE}">{html.escape(repr(self))}</pre>'


def _cells(row: Row) -> list[str]:
    if row.kept is None:
        return [*row.cells, "", ""]
    density = row.kept / row.size
    # A density above zero has a visible bar.
    eighths = max(round(8 * _BAR_WIDTH * density), int(row.kept > 0))
    bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]
    text = f"{100 * density:>6.2f} % {bar.strip():<{_BAR_WIDTH}}"
    return [*row.cells, f"{row.kept:,}", text]

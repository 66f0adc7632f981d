"""This module knows how densities look: a table with bars, text and HTML."""

import dataclasses
import html
from collections.abc import Sequence

_BAR = 10  # characters
# Grey and blue show on light and dark pages alike; text has the page's colour.
_FRAME = "border:1px solid rgba(128,128,128,.4);padding:.15em .6em;"
_NUMBER = f"{_FRAME}text-align:right;font-variant-numeric:tabular-nums"
_TEXT = f"{_FRAME}text-align:left"


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        cells: What stands in it.
        kept: How many weights are kept; None where there are none to keep.
        size: Of how many.
    """

    cells: tuple[str, ...]
    kept: int | None = None
    size: int = 0


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of densities, which prints as text and shows in notebooks.

    Attributes:
        title: What it is of.
        head: The names of the first columns; kept and density follow.
        rows: Its lines.
        notes: What is to be said below it.

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
        """Returns it framed as Keras frames its summaries."""
        lines = [self._head, *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        framed = [
            _edge(("┏", "┳", "┓"), "━", widths),
            _line(lines[0], widths, "┃"),
            _edge(("┡", "╇", "┩"), "━", widths),
            *(_line(line, widths, "│") for line in lines[1:]),
            _edge(("└", "┴", "┘"), "─", widths),
        ]
        return "\n".join([self.title, *framed, *self.notes])

    def _repr_html_(self) -> str:
        """Returns it as HTML that needs nothing else, on any background."""
        head = "".join(
            f'<th style="{_TEXT}">{html.escape(name)}</th>'
            for name in self._head
        )
        body = "\n".join(_html(row) for row in self.rows)
        notes = "".join(
            f"<div>{html.escape(note)}</div>" for note in self.notes
        )
        return (
            f"<div><b>{html.escape(self.title)}</b>\n"
            f'<table style="border-collapse:collapse"><thead><tr>{head}</tr>'
            f"</thead>\n<tbody>\n{body}\n</tbody></table>\n{notes}</div>"
        )

    @property
    def _head(self) -> list[str]:
        return [*self.head, "kept", "density"]


def _cells(row: Row) -> list[str]:
    if row.kept is None:
        return [*row.cells, "", ""]
    share = row.kept / row.size
    eighths = round(8 * _BAR * share)
    # What is there shows, however little it is.
    eighths = max(eighths, int(row.kept > 0))
    bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]
    text = f"{100 * share:>6.2f} % {bar.strip():<{_BAR}}"
    return [*row.cells, f"{row.kept:,}", text]


def _edge(
    corners: tuple[str, str, str], dash: str, widths: Sequence[int]
) -> str:
    left, middle, right = corners
    return left + middle.join(dash * (w + 2) for w in widths) + right


def _line(cells: Sequence[str], widths: Sequence[int], frame: str) -> str:
    padded = [
        # Numbers end where the others of their column do.
        cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
        for cell, width in zip(cells, widths, strict=True)
    ]
    return f"{frame} {f' {frame} '.join(padded)} {frame}"


def _html(row: Row) -> str:
    *cells, _, _ = _cells(row)
    parts = [_cell(html.escape(cell), cell[:1].isdigit()) for cell in cells]
    if row.kept is None:
        return f"<tr>{''.join(parts)}{_cell('') * 2}</tr>"
    percent = 100 * row.kept / row.size
    bar = (
        '<div style="width:8em;height:.6em;background:rgba(128,128,128,.3)">'
        f'<div style="width:{percent:.2f}%;min-width:{int(row.kept > 0)}px;'
        'height:100%;background:#0072B2"></div></div>'
    )
    parts += [
        _cell(f"{row.kept:,}", True),
        _cell(f"{percent:.2f} %{bar}", True),
    ]
    return f"<tr>{''.join(parts)}</tr>"


def _cell(content: str, number: bool = False) -> str:
    return f'<td style="{_NUMBER if number else _TEXT}">{content}</td>'

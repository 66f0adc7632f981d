"""The HTML of a report, and how it looks."""

import base64
import html
from collections.abc import Mapping, Sequence

from tf_lottery.analysis.figures import Drawing

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; margin: 2rem auto;
       max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; }
h1, p, figcaption { overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2.4rem; }
p { max-width: 46rem; }
.verdict { border-left: 4px solid #0072B2; padding: .4rem 1rem;
           background: #f2f7fb; }
.figures { display: grid; gap: 1.6rem 2rem;
           grid-template-columns:
             repeat(auto-fill, minmax(min(28rem, 100%), 1fr)); }
figure { margin: 0; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption, .note { font-size: .85rem; color: #444; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; white-space: nowrap;
        font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; vertical-align: top; }
th { font-weight: 600; }
table.text td, table.text th { text-align: left; white-space: normal; }
summary { margin-top: 1rem; font-weight: 600; }
thead th { border-bottom: 2px solid #1b1b1b; }
tbody tr:nth-child(even) { background: #f6f6f6; }
td.reproduced { color: #00614a; font-weight: 600; }
td.not.reproduced { color: #a34700; }
td.enough { color: #555; font-weight: 400; }
pre, code { background: #f6f6f6; font-size: .85rem; }
pre { padding: .8rem; overflow-x: auto; white-space: pre-wrap; }
"""
_PHONE = "(max-width: 40rem)"
"""Screens on which panels lie below each other."""


def page(title: str, sections: Sequence[str]) -> str:
    """Returns a page that needs no other file.

    Args:
        title: Its title.
        sections: HTML; empty ones leave no trace.
    """
    body = "\n".join(section for section in sections if section)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{body}
</body>
</html>
"""


def figures(drawn: Mapping[str, Drawing]) -> str:
    """Returns the figures, numbered, with their captions."""
    if not drawn:
        return ""
    parts = [
        _figure(name, drawing, number)
        for number, (name, drawing) in enumerate(drawn.items(), 1)
    ]
    return (
        '<h2>Figures</h2>\n<p class="note">Numbers in brackets are the figures '
        "of Frankle &amp; Carbin 2019 (arXiv:1803.03635v5) that show the same. "
        "The folder figures has each as a PNG and an SVG file.</p>\n"
        f'<div class="figures">\n{chr(10).join(parts)}\n</div>'
    )


def _figure(name: str, drawing: Drawing, number: int) -> str:
    return (
        f'<figure id="{html.escape(name)}" class="{"wide" * drawing.wide}">'
        f"{_image(drawing)}"
        f"<figcaption><b>Figure {number}.</b> {html.escape(drawing.caption)}"
        "</figcaption></figure>"
    )


def _image(drawing: Drawing) -> str:
    image = (
        f'<img alt="{html.escape(drawing.alt)}" width="{drawing.width}" '
        f'src="{_data(drawing.png)}">'
    )
    if not drawing.narrow:
        return image
    return (
        f'<picture><source media="{_PHONE}" srcset="{_data(drawing.narrow)}">'
        f"{image}</picture>"
    )


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    kind: str = "",
    marked: int | None = None,
) -> str:
    """Returns a table of plain text.

    Args:
        head: The names of its columns.
        rows: Its cells.
        kind: `"text"` for a table of words, aligned left.
        marked: The column whose words are its cells' classes too.
    """
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "\n".join(f"<tr>{_cells(row, marked)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr>'
        f"</thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cells(row: Sequence[str], marked: int | None) -> str:
    return "".join(
        (f'<td class="{html.escape(cell)}">' if i == marked else "<td>")
        + f"{html.escape(cell)}</td>"
        for i, cell in enumerate(row)
    )

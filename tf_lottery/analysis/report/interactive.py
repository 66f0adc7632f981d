"""Figures that answer to a pointer, without JavaScript.

A curve can be hidden, and a point says what it stands for: check boxes and
`:hover`, so that a report works wherever HTML is shown, scripts or none.
"""

import html
import re

from tf_lottery.analysis.figures import Drawing
from tf_lottery.analysis.figures.style import Mark

_CURVES = 40
"""So many curves of a figure can be hidden."""

STYLE = """
.box { display: inline-flex; align-items: baseline; margin-right: .8rem;
  font-size: .85rem; }
.box input { margin: 0 .3rem 0 0; flex: none; }
.curves svg { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.mark circle { fill: transparent; stroke: none; }
.mark text { visibility: hidden; pointer-events: none; font: 8px system-ui,
  sans-serif; fill: #1b1b1b; paint-order: stroke; stroke: #fff;
  stroke-width: 5px; stroke-linejoin: round; }
@media (max-width: 40rem) { .mark text { font-size: 11px; } }
.mark:hover circle { stroke: #1b1b1b; }
.mark:hover text { visibility: visible; }
""" + "".join(
    f".curves:has(.show-{n}:not(:checked)) .curve-{n} {{ display: none; }}\n"
    for n in range(_CURVES)
)


def figure(name: str, drawing: Drawing) -> str:
    """Returns the figure as HTML: boxes that hide curves, and the drawing.

    Args:
        name: The figure's name, its own on a page.
        drawing: The figure, with marks.
    """
    marks = "\n".join(
        _mark(mark, 0.75 * drawing.width) for mark in drawing.marks
    )
    drawn = drawing.svg.decode()
    drawn = drawn[drawn.index("<svg") :].replace("</svg>", f"{marks}\n</svg>")
    drawn = re.sub("<metadata>.*</metadata>", "", drawn, flags=re.DOTALL)
    # Ids are unique in a file, and files share a page.
    drawn = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", drawn)
    drawn = re.sub(
        rf'id="{name}-curve-(\d+)-[\w-]+"', r'class="curve-\1"', drawn
    )
    alt = html.escape(drawing.alt)
    drawn = drawn.replace("<svg", f'<svg role="img" aria-label="{alt}"', 1)
    return f"{_boxes(name, drawing)}\n{drawn}"


def _boxes(name: str, drawing: Drawing) -> str:
    names = {mark.curve: mark.name for mark in drawing.marks}
    if len(names) < 2:
        return ""
    return "".join(
        '<span class="box"><input type="checkbox" checked '
        f'class="show-{curve}" id="{name}-show-{curve}">'
        f'<label for="{name}-show-{curve}">{html.escape(shown)}</label></span>'
        for curve, shown in names.items()
        if curve < _CURVES
    )


def _mark(mark: Mark, width: float) -> str:
    # Texts stay within the figure.
    side = mark.x / width
    anchor = "start" if side < 0.3 else "end" if side > 0.7 else "middle"
    height = 11 * len(mark.text)
    top = mark.y - height if mark.y > height + 10 else mark.y + 16
    lines = " ".join(
        f'<tspan x="{mark.x}" y="{top + 11 * place:.1f}">'
        f"{html.escape(line)}</tspan>"
        for place, line in enumerate(mark.text)
    )
    return (
        f'<g class="mark curve-{mark.curve}"><circle cx="{mark.x}" '
        f'cy="{mark.y}" r="5"/><text text-anchor="{anchor}">{lines}</text></g>'
    )

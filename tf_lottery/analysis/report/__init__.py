"""This package knows the report of a run: one HTML file that needs no other.

One file per kind of section; `render` is the page.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lottery.analysis import draws, replicates, winning
from tf_lottery.analysis.claims import Finding
from tf_lottery.analysis.figures import Drawing
from tf_lottery.analysis.report import origin, page, tables


def render(
    title: str,
    networks: Sequence[Any],
    figures: Mapping[str, Drawing],
    config: Mapping[str, Any],
    findings: Sequence[Finding] = (),
    command: str = "",
) -> str:
    """Returns the report as HTML, figures within.

    Args:
        title: Its title.
        networks: Records of all replicates.
        figures: Name to figure, as `figures.draw` returns.
        config: What determines the run (`"identity"`), and what else is known
            of it (`"about"`): settings, versions, hardware.
        findings: What the run says of the paper's claims.
        command: The command that makes the run; empty if none does.
    """
    pooled = draws.pool(networks)
    verdicts = [
        f'<p class="verdict">{html.escape(line)}</p>'
        for line in sentences(networks)
    ]
    return page.page(
        title,
        [
            f"<p>{html.escape(origin.extent(networks, config))}</p>",
            *verdicts,
            tables.claims(findings),
            page.figures(figures),
            tables.levels(pooled),
            tables.comparisons(pooled),
            origin.section(networks, config, command),
        ],
    )


def render_sweep(
    title: str,
    figures: Mapping[str, Drawing],
    sentences: Mapping[str, Sequence[str]],
) -> str:
    """Returns the report of a sweep as HTML, beside those of its runs.

    Args:
        title: Its title.
        figures: Name to figure, as `figures.compare` returns.
        sentences: Of each run, by the name of its folder, its verdict.
    """
    rows = [
        f'<p class="verdict"><a href="{html.escape(name)}/report.html">'
        f"{html.escape(name)}</a>: {html.escape(' '.join(lines))}</p>"
        for name, lines in sentences.items()
    ]
    return page.page(title, [*rows, page.figures(figures)])


def sentences(networks: Sequence[Any]) -> list[str]:
    """Returns the verdict on the run, or why there is none.

    Several replicates are judged together; of one alone, what its two trained
    networks differ by is said.
    """
    if len({n.replicate for n in networks}) > 1:
        return [replicates.sentence(networks)]
    try:
        return [winning.sentence(networks)]
    except ValueError as error:
        return [f"No verdict: {error}"]


__all__ = ["render", "render_sweep", "sentences"]

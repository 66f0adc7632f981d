"""This package knows the report of a run: one HTML file that needs no other.

One file per kind of section; `render` is the page.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lottery.analysis import conclusion, control_draws, verdict
from tf_lottery.analysis.claims import Finding
from tf_lottery.analysis.figures import Drawing
from tf_lottery.analysis.report import origin, page, tables
from tf_lottery.analysis.verdict import Judgment


def render(
    title: str,
    networks: Sequence[Any],
    figures: Mapping[str, Drawing],
    config: Mapping[str, Any],
    findings: Sequence[Finding] = (),
    command: str = "",
    judgment: Judgment | None = None,
) -> str:
    """Returns the report as HTML, figures within.

    Args:
        title: Its title.
        networks: Records of all replicates.
        figures: Name to figure, as `figures.draw` returns.
        config: What determines the run (`"fingerprint"`), and what else is
            known of it (`"metadata"`): settings, versions, hardware.
        findings: What the run says of the paper's claims.
        command: The command that makes the run; empty if none does.
        judgment: The verdicts. None: on these networks, as they are.
    """
    judgment = judgment or verdict.judge(networks)
    pooled = control_draws.pool(networks)
    verdicts = [
        f'<p class="verdict">{html.escape(line)}</p>'
        for line in conclusion.sentences(judgment, networks)
    ]
    return page.page(
        title,
        [
            f"<p>{html.escape(origin.extent(networks, config))}</p>",
            *verdicts,
            tables.claims(findings),
            page.figures(figures),
            tables.levels(pooled),
            tables.comparisons(networks, judgment),
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


__all__ = ["render", "render_sweep"]

"""The report of a run: one HTML file that needs no other file.

`report.html.jinja` is the page; the modules compute its tables.
"""

import base64
import json
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from tf_lottery.analysis import claims, conclusion, control_draws, verdict
from tf_lottery.analysis.claims import Finding
from tf_lottery.analysis.figures import RenderedFigure
from tf_lottery.analysis.records import Network
from tf_lottery.analysis.report import provenance, tables
from tf_lottery.analysis.verdict import Judgment


def render(
    title: str,
    networks: Sequence[Network],
    figures: Mapping[str, RenderedFigure],
    config: Mapping[str, Any],
    findings: Sequence[Finding] = (),
    command: str = "",
    judgment: Judgment | None = None,
) -> str:
    """Returns the report of a run as HTML that contains its figures.

    Args:
        title: Title of the page.
        networks: Records of all replicates.
        figures: Name to figure, as `figures.draw` returns.
        config: `"fingerprint"`: settings that determine the run;
            `"metadata"`: its other settings, versions and hardware.
        findings: Results for the paper's claims, as `claims.check` returns.
        command: Command line that repeats the run; empty if there is none.
        judgment: Verdicts on the run; `None` computes them from `networks`.
    """
    judgment = judgment or verdict.judge(networks)
    return _template().render(
        title=title,
        extent=provenance.extent(networks, config),
        verdict=conclusion.sentences(judgment, networks),
        runs={},
        claims=tables.claims(findings),
        tally=claims.tally(findings),
        figures=figures,
        levels=tables.levels(control_draws.pool(networks)),
        against_dense=tables.against_dense(judgment),
        against_controls=tables.against_controls(networks, judgment.metric),
        command=command,
        provenance=provenance.facts(networks, config),
        settings=provenance.settings(config),
        config=json.dumps(config, indent=2, sort_keys=True),
    )


def render_sweep(
    title: str,
    figures: Mapping[str, RenderedFigure],
    sentences: Mapping[str, Sequence[str]],
) -> str:
    """Returns the report of a sweep as HTML, with links to its runs' reports.

    Args:
        title: Title of the page.
        figures: Name to figure, as `figures.compare` returns.
        sentences: Folder name of each run to the sentences of its verdict.
    """
    return _template().render(
        title=title,
        runs=sentences,
        figures=figures,
        config=None,
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_url"] = _data_url
    environment.filters["link"] = _link
    return environment.get_template("report.html.jinja")


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _link(folder: str) -> str:
    """Returns a link to a folder beside the page, whatever its name."""
    # Without ./ a folder named javascript:… would be a script.
    return f"./{urllib.parse.quote(folder, safe='=,')}"


__all__ = ["render", "render_sweep"]

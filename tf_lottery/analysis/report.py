"""This module knows the report of a run: one HTML file that needs no other."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_lottery.analysis import replicates, table, winning
from tf_lottery.analysis.claims import Finding

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; margin: 2rem auto;
       max-width: 64rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border-left: 4px solid #0072B2; padding: .4rem 1rem;
           background: #f2f7fb; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
.figures img { flex: 1 1 26rem; max-width: 100%; min-width: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; text-align: right; }
thead th { border-bottom: 2px solid #1b1b1b; }
tbody tr:nth-child(even) { background: #f6f6f6; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto;
      font-size: .85rem; }
"""


def render(
    title: str,
    networks: Sequence[Any],
    figures: Mapping[str, bytes],
    config: Mapping[str, Any],
    findings: Sequence[Finding] = (),
) -> str:
    """Returns the report as HTML, figures within.

    Args:
        title: Its title.
        networks: Records of all replicates.
        figures: Name to PNG, as `figures.draw` returns.
        config: What determines the run, and versions.
        findings: What the run says of the paper's claims.
    """
    images = "\n".join(
        f'<img alt="{html.escape(name.replace("_", " "))} against density" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in figures.items()
    )
    settings = html.escape(json.dumps(config, indent=2, sort_keys=True))
    verdicts = "\n".join(
        f'<p class="verdict">{html.escape(line)}</p>'
        for line in sentences(networks)
    )
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
{verdicts}
<div class="figures">
{images}
</div>
<h2>Levels</h2>
{_table(networks)}
<p>Accuracy at the early-stop step, the step of minimum validation loss
(Frankle &amp; Carbin 2019, App. C); means over replicates, bars from lowest to
highest.</p>
{_comparisons(networks)}
{_claims(findings)}
<h2>Configuration</h2>
<pre>{settings}</pre>
</body>
</html>
"""


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


def _comparisons(networks: Sequence[Any]) -> str:
    """Returns the verdicts over replicates, and tickets against controls."""
    verdicts = replicates.judge(networks)
    if len({n.replicate for n in networks}) < 2 or not verdicts:
        return ""
    rows = [
        [
            f"{v.comparison.level}",
            v.outcome + (f", about {v.needed} more" if v.needed else ""),
            *_cells(v.comparison),
        ]
        for v in verdicts
    ]
    parts = [
        "<h2>Tickets against the dense network, over replicates</h2>",
        _rows(("level", "verdict", "points gained", "steps, as a share"), rows),
    ]
    for control in table.variants(networks)[1:]:
        rows = [
            [f"{c.level}", *_cells(c)]
            for c in replicates.compare(networks, "ticket", control)
        ]
        parts += [
            f"<h2>Tickets against {html.escape(control)}</h2>",
            _rows(("level", "points gained", "steps, as a share"), rows),
        ]
    parts.append(
        "<p>Validation accuracy and early-stop step, paired by replicate: mean "
        "and interval of Student's t, with 95 % confidence in all levels of a "
        "table together (Bonferroni). A ticket wins that is shown to stop no "
        f"later and to lose less than {100 * winning.MARGIN:.1f} points.</p>"
    )
    return "\n".join(parts)


def _cells(comparison: replicates.Comparison) -> list[str]:
    gain, sooner = comparison.gain, comparison.sooner
    points = [f"{100 * v:+.2f}" for v in (gain.mean, gain.low, gain.high)]
    shares = [
        f"{np.exp(-v):.2f}" for v in (sooner.mean, sooner.high, sooner.low)
    ]
    return [f"{m} ({low} to {high})" for m, low, high in (points, shares)]


def _claims(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    lines = "".join(f"<li>{html.escape(str(f))}</li>" for f in findings)
    return (
        "<h2>The paper's claims</h2>"
        f"<ul>{lines}</ul><p>Frankle &amp; Carbin 2019. Means over replicates "
        "and their 95 % intervals, one claim at a time.</p>"
    )


def _rows(head: Sequence[str], rows: Sequence[list[str]]) -> str:
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>"
        for row in rows
    )
    return (
        f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
    )


def _table(networks: Sequence[Any]) -> str:
    names = table.variants(networks)
    head = "".join(
        f'<th colspan="2">{html.escape(name)}</th>' for name in names
    )
    under = "<th>early stop</th><th>accuracy</th>" * len(names)
    body = []
    for row in table.by_level(networks):
        cells = [f"{row['level']}", f"{100 * (row['density'] or 0):.2f} %"]
        for name in names:
            stop = row[f"{name} early_stop_step"]
            accuracy = row[f"{name} accuracy"]
            cells.append("" if stop is None else f"{stop:,.0f}")
            cells.append("" if accuracy is None else f"{100 * accuracy:.2f} %")
        body.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    return (
        '<table><thead><tr><th rowspan="2">level</th>'
        f'<th rowspan="2">density</th>{head}</tr><tr>{under}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )

"""This module knows the tables of a report."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_lottery.analysis import replicates, table, winning
from tf_lottery.analysis.claims import Finding, tally
from tf_lottery.analysis.report import page


def claims(findings: Sequence[Finding]) -> str:
    """Returns the paper's claims, and what the run says of each."""
    if not findings:
        return ""
    rows = [
        [
            f.outcome,
            f.claim.text,
            f.band,
            f.number,
            f"{f.measured.replicates}",
            f.claim.source,
        ]
        for f in findings
    ]
    head = ("outcome", "claim", "claimed", "measured", "n", "source")
    return "\n".join(
        [
            "<h2>The paper's claims</h2>",
            f"<p>{html.escape(tally(findings))}</p>",
            page.table(head, rows, "text", marked=0),
            '<p class="note">Measured: mean over n replicates and its 95 % '
            "interval (Student's t), steps compared by geometric means. "
            "Reproduced: the interval lies within what is claimed; not "
            "reproduced: outside; else there are not enough runs to tell. "
            "Trained too short: a validation loss still fell at the end. "
            "Each claim stands alone, so one in twenty such outcomes may be "
            "chance. The densities are the paper's, chosen before the run. "
            "Source: Frankle &amp; Carbin 2019.</p>",
        ]
    )


def levels(networks: Sequence[Any]) -> str:
    """Returns means and ranges over replicates, level by level."""
    names = table.variants(networks)
    metric = table.deciding_metric(networks)
    scale, form, measured = 1.0, "{:.4g}", metric.name
    if metric.is_fraction:
        scale, form, measured = 100, "{:.2f}", f"{metric.name} (%)"
    rows = []
    for level in sorted({n.level for n in networks}):
        here = [n for n in networks if n.level == level]
        density = table.mean(here, "ticket", "density")
        row = [f"{level}", "" if density is None else f"{density:.2%}"]
        for name in names:
            own = [n for n in here if n.variant == name]
            row.append(_range(own, ("early_stop_step",), 1, "{:,.0f}"))
            row.append(_range(own, table.columns(metric), scale, form))
        rows.append(row)
    head = ["level", "density"]
    for name in names:
        head += [f"{name}: early stop", measured]
    return "\n".join(
        [
            "<h2>Levels</h2>",
            page.table(head, rows),
            f'<p class="note">{html.escape(_measured(networks))} at the '
            "early-stop step, the step of minimum validation loss (Frankle "
            "&amp; Carbin 2019, App. C): mean over replicates [lowest to "
            "highest].</p>",
        ]
    )


def _measured(networks: Sequence[Any]) -> str:
    metric = table.deciding_metric(networks)
    with_test = any(metric.column("test") in n.row for n in networks)
    name = metric.name.replace("_", " ")
    if with_test:
        return f"Test {name}"
    return f"{name.capitalize()} on validation data"


def _range(
    networks: Sequence[Any], columns: tuple[str, ...], scale: float, form: str
) -> str:
    found = [table.value(n, *columns) for n in networks]
    values = [scale * v for v in found if v is not None]
    if not values:
        return ""
    text = form.format(float(np.mean(values)))
    if len(values) > 1:
        low, high = (form.format(end(values)) for end in (min, max))
        text += f" [{low}–{high}]"
    return text


def comparisons(networks: Sequence[Any]) -> str:
    """Returns the verdicts over replicates, and tickets against controls."""
    verdicts = replicates.judge(networks)
    if not verdicts or len({n.replicate for n in networks}) < 2:
        return ""
    rows = [
        [
            f"{v.comparison.level}",
            v.outcome + (f", about {v.needed} more" if v.needed else ""),
            *_cells(v.comparison),
        ]
        for v in verdicts
    ]
    columns = ("points gained", "steps, as a share", "n")
    parts = [
        "<h2>Tickets against the dense network, over replicates</h2>",
        page.table(("level", "verdict", *columns), rows),
    ]
    for control in table.variants(networks)[1:]:
        rows = [
            [f"{c.level}", *_cells(c)]
            for c in replicates.compare(networks, "ticket", control)
        ]
        if rows:
            parts.append(
                f"<details><summary>Tickets against {html.escape(control)}"
                f"</summary>{page.table(('level', *columns), rows)}</details>"
            )
    parts.append(
        '<p class="note">Validation accuracy and early-stop step, paired by '
        "replicate: mean and interval of Student's t, with 95 % confidence in "
        "all levels of a column together (Bonferroni). A ticket wins that is "
        "shown to stop no later and to lose less than "
        f"{100 * winning.MARGIN:.1f} points.</p>"
    )
    return "\n".join(parts)


def _cells(comparison: replicates.Comparison) -> list[str]:
    gain, sooner = comparison.gain, comparison.sooner
    if not gain.has_interval:
        mean = f"{100 * gain.mean:+.2f}", f"{np.exp(-sooner.mean):.2f}"
        return [*mean, f"{gain.replicates}"]
    points = [f"{100 * v:+.2f}" for v in (gain.mean, gain.low, gain.high)]
    shares = [
        f"{np.exp(-v):.2f}" for v in (sooner.mean, sooner.high, sooner.low)
    ]
    cells = [f"{m} ({low} to {high})" for m, low, high in (points, shares)]
    return [*cells, f"{gain.replicates}"]

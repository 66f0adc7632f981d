"""The tables of a report."""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_lottery.analysis import table
from tf_lottery.analysis.claims import Finding, tally
from tf_lottery.analysis.comparison import Comparison, compare
from tf_lottery.analysis.deciding import Deciding
from tf_lottery.analysis.estimate import Estimate
from tf_lottery.analysis.report import page
from tf_lottery.analysis.verdict import Judgment, sequence


def claims(findings: Sequence[Finding]) -> str:
    """Returns the paper's claims, and what the run says of each."""
    if not findings:
        return ""
    asked = any(f.number for f in findings)
    rows = [
        [
            f.outcome,
            f.claim.text,
            f.value,
            f"{f.measured.n}",
            *([f.band, f.number or ""] if asked else []),
            f.claim.source,
        ]
        for f in findings
    ]
    head = ["direction", "claim", "measured", "n"]
    head += ["the paper's number", "which"] if asked else []
    second = (
        "The paper's number agrees if it lies in the 95 % prediction interval "
        "of the mean of five new trials."
        if asked
        else "The paper's numbers belong to the paper's settings, which this "
        "run does not have: they are not asked for."
    )
    return "\n".join(
        [
            "<h2>The paper's claims</h2>",
            f"<p>{html.escape(tally(findings))}</p>",
            page.table([*head, "source"], rows, "text", marked=0),
            '<p class="note">Measured: mean over n replicates and its 95 % '
            "interval (Student's t), steps compared by geometric means. A "
            "direction is shown, or contradicted, if that interval lies on one "
            f"side. {second} Each claim stands alone, so one in forty such "
            "outcomes may be chance. The densities are the paper's, chosen "
            "before the run. Source: Frankle &amp; Carbin 2019.</p>",
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


def comparisons(networks: Sequence[Any], judgment: Judgment) -> str:
    """Returns the verdicts over replicates, and tickets against controls.

    Args:
        networks: Records of all replicates.
        judgment: The verdicts on them.
    """
    if not judgment.comparisons:
        return ""
    metric = judgment.metric
    verdicts = {v.level: v for v in judgment.verdicts}
    rows = []
    for found in judgment.comparisons:
        verdict = verdicts.get(found.level)
        error = (
            ""
            if math.isnan(found.examples)
            else (f"±{metric.difference(1.96 * found.examples).lstrip('+-')}")
        )
        rows.append(
            [
                f"{found.level}",
                verdict.outcome if verdict else "none",
                *_cells(found, metric),
                error,
                verdict.reason if verdict else "",
            ]
        )
    head = ["level", "verdict", *_HEAD, "± choice of examples", "because"]
    parts = [
        "<h2>Tickets against the dense network</h2>",
        page.table(head, rows),
        f'<p class="note">{html.escape(_rule(judgment))}</p>',
    ]
    for control in table.variants(networks)[1:]:
        rows = [
            [f"{c.level}", *_cells(c, metric)]
            for c in compare(networks, "ticket", control)
        ]
        if rows:
            parts.append(
                f"<details><summary>Tickets against {html.escape(control)}"
                f"</summary>{page.table(('level', *_HEAD), rows)}</details>"
            )
    return "\n".join(parts)


_HEAD = ("catches up after", "stops after", "gain", "n")


def _rule(judgment: Judgment) -> str:
    """Says what was tested, how, and what was not."""
    looks, alpha = judgment.looks, 100 * judgment.looks.alpha
    when = f"{looks.last} replicates"
    if looks.is_sequential:
        when = (
            f"{looks.first} replicates, and at {looks.last} if those did not "
            "decide"
        )
    order = ", ".join(f"{v.level}" for v in sequence(judgment.verdicts))
    tested = f" Order of the tests: levels {order}." if order else ""
    return (
        f"Decided by {judgment.metric}. Catches up, stops: steps as a share of "
        "the other's, to the dense network's lowest validation loss, and to "
        "early stop; gain: of the metric. Means over n replicates, paired by "
        "replicate, with 95 % intervals (Student's t; geometric means of "
        "steps). A ticket wins that is shown to catch up sooner and to be no "
        f"worse by the margin, each by a one-sided t test at {alpha:.3g} %, at "
        f"{when}; the first level that fails ends the tests, and levels after "
        "it are not tested. A winning level is called not winning in at most 5 "
        "% of runs (Bonferroni). Not tested: early-stop steps, the sizes of "
        "effects, test data. All replicates share their validation examples; "
        "what other examples would change is given as half of a 95 % interval."
        f"{tested}"
    )


def _cells(found: Comparison, metric: Deciding) -> list[str]:
    steps = [_share(found.speed), _share(found.sooner)]
    gain = metric.difference(found.gain.mean)
    if found.gain.has_interval:
        ends = (found.gain.low, found.gain.high)[:: metric.sign]
        low, high = map(metric.difference, ends)
        gain = f"{gain} ({low} to {high})"
    return [*steps, gain, f"{found.gain.n}"]


def _share(logarithm: Estimate) -> str:
    """Returns a log ratio of steps as a share, with its interval."""
    mean = f"{100 * math.exp(-logarithm.mean):.0f} %"
    if not logarithm.has_interval:
        return mean
    low, high = (
        f"{100 * math.exp(min(-end, 9)):.0f}"
        for end in (logarithm.high, logarithm.low)
    )
    return f"{mean} ({low} to {high})"

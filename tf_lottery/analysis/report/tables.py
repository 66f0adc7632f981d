"""The report's tables of claims, levels and comparisons."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tf_lottery.analysis import table
from tf_lottery.analysis.claims import Finding
from tf_lottery.analysis.comparison import Comparison, compare
from tf_lottery.analysis.deciding import Deciding
from tf_lottery.analysis.estimate import Estimate
from tf_lottery.analysis.records import Network
from tf_lottery.analysis.verdict import Judgment, sequence


class Table(NamedTuple):
    """A table of a report.

    Attributes:
        head: Names of the columns.
        rows: Cells of each row, as plain text.
        note: Text below the table.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def claims(findings: Sequence[Finding]) -> Table | None:
    """Returns the results for the paper's claims; `None` without findings.

    Args:
        findings: As `claims.check` returns.
    """
    if not findings:
        return None
    has_numbers = any(f.number for f in findings)
    rows = [
        [
            f.outcome,
            f.claim.text,
            f.value,
            f"{f.measured.n}",
            *([f.band, f.number or ""] if has_numbers else []),
            f.claim.source,
        ]
        for f in findings
    ]
    head = ["direction", "claim", "measured", "n"]
    head += ["the paper's number", "which"] if has_numbers else []
    numbers = (
        "The paper's number agrees if it lies in the 95 % prediction interval "
        "of the mean of five new trials."
        if has_numbers
        else "The paper's numbers belong to the paper's settings, which this "
        "run does not have: they are not asked for."
    )
    return Table(
        [*head, "source"],
        rows,
        "Measured: mean over n replicates and its 95 % interval (Student's t), "
        "steps compared by geometric means. A direction is shown, or "
        "contradicted, if that interval lies on one side. "
        f"{numbers} Each claim stands alone, so one in forty such outcomes may "
        "be chance. The densities are the paper's, chosen before the run. "
        "Source: Frankle & Carbin 2019.",
    )


def levels(networks: Sequence[Network]) -> Table:
    """Returns means and ranges over replicates, one row per level.

    Args:
        networks: Records, draws of controls averaged.
    """
    names = table.variants(networks)
    metric = table.deciding_metric(networks)
    scale, form, label = 1.0, "{:.4g}", metric.name
    if metric.is_fraction:
        scale, form, label = 100, "{:.2f}", f"{metric.name} (%)"
    rows = []
    for level in sorted({n.level for n in networks}):
        of_level = [n for n in networks if n.level == level]
        density = table.mean(of_level, "ticket", "density")
        row = [f"{level}", "" if density is None else f"{density:.2%}"]
        for name in names:
            of_variant = [n for n in of_level if n.variant == name]
            row += [
                _range(of_variant, ("early_stop_step",), 1, "{:,.0f}"),
                _range(of_variant, table.columns(metric), scale, form),
            ]
        rows.append(row)
    head = ["level", "density"]
    for name in names:
        head += [f"{name}: early stop", label]
    return Table(
        head,
        rows,
        f"{_metric(networks)} at the early-stop step, the step of minimum "
        "validation loss (Frankle & Carbin 2019, App. C): mean over replicates "
        "[lowest to highest].",
    )


def _metric(networks: Sequence[Network]) -> str:
    metric = table.deciding_metric(networks)
    if any(metric.column("test") in n.row for n in networks):
        return f"Test {metric.title}"
    return f"{metric.title.capitalize()} on validation data"


def _range(
    networks: Sequence[Network],
    columns: tuple[str, ...],
    scale: float,
    form: str,
) -> str:
    known = [table.value(n, *columns) for n in networks]
    values = [scale * v for v in known if v is not None]
    if not values:
        return ""
    text = form.format(float(np.mean(values)))
    if len(values) > 1:
        low, high = form.format(min(values)), form.format(max(values))
        text += f" [{low}–{high}]"
    return text


_EFFECTS = ("catches up after", "stops after", "gain", "n")


def against_dense(judgment: Judgment) -> Table | None:
    """Returns tickets against dense networks; `None` if none are compared.

    Args:
        judgment: Verdicts on a run.
    """
    if not judgment.comparisons:
        return None
    metric = judgment.metric
    verdicts = {v.level: v for v in judgment.verdicts}
    rows = []
    for comparison in judgment.comparisons:
        verdict = verdicts.get(comparison.level)
        error = metric.difference(1.96 * comparison.examples).lstrip("+-")
        rows.append(
            [
                f"{comparison.level}",
                verdict.outcome if verdict else "none",
                *_effects(comparison, metric),
                "" if math.isnan(comparison.examples) else f"±{error}",
                verdict.reason if verdict else "",
            ]
        )
    head = ["level", "verdict", *_EFFECTS, "± choice of examples", "because"]
    return Table(head, rows, _rule(judgment))


def against_controls(
    networks: Sequence[Network], metric: Deciding
) -> dict[str, Table]:
    """Returns tickets against each control, by the control's name.

    Args:
        networks: Records of all replicates.
        metric: Deciding metric of the run.
    """
    controls = {
        name: [
            [f"{comparison.level}", *_effects(comparison, metric)]
            for comparison in compare(networks, "ticket", name)
        ]
        for name in table.variants(networks)[1:]
    }
    head = ("level", *_EFFECTS)
    return {name: Table(head, rows) for name, rows in controls.items() if rows}


def _rule(judgment: Judgment) -> str:
    """Returns which tests were made, how, and what was not tested."""
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


def _effects(comparison: Comparison, metric: Deciding) -> list[str]:
    gain = comparison.gain
    text = metric.difference(gain.mean)
    if gain.has_interval:
        ends = (gain.low, gain.high)[:: metric.sign]
        low, high = map(metric.difference, ends)
        text = f"{text} ({low} to {high})"
    steps = [_share(comparison.speed), _share(comparison.sooner)]
    return [*steps, text, f"{gain.n}"]


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

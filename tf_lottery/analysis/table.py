"""Tables of a run with one row per level."""

import math
from collections.abc import Sequence

from tf_lottery.analysis import control_draws
from tf_lottery.analysis.comparison import Comparison
from tf_lottery.analysis.deciding import Deciding, deciding
from tf_lottery.analysis.estimate import FEWEST, estimate
from tf_lottery.analysis.records import Network
from tf_lottery.analysis.verdict import Judgment
from tf_lottery.core import variants as variant_names

Row = dict[str, float | int | None]


def variants(networks: Sequence[Network]) -> list[str]:
    """Returns the variants by name, `"ticket"` first.

    Args:
        networks: Records.
    """
    names = {variant_names.control_of(n.variant) for n in networks}
    return sorted(names, key=lambda name: (name != "ticket", name))


def by_level(networks: Sequence[Network]) -> list[Row]:
    """Returns one row per level: means over replicates.

    Args:
        networks: Records of all replicates. Draws of a control are averaged
            within their replicate first.

    Returns:
        Rows with `level`, `density`, and for each variant the early-stop step
        (`"ticket early_stop_step"`) and the deciding metric at early stop on
        test data, else on validation data (`"ticket accuracy"`); `None` if
        there is no such network.
    """
    metric = deciding_metric(networks)
    networks = control_draws.pool(networks)
    rows = []
    for level in sorted({n.level for n in networks}):
        of_level = [n for n in networks if n.level == level]
        row: Row = {
            "level": level,
            "density": mean(of_level, "ticket", "density"),
        }
        for variant in variants(networks):
            row[f"{variant} early_stop_step"] = mean(
                of_level, variant, "early_stop_step"
            )
            row[f"{variant} {metric.name}"] = mean(
                of_level, variant, *columns(metric)
            )
        rows.append(row)
    return rows


def deciding_metric(networks: Sequence[Network]) -> Deciding:
    """Returns the deciding metric of a run.

    Args:
        networks: Records of all replicates.
    """
    return deciding([n.row for n in networks if n.level == 0])


def columns(metric: Deciding) -> tuple[str, ...]:
    """Returns the columns with a metric, in order of preference.

    Args:
        metric: Deciding metric of the run.
    """
    return (
        metric.column("test"),
        metric.column("validation"),
        f"test_{metric.name}",
    )


def value(network: Network, *names: str) -> float | None:
    """Returns the value in the first column that a network has, or `None`.

    Args:
        network: Record of the network.
        names: Names of columns, in order of preference.
    """
    return next((network.row[c] for c in names if c in network.row), None)


def mean(
    networks: Sequence[Network], variant: str, *names: str
) -> float | None:
    """Returns the mean of a column over replicates, or `None` without values.

    Args:
        networks: Records of one level, draws of controls averaged.
        variant: Variant whose networks are averaged.
        names: Names of columns; the first that a network has is used.
    """
    values = [value(n, *names) for n in networks if n.variant == variant]
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def text(networks: Sequence[Network], judgment: Judgment | None = None) -> str:
    """Returns the table as aligned text.

    Args:
        networks: Records of all replicates.
        judgment: Verdicts on the run; they add the outcome of each level, and
            the share of the dense network's steps that tickets take to its
            lowest validation loss.

    Returns:
        Lines of means over replicates; from three replicates on with half the
        width of their 95 % interval (Student's t).
    """
    names, metric = variants(networks), deciding_metric(networks)
    verdicts = {v.level: v for v in judgment.verdicts} if judgment else {}
    compared = {c.level: c for c in judgment.comparisons} if judgment else {}
    networks = control_draws.pool(networks)
    header = ["level", "density"]
    header += ["verdict"] * bool(verdicts) + ["catches up"] * bool(compared)
    for name in names:
        header += [f"{name}: early stop", metric.title]
    lines = [header]
    for level in sorted({n.level for n in networks}):
        of_level = [n for n in networks if n.level == level]
        density = mean(of_level, "ticket", "density") or 0.0
        cells = [f"{level}", f"{100 * density:.2f} %"]
        if verdicts:
            cells.append(verdicts[level].outcome if level in verdicts else "")
        if compared:
            comparison = compared.get(level)
            cells.append(_catches_up(comparison) if comparison else "")
        for name in names:
            of_variant = [n for n in of_level if n.variant == name]
            steps = spread(of_variant, ("early_stop_step",), "{:,.0f}", 1)
            cells += [steps, _metric(of_variant, metric)]
        lines.append(cells)
    widths = [
        max(len(c) for c in column) for column in zip(*lines, strict=True)
    ]
    table = "\n".join(
        "  ".join(c.rjust(w) for c, w in zip(cells, widths, strict=True))
        for cells in lines
    )
    return f"{table}\n{_note(networks, metric, bool(compared))}"


def _catches_up(comparison: Comparison) -> str:
    low, high = (
        math.exp(-end) for end in (comparison.speed.high, comparison.speed.low)
    )
    text = f"{100 * math.exp(-comparison.speed.mean):.0f} %"
    if not comparison.speed.has_interval:
        return text
    return f"{text} [{100 * low:.0f}-{100 * min(high, 99):.0f}]"


def _metric(networks: Sequence[Network], metric: Deciding) -> str:
    if metric.is_fraction:
        text = spread(networks, columns(metric), "{:.2f}", 100)
        return f"{text} %" if text else ""
    return spread(networks, columns(metric), "{:.4g}", 1)


def spread(
    networks: Sequence[Network], names: Sequence[str], form: str, scale: float
) -> str:
    """Returns a mean over replicates, and half the width of its interval.

    Args:
        networks: Records of one level and variant, draws of controls averaged.
        names: Names of columns; the first that a network has is used.
        form: Format string of a number.
        scale: Factor from the column to the printed number.

    Returns:
        Text such as `"2,967 ±640"`; without the width for fewer than three
        replicates; empty without values.
    """
    values = [value(n, *names) for n in networks]
    known = [scale * v for v in values if v is not None]
    if not known:
        return ""
    measured = estimate(known)
    text = form.format(measured.mean)
    if not measured.has_interval:
        return text
    return f"{text} ±{form.format(measured.half_width())}"


def _note(
    networks: Sequence[Network], metric: Deciding, has_verdict: bool
) -> str:
    """Returns a description of the table's numbers."""
    counts = sorted(
        {
            len([n for n in networks if n.variant == "ticket" and n.level == k])
            for k in {n.level for n in networks}
        }
    )
    n = " to ".join(map(str, {counts[0]: 0, counts[-1]: 0}))
    split = "test" if columns(metric)[0] in networks[0].row else "validation"
    parts = [
        f"Means over n = {n} replicate{'s'[: counts[-1] > 1]}"
        + (", ± half of their 95 % interval" if counts[0] >= FEWEST else ""),
        f"{metric.title} on {split} data at early stop",
    ]
    if has_verdict:
        parts.append(
            "catches up: steps to the dense network's lowest validation loss, "
            "as a share of the dense network's"
        )
    return "; ".join(parts) + "."

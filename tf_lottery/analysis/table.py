"""The levels of a run, side by side in a table."""

from collections.abc import Sequence

from tf_lottery.analysis import draws
from tf_lottery.analysis.deciding import Deciding, deciding
from tf_lottery.analysis.winning import Trained

Row = dict[str, float | int | None]


def variants(networks: Sequence[Trained]) -> list[str]:
    """Returns `"ticket"`, if there are any, then the controls by name."""
    names = {draws.control(n.variant) for n in networks}
    return sorted(names, key=lambda name: (name != "ticket", name))


def by_level(networks: Sequence[Trained]) -> list[Row]:
    """Returns one row per level: means over replicates.

    Args:
        networks: Records of all replicates. Draws of a control are averaged
            within their replicate first.

    Returns:
        Rows with `level`, `density`, and for every variant `early_stop_step`,
        and the deciding metric at early stop (on test data, else on validation
        data), keyed `"ticket accuracy"`, `"ticket loss"`; None where there is
        no such network.
    """
    metric = deciding_metric(networks)
    networks = draws.pool(networks)
    rows = []
    for level in sorted({n.level for n in networks}):
        here = [n for n in networks if n.level == level]
        row: Row = {
            "level": level,
            "density": mean(here, "ticket", "density"),
        }
        for variant in variants(networks):
            row[f"{variant} early_stop_step"] = mean(
                here, variant, "early_stop_step"
            )
            row[f"{variant} {metric.name}"] = mean(
                here, variant, *columns(metric)
            )
        rows.append(row)
    return rows


def deciding_metric(networks: Sequence[Trained]) -> Deciding:
    """Returns the metric that decides the run of these networks."""
    rows = [n.row for n in networks if n.level == 0]
    return deciding(rows[0] if rows else {})


def columns(metric: Deciding) -> tuple[str, ...]:
    """Returns the columns that a metric is taken from: the first that is there.

    Args:
        metric: The metric.
    """
    return (
        metric.column("test"),
        metric.column("validation"),
        f"test_{metric.name}",
    )


def value(network: Trained, *names: str) -> float | None:
    """Returns the first of these columns that the network has."""
    return next((network.row[c] for c in names if c in network.row), None)


def mean(
    networks: Sequence[Trained], variant: str, *names: str
) -> float | None:
    """Returns the mean of a variant's first of these columns, if any has one.

    Args:
        networks: Records of one level, draws pooled.
        variant: Whose.
        names: Names of columns; of each network the first it has counts.
    """
    values = [value(n, *names) for n in networks if n.variant == variant]
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def text(networks: Sequence[Trained]) -> str:
    """Returns the table as aligned text, accuracies in percent."""
    names, metric = variants(networks), deciding_metric(networks)
    header = ["level", "density"]
    for name in names:
        header += [f"{name}: stop", metric.name]
    lines = [header]
    for row in by_level(networks):
        cells = [f"{row['level']}", f"{100 * (row['density'] or 0):.2f} %"]
        for name in names:
            stop = row[f"{name} early_stop_step"]
            found = row[f"{name} {metric.name}"]
            cells.append("" if stop is None else f"{stop:,.0f}")
            cells.append("" if found is None else metric.value(found))
        lines.append(cells)
    widths = [
        max(len(c) for c in column) for column in zip(*lines, strict=True)
    ]
    return "\n".join(
        "  ".join(c.rjust(w) for c, w in zip(cells, widths, strict=True))
        for cells in lines
    )

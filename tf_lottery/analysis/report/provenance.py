"""The report's tables of settings, versions, hardware and training time."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_lottery.analysis.looks import Looks
from tf_lottery.analysis.records import Network
from tf_lottery.analysis.report.tables import Table
from tf_lottery.core import variants

_NOT_VERSIONS = ("preset", "digest", "settings", "deterministic", "hardware")


def extent(networks: Sequence[Network], config: Mapping[str, Any]) -> str:
    """Returns how many networks are trained and planned, as a sentence.

    Args:
        networks: Records of all replicates.
        config: Content of the run's config.json.
    """
    count = len({n.replicate for n in networks})
    text = (
        f"{len(networks):,} trained networks, n = {count} "
        f"replicate{'s'[: count > 1]}, up to level "
        f"{max(n.level for n in networks)}."
    )
    settings = config.get("metadata", {}).get("settings", {})
    if {"replicates", "levels", "controls"} <= settings.keys():
        draws = [variants.parse_draws(c)[1] for c in settings["controls"]]
        replicates = Looks.parse(settings["replicates"]).at(count)
        planned = replicates * (1 + settings["levels"] * (1 + sum(draws)))
        if len(networks) < planned:
            text += f" The run is under way: {planned:,} are planned."
    return text


def facts(networks: Sequence[Network], config: Mapping[str, Any]) -> Table:
    """Returns the table of training time, hardware and versions.

    Args:
        networks: Records of all replicates.
        config: Content of the run's config.json.
    """
    metadata = config.get("metadata", {})
    seconds = sum(n.row.get("seconds", 0.0) for n in networks)
    versions = {k: v for k, v in metadata.items() if k not in _NOT_VERSIONS}
    rows = [
        ["training time", f"{_time(seconds)}, summed over networks"],
        *([k, f"{v}"] for k, v in metadata.get("hardware", {}).items()),
        *([k, f"{v}"] for k, v in versions.items()),
    ]
    if "deterministic" in metadata:
        is_same = "yes" if metadata["deterministic"] else "not promised"
        rows.append(["the same bytes again", is_same])
    return Table(("", ""), rows)


def settings(config: Mapping[str, Any]) -> Table:
    """Returns the table of a run's settings.

    Args:
        config: Content of the run's config.json.
    """
    values = config.get("metadata", {}).get("settings")
    values = values or config.get("fingerprint", {})
    rows = [[name, _text(values[name])] for name in sorted(values)]
    return Table(("setting", "value"), rows)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name}: {value[name]}" for name in sorted(value)]
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return "none" if value == "" else f"{value}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
